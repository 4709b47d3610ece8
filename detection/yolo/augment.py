"""Rain on the training images of ultralytics, rendered while it trains."""

# ultralytics is untyped: its objects and options are Any.
# ruff: noqa: ANN401

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ultralytics.data.base import BaseDataset
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer

from detection.yolo.binding import kept_threads, make_class
from rainmer.config import read_yaml
from rainmer.errors import ConfigError, RainmerError
from rainmer.frames.arrays import Frame, reverse_channels, to_batch, to_frames
from rainmer.rain import PRESETS, RainConfig, RainRenderer, rain_config

__all__ = ["DRY", "RainTrainer"]

DRY = "none"
"""The kind of rain that leaves an image as it is."""

_BASES: dict[str, type] = {
    "detect": DetectionTrainer,
    "obb": OBBTrainer,
    "pose": PoseTrainer,
    "segment": SegmentationTrainer,
}
_YAML = (".yaml", ".yml")
_Base: Any = object


@dataclass(frozen=True)
class RainMixture:
    """Which rain falls on how many images.

    Attributes:
        kinds: The kinds of rain; None: no rain.
        weights: How often each comes, relative to the others.
        on_val: Whether validation images get rain too, the same in every epoch.
    """

    kinds: tuple[RainConfig | None, ...]
    weights: tuple[float, ...]
    on_val: bool = False

    @staticmethod
    def of(rain: Mapping[str, float], *, on_val: bool = False) -> RainMixture:
        """Make a mixture of weights by preset, YAML file of `RainConfig` fields, or `none`.

        Raises:
            ConfigError: A kind is unknown, or its file wrong; a weight is negative, or all are 0.
        """
        weights = tuple(map(float, rain.values()))
        if not all(0 <= weight < math.inf for weight in weights) or not sum(weights):
            raise ConfigError(
                f"rain: weights must be 0 or more, and one above 0, but are {dict(rain)}"
            )
        return RainMixture(tuple(map(_kind, rain)), weights, on_val)

    @property
    def key(self) -> tuple[object, ...]:
        """A key that is equal for equal mixtures."""
        return (self,)

    def render(self, frame: Frame, name: str, seed: int) -> Frame:
        """Return a frame (H, W, 3), uint8, RGB, with the rain of this name and seed.

        The whole frame is given, at the size at which it is trained on: streaks are drawn for its
        width. One thread computes it: with more, sums round differently, and processes that load
        data beside each other slow each other down.
        """
        (config,) = random.Random(f"{seed}/{name}").choices(self.kinds, self.weights)
        if config is None:
            return frame
        with kept_threads():
            torch.set_num_threads(1)
            rainy = RainRenderer(config, seed=seed)(to_batch([frame]), [name]).rainy
            return to_frames(rainy)[0]


def _kind(name: str) -> RainConfig | None:
    if name == DRY:
        return None
    if name.lower().endswith(_YAML):
        try:
            return rain_config("day", **read_yaml(name))  # as `python -m rainmer.rain --rain` does
        except ConfigError as error:
            raise error if name in str(error) else ConfigError(f"{name}: {error}") from error
    if name not in PRESETS:
        choices = ", ".join((*PRESETS, DRY))
        raise ConfigError(f"no rain preset {name!r}: use {choices}, or a .yaml file of its fields")
    return PRESETS[name]


class RainTrainer(_Base):  # type: ignore[misc]
    """A mixin that renders rain on the training images of an ultralytics trainer; see `bind`.

    Rain is rendered on the CPU, in the workers that load the data, after ultralytics has resized an
    image and before mosaics and everything else, so that boxes stay and colours vary as always.
    Which rain an image gets depends on ultralytics' `seed`, the epoch, and the image's path within
    the data set. Caches of ultralytics (`cache=ram`) hold the dry images.
    """

    settings: RainMixture

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.ddp:  # ultralytics would start processes that import this class by its name
            raise RainmerError(
                "several GPUs: start one process for each, with torchrun --nproc-per-node N -m "
                "detection.augment train ..., or use one, as by device=0"
            )

    @staticmethod
    def bind(
        rain: Mapping[str, float], task: str = "detect", *, rain_val: bool = False
    ) -> type[Any]:
        """Make a trainer class: `yolo.train(trainer=RainTrainer.bind({"day": 1, "none": 2}), ...)`.

        Args:
            rain: Weights by kind: a preset of `rainmer.rain`, a YAML file of fields that differ
                from `day`, or `none` for dry images.
            task: The detector's task: detect, segment, pose or obb.
            rain_val: Whether validation images get rain too.

        Raises:
            RainmerError: The task is unknown.
            ConfigError: A kind is unknown, or its file wrong; a weight is negative, or all are 0.
        """
        if task not in _BASES:
            raise RainmerError(f"no task {task!r}: use one of {', '.join(_BASES)}")
        base = _BASES[task]
        mixture = RainMixture.of(rain, on_val=rain_val)
        return make_class(f"Rain{base.__name__}", (RainTrainer, base), mixture)

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> Any:
        """Build a data set, its images with rain."""
        dataset = super().build_dataset(img_path, mode, batch)
        if mode == "train" or self.settings.on_val:
            root = Path(self.data["path"]).resolve()
            rain_on(dataset, self.settings, seed=self.args.seed, root=root)
        return dataset

    def get_dataloader(self, *args: Any, mode: str = "train", **kwargs: Any) -> Any:
        """Build a data loader; one for training names the epoch with each image."""
        loader = super().get_dataloader(*args, mode=mode, **kwargs)
        if mode == "train":
            batches = loader.batch_sampler
            batches.sampler = Visits(batches.sampler, self)
        return loader


class Visit(NamedTuple):
    """One use of an image in training: its number in the data set, and the epoch."""

    image: int
    epoch: int


class Visits:
    """Batches of visits, without end, in place of one epoch's batches of indices.

    Workers live through all epochs and load ahead of them, so that the epoch must come with the
    index. A loader that is started anew goes on with the trainer's epoch.

    Args:
        batches: The sampler of one epoch.
        trainer: The trainer, which knows its epoch.
    """

    def __init__(self, batches: Any, trainer: Any) -> None:
        self._batches = batches
        self._trainer = trainer

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Visit]]:
        epoch = getattr(self._trainer, "epoch", self._trainer.start_epoch)
        while True:
            for indices in self._batches:
                yield [Visit(index, epoch) for index in indices]
            epoch += 1


def rain_on(dataset: Any, mixture: RainMixture, *, seed: int, root: Path) -> None:
    """Give the images of an ultralytics data set rain; also in workers, forked or spawned.

    Args:
        dataset: A data set of images of three channels; caches may be filled.
        mixture: The rain.
        seed: Random seed of the rain.
        root: The data set's folder: moved elsewhere, its images get the same rain.

    Raises:
        RainmerError: It is no such data set.
    """
    if not isinstance(dataset, BaseDataset) or dataset.channels != 3:
        raise RainmerError(
            f"rain needs colour images in a data set of ultralytics; a {type(dataset).__name__} of "
            f"{getattr(dataset, 'channels', 'unknown')} channels has none"
        )
    images = _RainyImages(dataset, mixture, seed, root)
    dataset.load_image = images.load_image
    dataset.__getitems__ = images.read_batch  # the method by which torch fetches whole batches


class _RainyImages:
    """A mixin of an ultralytics data set that renders rain on images after they are resized."""

    def __init__(self, dataset: Any, mixture: RainMixture, seed: int, root: Path) -> None:
        self._dataset = dataset
        self._mixture = mixture
        self._seed = seed
        self._root = root
        self._epoch = 0
        # Mosaics show an image about four times an epoch, soon after each other.
        self._rendered: OrderedDict[int, tuple[int, Frame]] = OrderedDict()

    def read_batch(self, visits: Sequence[Visit | int]) -> list[Any]:
        """Return the samples of a batch; mosaics show other images with the rain of this epoch."""
        samples = []
        for visit in visits:
            # Validation comes without epochs, and keeps its rain.
            image, self._epoch = visit if isinstance(visit, Visit) else (visit, 0)
            samples.append(self._dataset[image])
        return samples

    def load_image(
        self, i: int, *args: Any, **kwargs: Any
    ) -> tuple[Frame, tuple[int, int], tuple[int, int]]:
        """Return an image, BGR, resized, rainy; its size (height, width) before and after."""
        epoch, rainy = self._rendered.pop(i, (-1, None))
        dry, before, after = type(self._dataset).load_image(self._dataset, i, *args, **kwargs)
        if rainy is None or epoch != self._epoch or rainy.shape != dry.shape:
            rainy = self._render(dry, self._dataset.im_files[i])
        if rainy is dry:
            return dry, before, after
        self._rendered[i] = self._epoch, rainy
        if len(self._rendered) > self._dataset.max_buffer_length:
            self._rendered.popitem(last=False)
        return rainy.copy(), before, after  # transforms may write into it

    def _render(self, dry: Frame, path: str) -> Frame:
        frame = reverse_channels(dry)
        name = Path(path).as_posix().removeprefix(f"{self._root.as_posix()}/")
        rainy = self._mixture.render(frame, f"{name}/{self._epoch}", self._seed)
        return dry if rainy is frame else reverse_channels(rainy)
