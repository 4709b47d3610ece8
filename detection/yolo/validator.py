"""A derainer inside ultralytics' `val`."""

# ultralytics is untyped: its objects and options are Any.
# ruff: noqa: ANN401

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, cast

import cv2
import torch
from torch import Tensor
from ultralytics.data.base import BaseDataset
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.models.yolo.pose import PoseValidator
from ultralytics.models.yolo.segment import SegmentationValidator
from ultralytics.utils import LOGGER
from ultralytics.utils.ops import Profile
from ultralytics.utils.patches import imread

from detection.types import DerainCallable
from detection.yolo.binding import Settings, Where, derain, make_class
from rainmer.errors import ImageError, RainmerError
from rainmer.frames.arrays import Frame, reverse_channels

__all__ = ["DerainValidator"]

_BASES: dict[str, type] = {
    "detect": DetectionValidator,
    "obb": OBBValidator,
    "pose": PoseValidator,
    "segment": SegmentationValidator,
}
_Base: Any = object


class DerainValidator(_Base):  # type: ignore[misc]
    """A mixin that derains the images of an ultralytics validator; see `bind`.

    In mode `frame` each image is derained at native size, before the data set resizes it, so the
    metrics are those of a folder of derained images. This happens in the main process (a CUDA
    derainer cannot run in forked workers) and batch by batch; image caches are switched off, and
    nothing is written beside the data but ultralytics' own label cache. In mode `network` the
    letterboxed batch is derained, without its grey padding. The derainer's time is in
    `metrics.speed["derain"]`, ms per image.
    """

    settings: Settings

    def __init__(self, dataloader: Any = None, *args: Any, **kwargs: Any) -> None:
        if dataloader is not None and self.settings.where == "frame":
            raise RainmerError(
                "where='frame' must build the data loader itself; use where='network' with a "
                "loader of your own"
            )
        super().__init__(dataloader, *args, **kwargs)
        self._derain_time = Profile()
        self._threads = torch.get_num_threads()

    @staticmethod
    def bind(derainer: DerainCallable, task: str = "detect", where: Where = "frame") -> type[Any]:
        """Make a validator class: `yolo.val(data=..., validator=DerainValidator.bind(derainer))`.

        Args:
            derainer: Callable `frames -> frames`, as `rainmer.Derainer`.
            task: The detector's task: detect, segment, pose or obb.
            where: `frame` derains at native size, `network` after the letterbox (cheaper).

        Raises:
            RainmerError: The task is unknown, or an option is out of range.
        """
        if task not in _BASES:
            raise RainmerError(f"no task {task!r}: use one of {', '.join(_BASES)}")
        return bind_validator(_BASES[task], Settings(derainer, where))

    def build_dataset(self, img_path: Any, mode: str = "val", batch: int | None = None) -> Any:
        """Build the data set, its images derained in mode `frame`."""
        if self.settings.where == "network":
            return super().build_dataset(img_path, mode=mode, batch=batch)
        if self.args.cache:
            LOGGER.warning(
                "cache=%s ignored: images are derained as they are read", self.args.cache
            )
            self.args.cache = False
        dataset = super().build_dataset(img_path, mode=mode, batch=batch)
        self._derain_time = Profile(device=self.device)
        _derain_images_of(dataset, self)
        return dataset

    def get_dataloader(self, dataset_path: Any, batch_size: int) -> Any:
        """Build the data loader, in the main process in mode `frame`."""
        # By now ultralytics has changed the number of CPU threads: see `kept_threads`.
        torch.set_num_threads(self._threads)
        if self.settings.where == "frame":
            self.args.workers = 0
        return super().get_dataloader(dataset_path, batch_size)

    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Convert a batch to the detector's input, derained in mode `network`."""
        batch = super().preprocess(batch)
        if self.settings.where == "network":
            self._derain_contents(batch)
        return batch

    def finalize_metrics(self) -> None:
        """Add the derainer's time to the reported times."""
        derain_ms = self._derain_time.t / len(self.dataloader.dataset) * 1e3
        if self.settings.where == "network":
            self.speed["preprocess"] = max(self.speed["preprocess"] - derain_ms, 0.0)
        # At the end: ultralytics prints the first four by position.
        self.speed["derain"] = derain_ms
        super().finalize_metrics()
        LOGGER.info("Speed: %.1fms derain per image", derain_ms)

    def derain(self, frames: Any, paths: Sequence[str]) -> Any:
        """Derain frames that were read from `paths`, measuring the time."""
        with torch.inference_mode(), self._derain_time:
            return derain(self.settings, frames, paths)

    def _derain_contents(self, batch: dict[str, Any]) -> None:
        images = batch["img"]
        by_place: dict[tuple[int, ...], list[int]] = {}
        for i, frame_hw in enumerate(batch["ori_shape"]):
            place = _content(frame_hw, batch["ratio_pad"][i])
            by_place.setdefault(place, []).append(i)
        for (top, left, height, width), indices in by_place.items():
            rows, columns = slice(top, top + height), slice(left, left + width)
            content: Tensor = images[indices][:, :, rows, columns].float()
            derained = self.derain(content, [batch["im_file"][i] for i in indices])
            images[indices, :, rows, columns] = derained.to(images.dtype)


def bind_validator(base: type, settings: Settings) -> type[Any]:
    """Derive a deraining class from any validator class of ultralytics for detection data sets.

    Raises:
        RainmerError: `base` is not such a class.
    """
    if isinstance(base, type) and issubclass(base, DerainValidator):
        return base
    if not (isinstance(base, type) and issubclass(base, DetectionValidator)):
        raise RainmerError(
            f"{getattr(base, '__name__', base)} cannot derain, only validators of detection data "
            "sets can: derain the images first, with python -m rainmer.derain"
        )
    return make_class(f"Derain{base.__name__}", (DerainValidator, base), settings)


def _content(frame_hw: Sequence[int], ratio_pad: Any) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a frame in its letterboxed image."""
    (gain_h, gain_w), (left, top) = ratio_pad
    return int(top), int(left), round(frame_hw[0] * gain_h), round(frame_hw[1] * gain_w)


class _DerainedImages:
    """A mixin of an ultralytics data set that derains images before they are resized."""

    def __init__(self, dataset: Any, validator: DerainValidator) -> None:
        self._dataset = dataset
        self._validator = validator
        parameters = inspect.signature(dataset.load_image).parameters
        self._keeps_aspect = bool(parameters["rect_mode"].default)
        self._derained: dict[int, Frame] = {}

    def read_batch(self, indices: Sequence[int]) -> list[Any]:
        """Return the samples of a batch, the images derained together."""
        self._derained = dict(zip(indices, self._derain(indices), strict=True))
        return [self._dataset[i] for i in indices]

    def load_image(
        self, i: int, rect_mode: bool | None = None, **_unused: Any
    ) -> tuple[Frame, tuple[int, int], tuple[int, int]]:
        """Return a derained image, BGR, resized, with its size (height, width) before and after."""
        derained = self._derained.pop(i, None)
        if derained is None:
            derained = self._derain([i])[0]
        keeps_aspect = self._keeps_aspect if rect_mode is None else rect_mode
        frame = _resize(reverse_channels(derained), self._dataset.imgsz, keeps_aspect)
        return frame, derained.shape[:2], cast("tuple[int, int]", frame.shape[:2])

    def _derain(self, indices: Sequence[int]) -> list[Any]:
        paths = [self._dataset.im_files[i] for i in indices]
        derained = self._validator.derain([self._read(path) for path in paths], paths)
        return list(derained)

    def _read(self, path: str) -> Frame:
        bgr = imread(path, flags=self._dataset.cv2_flag)
        if bgr is None or bgr.shape[2] != 3:
            raise ImageError(f"{path} cannot be read as a colour image")
        return reverse_channels(bgr)


def _derain_images_of(dataset: Any, validator: DerainValidator) -> None:
    if not isinstance(dataset, BaseDataset):
        kind = type(dataset).__name__
        raise RainmerError(f"where='frame' cannot derain a {kind}; use where='network'")
    images = _DerainedImages(dataset, validator)
    dataset.load_image = images.load_image
    dataset.__getitems__ = images.read_batch  # the method by which torch fetches whole batches


def _resize(frame: Frame, target: int | Sequence[int], keeps_aspect: bool) -> Frame:
    """Resize as ultralytics' data sets do: the longer side to the target, the other rounded up."""
    height, width = frame.shape[:2]
    target_hw = (target, target) if isinstance(target, int) else (target[0], target[1])
    if keeps_aspect:
        longest = max(target_hw)
        scale = longest / max(height, width)
        if scale == 1:
            return frame
        target_hw = (
            min(math.ceil(height * scale), longest),
            min(math.ceil(width * scale), longest),
        )
    if target_hw == (height, width):
        return frame
    resized = cv2.resize(frame, target_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return cast(Frame, resized)
