"""One step of training: batches in, weights changed, losses out.

Source: section 2.2 of the training protocol of Rainmer; equal to the published loop on the golden
trace. Additions are off by default: mixed precision, moving average, several processes.

On a GPU nothing waits for a step: whether its values are finite is decided there, and they are read
when the run logs (`Trainer.read`); steps become CUDA graphs. On a CPU they are read at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rainmer import kernels, models
from rainmer.errors import ConfigError
from rainmer.frames.arrays import unit_range
from rainmer.train.average import MovingAverage
from rainmer.train.boxes import CropBoxes
from rainmer.train.config import TrainConfig
from rainmer.train.contrast import TrainingOutput
from rainmer.train.finite import first_not_finite, named_tensors
from rainmer.train.graphs import CudaStepEngine, Pace, PassInputs, StepEngine, StepGraphs
from rainmer.train.losses import PIXEL_LOSSES, ExtraLoss, contrast_losses
from rainmer.train.mixture import Batch
from rainmer.train.modules import trained_views, training_module
from rainmer.train.negatives import (
    Archives,
    Contrast,
    draw_flips,
    gather,
    make_contrast,
    rain_signature,
)
from rainmer.train.optimisers import (
    is_encoder,
    learning_rate,
    load_state,
    make_optimisers,
    set_rates,
    state_of,
)

__all__ = ["PendingResult", "StepResult", "Trainer"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """What one training step reports.

    Attributes:
        losses: Means over the forward passes, by name.
        lr: Learning rate of the backbone.
        grad_norm: Norm of the backbone's gradient before clipping; NaN for a skipped step.
        skipped: Whether nothing was changed because a loss or a gradient was not finite.
        broken: Name of a weight that is not finite after the step; None: all are.
    """

    losses: dict[str, float]
    lr: float
    grad_norm: float
    skipped: bool
    broken: str | None = None


@dataclass(frozen=True)
class PendingResult:
    """What one training step will report, still on the device.

    Attributes:
        losses: Names of the losses.
        gradients: Names of the parameters that had gradients, the backbone's first.
        values: The losses, whether the step was skipped (0 or 1), the norm of the backbone's
            gradient, and the norm of each gradient, in one tensor.
        lr: Learning rate of the backbone.
    """

    losses: Sequence[str]
    gradients: Sequence[str]
    values: Tensor
    lr: float


class Trainer:
    """A network with its optimisers, archives and counters.

    Args:
        network: The network to train, on its device.
        config: The configuration of the run.
        flips: Whether positives and negatives are flipped at random.
        extra_loss: A further loss of the restored crops.
        deferred: Whether results are left on the device until they are read; None: on CUDA.
        engine: What records steps that are deferred; None: CUDA graphs, where the configuration
            wants them.

    Raises:
        ConfigError: There is an extra loss, but the network's own loss has no restored crops.
    """

    def __init__(
        self,
        network: models.Network,
        config: TrainConfig,
        *,
        flips: bool = True,
        extra_loss: ExtraLoss | None = None,
        deferred: bool | None = None,
        engine: StepEngine | None = None,
    ) -> None:
        if extra_loss is not None and config.pixel_loss == "own":
            raise ConfigError("pixel_loss: own gives no restored crops for a further loss")
        self.config = config
        self.extra_loss = extra_loss
        self.network = network
        self.device = next(network.parameters()).device
        self.deferred = self.device.type == "cuda" if deferred is None else deferred
        self.iteration = 0
        """Forward passes so far, skipped ones included."""
        self.position: float | None = None
        """Where the schedule stands, in optimiser steps; None: as the forward passes say."""
        self._flips = flips
        self.views = trained_views(network, config)
        self.model = training_module(network, config)
        self.archives = Archives(self.views, config.archive, config.data.query, self.device)
        self.optimisers = make_optimisers(network, config, deferred=self.deferred)
        self._rate = config.optimiser.lr
        self.average = MovingAverage(network, config.ema) if config.ema else None
        self._runner = self._wrap(self.model)
        self._beside: torch.cuda.Stream | None = None
        self._pace: Pace | None = None
        if self.device.type == "cuda":
            self._pace = Pace(self.device)
            self._beside = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        if self._wants_graphs():
            engine = CudaStepEngine(self.device)
        self.graphs = StepGraphs(engine, self._drop_gradients)

    def _wants_graphs(self) -> bool:
        """Whether steps become CUDA graphs; with "auto" where nothing unknown is part of them."""
        wanted, on_cuda = self.config.graphs, self.device.type == "cuda"
        if wanted is True and not (on_cuda and self.world == 1 and not self.config.compile):
            raise ConfigError("graphs: true needs a CUDA device, one process and compile: false")
        if wanted != "auto":
            return wanted
        foreign = self.extra_loss is not None or self.config.pixel_loss == "own"
        other = self.config.compile or self.config.checkpointing
        return on_cuda and self.world == 1 and not (foreign or other)

    def _wrap(self, model: nn.Module) -> nn.Module:
        if self.config.compile:
            model = cast(nn.Module, torch.compile(model))
        if dist.is_initialized() and dist.get_world_size() > 1:
            unused = not (self.config.prompted and self.views)
            model = DistributedDataParallel(
                model,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                find_unused_parameters=unused,
            )
        return model

    @property
    def world(self) -> int:
        """Number of processes that share each batch."""
        return dist.get_world_size() if dist.is_initialized() else 1

    def fill_archives(self, batches: Iterable[Batch]) -> None:
        """Store batches in the archives without training on them."""
        for batch in batches:
            query, clean = (unit_range(t.to(self.device)) for t in (batch.query, batch.query_clean))
            self.archives.add(gather(query), gather(clean))

    def step(self, batches: Sequence[Batch]) -> StepResult | PendingResult:
        """Change the weights once.

        Args:
            batches: A batch for each forward pass of the step (`accumulate` of the configuration).
        """
        passes = [self._prepare(batch) for batch in batches]
        set_rates(self.optimisers, self._rate, self.config.optimiser.encoder_lr)
        if not self.deferred:
            return self._step_now(passes)
        values, (losses, gradients) = self.graphs.run(self._step_on_device, passes)
        if self._pace is not None:
            self._pace.end_step()
        return PendingResult(losses, gradients, values, self._rate)

    def _step_now(self, passes: Sequence[PassInputs]) -> StepResult:
        """Step, and read on the way whether all is finite."""
        buffers = self._buffers()
        totals: dict[str, float] = {}
        finite = True
        for names, values in self._passes(passes):
            losses = dict(zip(names, values.tolist(), strict=True))
            finite = self._are_finite(losses) and finite
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + value / len(passes)
        norm = self._update() if finite else math.nan
        skipped, broken = not math.isfinite(norm), None
        self._drop_gradients()
        if skipped:
            for buffer, before in buffers:
                buffer.copy_(before)
        else:
            broken = self._broken_parameter()
            if self.average is not None and broken is None:
                self.average.update(self.network)
        return StepResult(totals, self._rate, norm, skipped, broken)

    def _step_on_device(
        self, passes: Sequence[PassInputs]
    ) -> tuple[Tensor, tuple[Sequence[str], Sequence[str]]]:
        """Change weights, average and statistics, all or none, without knowing which.

        Everything is changed where it is in memory, so that this can be recorded.

        Returns:
            The values of a `PendingResult`, and the names of its losses and gradients.
        """
        buffers = self._buffers()
        done = list(self._passes(passes))
        losses = torch.stack([values / len(done) for _, values in done]).sum(0)
        named = [(n, p) for n, p in self.network.named_parameters() if p.grad is not None]
        named.sort(key=lambda item: is_encoder(item[0]))  # the backbone first, which is clipped
        backbone = [p for name, p in named if not is_encoder(name)]
        gradients = [p.grad for _, p in named if p.grad is not None]
        norms = torch.stack(torch._foreach_norm(gradients))
        total, rest = (
            torch.linalg.vector_norm(part) for part in norms.tensor_split([len(backbone)])
        )
        finite = torch.cat((losses, total[None], rest[None])).isfinite().all()
        skipped = (~finite).float()
        limit = self.config.optimiser.clip
        if limit is not None:
            nn.utils.clip_grads_with_norm_(backbone, limit, total)
        for optimiser in self.optimisers:
            # Where this is 1, fused AdamW leaves weights and state alone: made for GradScaler.
            optimiser.found_inf = skipped  # type: ignore[attr-defined]
            optimiser.step()
        self._drop_gradients()
        for buffer, before in buffers:
            buffer.copy_(torch.where(finite, buffer, before))
        if self.average is not None:
            self.average.update_if(self.network, 1 - skipped)
        values = torch.cat((losses, skipped[None], total[None], norms))
        return values, (done[0][0], [name for name, _ in named])

    def _buffers(self) -> list[tuple[Tensor, Tensor]]:
        """Return the statistics with copies: batch norms change them before the loss is known."""
        return [(buffer, buffer.clone()) for buffer in self.model.buffers()]

    def _drop_gradients(self) -> None:
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)

    def read(self, results: Sequence[StepResult | PendingResult]) -> list[StepResult]:
        """Give the results of consecutive steps, after one wait for those still on the device."""
        pending = [result for result in results if isinstance(result, PendingResult)]
        if not pending:
            return [result for result in results if isinstance(result, StepResult)]
        values = torch.cat([result.values for result in pending]).tolist()
        read = []
        for result in pending:
            count = len(result.losses) + 2 + len(result.gradients)
            read.append(self._result(result, values[:count]))
            del values[:count]
        # What is not finite stays so: one look at the weights tells it for all these steps.
        read[-1] = dataclasses.replace(read[-1], broken=self._broken_parameter())
        return read

    def _result(self, pending: PendingResult, values: Sequence[float]) -> StepResult:
        losses = dict(zip(pending.losses, values, strict=False))
        skipped, norm, *norms = values[len(losses) :]
        if skipped and self._are_finite(losses):
            named = zip(pending.gradients, norms, strict=True)
            _name_gradient(next((n for n, value in named if not math.isfinite(value)), None))
        return StepResult(losses, pending.lr, math.nan if skipped else norm, bool(skipped))

    def _are_finite(self, losses: Mapping[str, float]) -> bool:
        broken = [name for name, value in losses.items() if not math.isfinite(value)]
        if broken:
            _log.warning("step skipped: not finite: %s", ", ".join(broken))
        return not broken

    def _prepare(self, batch: Batch) -> PassInputs:
        """Count a pass, and bring to the device what differs from pass to pass.

        On a GPU this runs beside the step in progress: the singular values of the rain are waited
        for by the processor, which then need not wait for the step.
        """
        self.iteration += 1
        self._rate = learning_rate(self.config, self.iteration, self.position)
        with _on_stream(self._beside):
            images = [self._moved(tensor) for tensor in batch[:5]]
            boxes = None if batch.boxes is None else batch.boxes.to(self.device)
            views = self._view_inputs(*images[2:4])
            inputs = PassInputs._make([*images, *views, boxes])
        if self._beside is not None:
            current = torch.cuda.current_stream(self.device)
            for tensor in (*inputs.tensors, *(boxes or ())):
                tensor.record_stream(current)
        return inputs

    def _view_inputs(
        self, query: Tensor, query_clean: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the signature of the rain, the entries of the archives, and the flips."""
        if not self.views:
            return None, None, None
        signature = flips = None
        if "degradation" in self.views:
            rain = unit_range(query) - unit_range(query_clean)
            signature = rain_signature(rain.clamp(0, 1))
        entries = self._moved(self.archives.next_slot(len(query) * self.world))
        if self._flips:
            chance = random.Random(f"{self.config.seed}/flip/{self.iteration}")
            flips = self._moved(draw_flips(self.views, chance))
        return signature, entries, flips

    def _moved(self, tensor: Tensor) -> Tensor:
        """Copy a tensor to the device, which only pinned memory lets a GPU do by itself."""
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _passes(self, passes: Sequence[PassInputs]) -> Iterator[tuple[Sequence[str], Tensor]]:
        """Run the forward and backward passes; yield names and values of the losses of each."""
        for micro, inputs in enumerate(passes):
            last = micro == len(passes) - 1
            yield self._accumulate(inputs, len(passes), synchronise=last)

    def _accumulate(
        self, inputs: PassInputs, parts: int, *, synchronise: bool
    ) -> tuple[Sequence[str], Tensor]:
        """Run one forward and backward pass; return the names and the values of the losses."""
        rainy, clean, query, query_clean, blurred = map(unit_range, inputs[:5])
        rainy = rainy.contiguous(memory_format=torch.channels_last)
        contrast = self._contrast(query, query_clean, blurred, inputs) if self.views else None
        chosen = contextlib.nullcontext() if self.config.kernels else kernels.twins_only()
        with self._local_gradients(not synchronise), chosen:
            with self._autocast():
                output = (
                    self._runner(rainy, clean)
                    if self.config.pixel_loss == "own"
                    else self._runner(rainy, query if self.config.prompted else None, contrast)
                )
            total, logged = self._losses(output, clean, inputs.boxes)
            torch.autograd.backward(total / parts)
        # One tensor, so that there is one transfer for all losses.
        values = torch.stack([value.detach().float() for value in logged.values()])
        return list(logged), self._mean_over_processes(values)

    def _contrast(
        self, query: Tensor, clean: Tensor, blurred: Tensor, inputs: PassInputs
    ) -> Contrast:
        """Choose positives and negatives from the archives, then add the batch to them."""
        signature, entries, flips = inputs.signature, inputs.entries, inputs.flips
        assert entries is not None
        contrast = make_contrast(query, clean, blurred, self.archives, self.views, signature, flips)
        signature = None if signature is None else gather(signature)
        self.archives.store(entries, gather(query), gather(clean), signature)
        return contrast

    def _losses(
        self, output: TrainingOutput | Tensor, clean: Tensor, boxes: CropBoxes | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to minimise, and the losses to log."""
        if isinstance(output, Tensor):
            return output, {"total": output}
        pixel = PIXEL_LOSSES[self.config.pixel_loss](output.restored.float(), clean)
        views = contrast_losses(output.logits)
        total, extra = pixel.total, views.total()
        if extra is not None:
            total = total + self.config.contrast_weight * extra
        logged = {name: loss for name, loss in views._asdict().items() if loss is not None}
        if self.extra_loss is not None:
            terms = self.extra_loss(output.restored.clamp(0.0, 1.0), clean, boxes)
            total = total + torch.stack(list(terms.values())).sum()
            logged.update(terms)
        return total, {"total": total, **pixel.parts, **logged}

    def _local_gradients(self, local: bool) -> contextlib.AbstractContextManager[Any]:
        """Exchange gradients between processes only in the last pass of a step."""
        if local and isinstance(self._runner, DistributedDataParallel):
            return self._runner.no_sync()
        return contextlib.nullcontext()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.precision == "fp32":
            return contextlib.nullcontext()
        # A recording must not meet weights that were converted outside of it.
        recording = self._beside is not None and torch.cuda.is_current_stream_capturing()
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=not recording)

    def _mean_over_processes(self, values: Tensor) -> Tensor:
        if self.world > 1:
            dist.all_reduce(values)
            values /= self.world
        return values

    def _update(self) -> float:
        """Clip and step; return the norm of the backbone's gradient, NaN if nothing was changed."""
        limit = self.config.optimiser.clip
        backbone = [p for group in self.optimisers[0].param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(backbone, math.inf if limit is None else limit)
        encoder = [
            parameter.grad
            for optimiser in self.optimisers[1:]
            for group in optimiser.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        # One transfer for both norms. The encoder's gradients are checked, not clipped.
        value, rest = torch.stack([norm, nn.utils.get_total_norm(encoder).to(norm)]).tolist()
        if not (math.isfinite(value) and math.isfinite(rest)):
            parameters = self.network.named_parameters()
            gradients = {name: p.grad for name, p in parameters if p.grad is not None}
            _name_gradient(first_not_finite(gradients))
            return math.nan
        for optimiser in self.optimisers:
            optimiser.step()
        return float(value)

    def _broken_parameter(self) -> str | None:
        """Return the name of the first parameter that is not finite; one number is transferred."""
        parameters = dict(self.network.named_parameters())
        norm = nn.utils.get_total_norm(list(parameters.values()))
        return None if math.isfinite(norm.item()) else first_not_finite(parameters)

    def broken_value(self) -> str | None:
        """Return the name of the first value of `state_dict` that is not finite.

        That is weights and averaged weights, statistics, the state of optimisers, and archives.
        """
        return first_not_finite(dict(named_tensors(self.state_dict())))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next steps depend on."""
        return {
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "optimisers": [state_of(optimiser) for optimiser in self.optimisers],
            "archives": self.archives.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.iteration = state["iteration"]
        self.model.load_state_dict(state["model"])
        for optimiser, stored in zip(self.optimisers, state["optimisers"], strict=True):
            load_state(optimiser, stored)
        self.archives.load_state_dict(state["archives"])
        if self.average is not None and state["average"] is not None:
            self.average.load_state_dict(state["average"])
        self.graphs.clear()

    @contextlib.contextmanager
    def averaged(self) -> Iterator[models.Network]:
        """Give the network its averaged weights within the block, if the run keeps an average."""
        if self.average is None:
            yield self.network
            return
        weights = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average.weights)
        try:
            yield self.network
        finally:
            self.network.load_state_dict(weights)


@contextlib.contextmanager
def _on_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Run the block on a stream that the current one then waits for."""
    if stream is None:
        yield
        return
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(stream.device).wait_stream(stream)


def _name_gradient(name: str | None) -> None:
    _log.warning(
        "step skipped: the gradient of %s is not finite", name or "all parameters together"
    )
