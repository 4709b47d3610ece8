"""One step of training: batches in, weights changed, losses out.

Source: section 2.2 of the training protocol of Rainmer; equal to the published loop on the golden
trace. Additions are off by default: mixed precision, moving average, several processes.
"""

from __future__ import annotations

import contextlib
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

from rainmer import models
from rainmer.errors import ConfigError
from rainmer.frames.arrays import unit_range
from rainmer.train.config import TrainConfig
from rainmer.train.contrast import ContrastiveRainmer, TrainingOutput
from rainmer.train.losses import PIXEL_LOSSES, ExtraLoss, contrast_losses
from rainmer.train.mixture import Batch
from rainmer.train.negatives import Archives, Contrast, gather, make_contrast
from rainmer.train.schedule import cyclic_cosine, step_decay

__all__ = ["StepResult", "Trainer", "is_encoder"]

_log = logging.getLogger(__name__)

_ENCODER = "encoder."


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


class _Plain(nn.Module):
    """A network without views, called as `ContrastiveRainmer` is."""

    def __init__(self, network: models.Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, image: Tensor, query: Tensor | None = None, contrast: Contrast | None = None
    ) -> TrainingOutput:
        return TrainingOutput(self.network(image), {})


class _OwnLoss(nn.Module):
    """The network's own loss, of rainy and clean crops (B, 3, H, W), 0..1."""

    def __init__(self, network: models.Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, clean: Tensor) -> Tensor:
        loss: Tensor = self.network.training_loss(image, clean)  # type: ignore[operator]
        return loss


class Trainer:
    """A network with its optimisers, archives and counters.

    Args:
        network: The network to train, on its device.
        config: The configuration of the run.
        flips: Whether positives and negatives are flipped at random.
        extra_loss: A further loss of the restored crops.

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
    ) -> None:
        if extra_loss is not None and config.pixel_loss == "own":
            raise ConfigError("pixel_loss: own gives no restored crops for a further loss")
        self.config = config
        self.extra_loss = extra_loss
        self.network = network
        self.device = next(network.parameters()).device
        self.iteration = 0
        """Forward passes so far, skipped ones included."""
        self.position: float | None = None
        """Where the schedule stands, in optimiser steps; None: as the forward passes say."""
        self._flips = flips
        self.views: Sequence[str] = ()
        self.model: nn.Module
        if isinstance(network, models.Rainmer):
            if config.contrast_weight and config.prompted:
                self.views = network.config.views
            self.model = ContrastiveRainmer(network, contrastive=bool(self.views))
        else:
            self.model = (_OwnLoss if config.pixel_loss == "own" else _Plain)(network)
        self.archives = Archives(self.views, config.archive, config.data.query, self.device)
        self.optimisers = _optimisers(network, config)
        self.average = _MovingAverage(network, config.ema) if config.ema else None
        self._runner = self._wrap(self.model)

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

    def step(self, batches: Sequence[Batch]) -> StepResult:
        """Change the weights once.

        Args:
            batches: A batch for each forward pass of the step (`accumulate` of the configuration).
        """
        totals: dict[str, float] = {}
        finite = True
        # Batch norms take in the statistics of a batch before its loss is known.
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        for micro, batch in enumerate(batches):
            self.iteration += 1
            self._set_rates()
            last = micro == len(batches) - 1
            losses, own_finite = self._accumulate(batch, len(batches), synchronise=last)
            finite = finite and own_finite
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + value / len(batches)
        norm = self._update() if finite else math.nan
        skipped = not math.isfinite(norm)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        lr, broken = self.optimisers[0].param_groups[0]["lr"], None
        if skipped:
            for buffer, before in buffers:
                buffer.copy_(before)
        else:
            broken = self._broken_parameter()
            if self.average is not None and broken is None:
                self.average.update(self.network)
        return StepResult(totals, lr, norm, skipped, broken)

    def _accumulate(
        self, batch: Batch, parts: int, *, synchronise: bool
    ) -> tuple[dict[str, float], bool]:
        """Run one forward and backward pass; return the losses, and whether they are finite."""
        rainy, clean, query, query_clean, blurred = (
            unit_range(tensor.to(self.device, non_blocking=True)) for tensor in batch
        )
        rainy = rainy.contiguous(memory_format=torch.channels_last)
        contrast = self._contrast(query, query_clean, blurred) if self.views else None
        with self._local_gradients(not synchronise):
            with self._autocast():
                output = (
                    self._runner(rainy, clean)
                    if self.config.pixel_loss == "own"
                    else self._runner(rainy, query if self.config.prompted else None, contrast)
                )
            total, logged = self._losses(output, clean)
            torch.autograd.backward(total / parts)
        # One transfer for all losses.
        values = torch.stack([value.detach().float() for value in logged.values()])
        losses = dict(zip(logged, self._mean_over_processes(values).tolist(), strict=True))
        broken = [name for name, value in losses.items() if not math.isfinite(value)]
        if broken:
            _log.warning("step skipped: not finite: %s", ", ".join(broken))
        return losses, not broken

    def _contrast(self, query: Tensor, query_clean: Tensor, blurred: Tensor) -> Contrast:
        """Choose positives and negatives from the archives, then add the batch to them."""
        flips = random.Random(f"{self.config.seed}/flip/{self.iteration}") if self._flips else None
        contrast = make_contrast(query, query_clean, blurred, self.archives, self.views, flips)
        self.archives.add(gather(query), gather(query_clean))
        return contrast

    def _losses(
        self, output: TrainingOutput | Tensor, clean: Tensor
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
            terms = self.extra_loss(output.restored.clamp(0.0, 1.0), clean)
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
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _mean_over_processes(self, values: Tensor) -> Tensor:
        if self.world > 1:
            dist.all_reduce(values)
            values /= self.world
        return values

    def _set_rates(self) -> None:
        config = self.config.optimiser
        rate = self._rate()
        warmup = config.warmup * self.config.accumulate
        if self.iteration <= warmup:
            rate *= self.iteration / warmup
        backbone, *encoder = self.optimisers
        for group in backbone.param_groups:
            group["lr"] = rate
        for optimiser in encoder:
            for group in optimiser.param_groups:
                group["lr"] = rate if config.encoder_lr is None else config.encoder_lr

    def _rate(self) -> float:
        config, accumulate = self.config.optimiser, self.config.accumulate
        at = self.iteration if self.position is None else self.position * accumulate
        if config.milestones:
            return step_decay(at, config.lr, config.milestones, config.decay, accumulate=accumulate)
        return cyclic_cosine(at, config.lr, self.config.cycles, accumulate=accumulate)

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
            name = _first_not_finite(gradients) or "all parameters together"
            _log.warning("step skipped: the gradient of %s is not finite", name)
            return math.nan
        for optimiser in self.optimisers:
            optimiser.step()
        return float(value)

    def _broken_parameter(self) -> str | None:
        """Return the name of the first parameter that is not finite; one number is transferred."""
        parameters = dict(self.network.named_parameters())
        norm = nn.utils.get_total_norm(list(parameters.values()))
        return None if math.isfinite(norm.item()) else _first_not_finite(parameters)

    def broken_value(self) -> str | None:
        """Return the name of the first value of `state_dict` that is not finite.

        That is weights and averaged weights, statistics, the state of optimisers, and archives.
        """
        return _first_not_finite(dict(_tensors(self.state_dict())))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next steps depend on."""
        return {
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "archives": self.archives.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.iteration = state["iteration"]
        self.model.load_state_dict(state["model"])
        for optimiser, stored in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(stored)
        self.archives.load_state_dict(state["archives"])
        if self.average is not None and state["average"] is not None:
            self.average.load_state_dict(state["average"])

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


class _MovingAverage:
    """Exponential moving average of a network's weights, with faster decay in early steps."""

    def __init__(self, network: models.Network, factor: float) -> None:
        self.weights = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.factor = factor
        self.updates = 0

    @torch.no_grad()
    def update(self, network: models.Network) -> None:
        self.updates += 1
        factor = min(self.factor, self.updates / (self.updates + 10))
        current = network.state_dict()
        averaged = [key for key, value in current.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self.weights[key] for key in averaged], [current[key] for key in averaged], 1 - factor
        )
        for key in current.keys() - set(averaged):  # counters of batch norm
            self.weights[key].copy_(current[key])

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for key, value in state["weights"].items():
            self.weights[key].copy_(value)


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:  # noqa: ANN401
    """Yield the tensors in nested dictionaries and lists, with their places joined by dots."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, Mapping | list):
        for key, value in state.items() if isinstance(state, Mapping) else enumerate(state):
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def _first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of a tensor that is not finite; one transfer for all of a device."""
    for device in dict.fromkeys(tensor.device for tensor in tensors.values()):
        own = {name: tensor for name, tensor in tensors.items() if tensor.device == device}
        finite = torch.stack([tensor.isfinite().all() for tensor in own.values()]).tolist()
        for name, good in zip(own, finite, strict=True):
            if not good:
                return name
    return None


def is_encoder(name: str) -> bool:
    """Tell whether a parameter of a network belongs to its view encoder."""
    return name.startswith(_ENCODER)


def _optimisers(network: models.Network, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Make an optimiser for the backbone, and one for the view encoder if there is one."""
    options = config.optimiser
    parameters = list(network.named_parameters())
    backbone = [p for name, p in parameters if not is_encoder(name)]
    encoder = [p for name, p in parameters if is_encoder(name)]
    groups = [(backbone, options.lr, options.weight_decay)]
    if encoder:
        encoder_lr = options.lr if options.encoder_lr is None else options.encoder_lr
        groups.append((encoder, encoder_lr, options.encoder_weight_decay))
    return [
        torch.optim.AdamW(params, lr=lr, betas=options.betas, weight_decay=decay)
        for params, lr, decay in groups
    ]
