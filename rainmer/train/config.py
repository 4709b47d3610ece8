"""The configuration of a training run: dataclasses, filled from YAML and `key=value` options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from rainmer import models
from rainmer.config import flatten, from_mapping, nearest, read_yaml, to_mapping
from rainmer.errors import ConfigError
from rainmer.folders import list_files
from rainmer.train.losses import PixelLossName
from rainmer.train.schedule import Cycle
from rainmer.train.sources import PairsConfig, RenderedConfig

__all__ = [
    "DataConfig",
    "OptimiserConfig",
    "Stage",
    "TrainConfig",
    "ValidationConfig",
    "find_config",
    "read_config",
    "read_mapping",
]

_BASE_KEY = "base"
_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "configs"
_CONFIGS = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "configs"  # of a checkout


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The training data: a mixture of sources.

    Attributes:
        pairs: Pairs of files by a name of your choice.
        rendered: Photos that rain is rendered on, by a name of your choice.
        query: Side of the query image in pixels.
        negatives: Negatives of each view and frame.
        threads: Threads that load and render ahead.
        processes: Processes that do it in their place; 0: threads do; "auto": on a GPU as many as
            CPUs are left, otherwise 0. Samples depend on neither number.
        rendering: Where rain is rendered and samples are cut out of frames: "loader", by those
            threads or processes, or "device", where the network is. Samples are the same, on a GPU
            up to rounding.
        rendering_ahead: With "device" about how many windows a GPU renders at a time.
        max_unreadable: Share of samples that may be unreadable before the run stops.
    """

    pairs: dict[str, PairsConfig] = field(default_factory=dict)
    rendered: dict[str, RenderedConfig] = field(default_factory=dict)
    query: int = 128
    negatives: int = 4
    threads: int = 2
    processes: int | Literal["auto"] = "auto"
    rendering: Literal["loader", "device"] = "loader"
    rendering_ahead: int = 512
    max_unreadable: float = 0.01

    def __post_init__(self) -> None:
        if self.rendering_ahead < 1:
            raise ConfigError(
                f"data.rendering_ahead is {self.rendering_ahead}, but must be above 0"
            )
        for name in ("threads", "processes"):
            value = getattr(self, name)
            if value != "auto" and value < 0:
                raise ConfigError(f"data.{name} is {value}, but must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Consecutive steps with samples of one size; later stages may have larger crops.

    Attributes:
        steps: Optimiser steps; in a run of `minutes` their share of all steps is the stage's share
            of the time.
        crop: Side of the crops in pixels, a multiple of the network's.
        batch: Frames of one forward pass, on all processes together.
        crops_per_frame: Crops taken from each frame; they share its query.
    """

    steps: int
    crop: int = 128
    batch: int = 4
    crops_per_frame: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "crop", "batch", "crops_per_frame"):
            if getattr(self, name) < 1:
                raise ConfigError(f"stages: {name} is {getattr(self, name)}, but must be above 0")


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """AdamW (Adam if the weight decay is 0) with a schedule.

    Attributes:
        lr: Highest learning rate.
        cycles: Cosine cycles in optimiser steps; none: one over all stages, down to `lowest`.
        lowest: Learning rate at the end, if there are no cycles.
        milestones: Optimiser steps after which `decay` multiplies the rate, instead of cycles.
        decay: Factor applied at each of the `milestones`.
        warmup: Optimiser steps over which the rate rises from 0, multiplying the schedule.
        betas: Of both optimisers.
        weight_decay: Of the backbone's parameters.
        encoder_weight_decay: Of the view encoder's parameters.
        encoder_lr: Constant rate of the view encoder; None: it follows the schedule.
        clip: Largest norm of the backbone's gradient; None: not clipped.
    """

    lr: float = 3e-4
    cycles: tuple[Cycle, ...] = ()
    lowest: float = 1e-6
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    encoder_weight_decay: float = 0.01
    encoder_lr: float | None = None
    clip: float | None = 0.01

    def __post_init__(self) -> None:
        if self.cycles and self.milestones:
            raise ConfigError("optimiser: give cycles or milestones, not both")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Validation during training.

    Attributes:
        share: Share of the photos of each of `data.rendered` that is kept from training, and
            validated on under the same kinds of rain; 0: none. Their names decide which. Of fewer
            than 40 photos none is.
        pairs: Sets with targets by a name of your choice.
        rendered: Photos with rendered rain by name; use other photos than for training.
        every: Optimiser steps between two validations; 0: none.
        limit: Images per set.
        strips: Example pictures per set.
    """

    share: float = 0.0
    pairs: dict[str, PairsConfig] = field(default_factory=dict)
    rendered: dict[str, RenderedConfig] = field(default_factory=dict)
    every: int = 5000
    limit: int | None = None
    strips: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ConfigError(f"validation.share is {self.share}, but must be from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run.

    Attributes:
        name: Name of the run's folder below `runs/train`.
        network: A name of `rainmer.models.network_names()`.
        model: The network's options.
        variant: A published variant of Rainmer, which `model` changes; None: the defaults.
        data: The training data.
        stages: Lengths, crops and batches of the stages.
        minutes: Time of the whole run, over which the schedule is stretched; None: the steps count.
        accumulate: Forward passes of one optimiser step.
        seed: Random seed of weights, order, crops and rain.
        pixel_loss: Loss of the restored crops; "own": the network's own `training_loss`.
        contrast_weight: Factor on the contrastive losses; 0: none.
        prompted: Restore with prompts; the published run without views does not.
        archive: Entries of the archives that negatives are chosen from.
        optimiser: Optimiser and learning rates.
        init: Weights to start from: a file, or a shipped name; None: fresh ones.
        precision: "bf16" computes the network in bfloat16 where that is safe (autocast).
        compile: Compile the network (`torch.compile`).
        graphs: Record steps as CUDA graphs; "auto": on a GPU, unless there are several processes,
            `compile`, `checkpointing`, or a loss that is not the run's own.
        kernels: Train with the Triton kernels on a GPU; false: with torch's operators.
        checkpointing: Recompute activations in the backward pass: less memory, a third slower.
        ema: Factor of the moving average of the weights, which is validated and saved; 0: none.
        save_every: Optimiser steps between two checkpoints.
        keep_every: Optimiser steps between two sets of weights that are kept; 0: none.
        log_every: Optimiser steps between two lines of the log.
        max_skipped: Consecutive steps with a non-finite loss before the run stops.
        validation: Validation during training.
    """

    name: str
    network: str = "rainmer"
    model: dict[str, Any] = field(default_factory=dict)
    variant: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    stages: tuple[Stage, ...]
    minutes: float | None = None
    accumulate: int = 1
    seed: int = 100
    pixel_loss: PixelLossName = "charbonnier_ssim"
    contrast_weight: float = 0.1
    prompted: bool = True
    archive: int = 256
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    init: str | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    graphs: bool | Literal["auto"] = "auto"
    kernels: bool = True
    checkpointing: bool = False
    ema: float = 0.0
    save_every: int = 5000
    keep_every: int = 0
    log_every: int = 50
    max_skipped: int = 20
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("stages: name at least one")
        for name in ("accumulate", "save_every", "log_every", "max_skipped", "archive"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, but must be above 0")
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigError(f"minutes is {self.minutes}, but must be above 0")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema is {self.ema}, but must be 0 or more and below 1")
        network = self.build_network("meta")
        if self.pixel_loss == "own" and not hasattr(network, "training_loss"):
            raise ConfigError(f"pixel_loss: {self.network} has no loss of its own")

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def cycles(self) -> tuple[Cycle, ...]:
        """The cycles of the learning rate."""
        whole = Cycle(steps=self.steps, lowest=self.optimiser.lowest)
        return self.optimiser.cycles or (whole,)

    def build_network(self, on: str = "cpu") -> models.Network:
        """Build the network with fresh weights. Raises ConfigError or SpecError."""
        import torch

        options = dict(self.model)
        if self.variant is not None:
            if self.network != models.Rainmer.name:
                raise ConfigError(f"variant: {self.network} has no published variants")
            options = models.RainmerConfig.official(self.variant, **options).to_mapping()
        with torch.device(on):
            return models.build(self.network, **options)


def read_config(path: Path, changes: Sequence[str] = ()) -> TrainConfig:
    """Read a configuration; see `read_mapping`.

    Raises:
        ConfigError: A file is missing or no YAML, or a key or value is wrong.
    """
    return from_mapping(TrainConfig, read_mapping(path, changes), str(path))


def read_mapping(path: Path, changes: Sequence[str] = (), kind: str = "train") -> dict[str, Any]:
    """Read the plain values of a configuration.

    A file may name another file as its `base`, relative to itself, and overrides its values.
    Relative paths of data are relative to the working folder.

    Args:
        path: A YAML file, or the name of a configuration that comes with the package.
        changes: `key=value`, the key with dots (`optimiser.lr=1e-4`, `stages.0.steps=100`), the
            value in YAML.
        kind: The folder of `configs` that has the names.

    Raises:
        ConfigError: A file is missing or no YAML, or a change is malformed.
    """
    mapping = _with_base(find_config(path, kind), ())
    for change in changes:
        _apply(mapping, change)
    mapping.setdefault("name", path.stem)
    return mapping


def find_config(given: Path, kind: str) -> Path:
    """Return the file of a configuration: `given` itself, or the one of this name in the package.

    Raises:
        ConfigError: There is no such file, or no configuration of this name.
    """
    if given.is_file():
        return given
    known = {file.stem: file for file in list_files(_CONFIGS / kind, {".yaml"})}
    if given.suffix or len(given.parts) > 1:
        if given.stem in known:
            raise ConfigError(f"no file {given}; the package has one: --config {given.stem}")
        return given  # which cannot be read, as the next step says
    if given.name not in known:
        raise ConfigError(f"no file and no configuration {given}: {nearest(given.name, known)}")
    return known[given.name]


def _with_base(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    if path in children:
        raise ConfigError(f"{path}: base: the files name each other in a circle")
    mapping = read_yaml(path)
    base = mapping.pop(_BASE_KEY, None)
    if base is None:
        return mapping
    return _merged(_with_base(path.parent / str(base), (*children, path)), mapping)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        before = merged.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(before, value) if both else value  # type: ignore[arg-type]
    return merged


def _apply(mapping: dict[str, Any], change: str) -> None:
    key, separator, text = change.partition("=")
    if not separator or not key:
        raise ConfigError(f"{change!r} is no change of the configuration: expected key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{change!r}: the value is not YAML") from error
    if isinstance(value, str):
        value = _number(value)
    *parents, last = key.split(".")
    node: Any = mapping
    for parent in parents:
        node = _child(node, parent, key)
    if isinstance(node, list):
        node[_position(node, last, key)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ConfigError(f"{key}: there is nothing of that name to change")


def _number(text: str) -> str | float:
    """Turn a text such as 1e-4, which YAML 1.1 does not read as a number, into one."""
    try:
        return float(text)
    except ValueError:
        return text


def _child(node: Any, name: str, key: str) -> Any:  # noqa: ANN401 (plain data of any kind)
    if isinstance(node, dict):
        return node.setdefault(name, {})
    if isinstance(node, list):
        return node[_position(node, name, key)]
    raise ConfigError(f"{key}: there is nothing of that name to change")


def _position(items: Sequence[Any], name: str, key: str) -> int:
    if not name.isdecimal() or int(name) >= len(items):
        raise ConfigError(f"{key}: {name} is no position of a list of {len(items)}")
    return int(name)


def differing_keys(config: TrainConfig, stored: Mapping[str, Any]) -> list[str]:
    """Return the sorted dotted keys in which a stored configuration differs."""
    own, other = flatten(to_mapping(config)), flatten(stored)
    return sorted(k for k in own.keys() | other.keys() if own.get(k) != other.get(k))
