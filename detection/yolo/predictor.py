"""A derainer inside ultralytics' `predict` and `track`."""

# ultralytics is untyped: its objects and options are Any.
# ruff: noqa: ANN401

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from ultralytics.engine.predictor import BasePredictor
from ultralytics.models.yolo.classify import ClassificationPredictor
from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.models.yolo.obb import OBBPredictor
from ultralytics.models.yolo.pose import PosePredictor
from ultralytics.models.yolo.segment import SegmentationPredictor
from ultralytics.utils import LOGGER
from ultralytics.utils.ops import Profile

from detection.types import DerainCallable
from detection.yolo.binding import DrawOn, Settings, Where, derain, kept_threads, make_class
from detection.yolo.device import letterboxes, network_input, placement_of
from detection.yolo.letterbox import Placement, letterbox
from rainmer.errors import ImageError, RainmerError
from rainmer.frames.arrays import Frame, download, quantize, reverse_channels, upload

__all__ = ["DerainPredictor"]

_BASES: dict[str, type] = {
    "classify": ClassificationPredictor,
    "detect": DetectionPredictor,
    "obb": OBBPredictor,
    "pose": PosePredictor,
    "segment": SegmentationPredictor,
}
_Base: Any = object


class DerainPredictor(_Base):  # type: ignore[misc]
    """A mixin that derains the input of an ultralytics predictor; see `bind`.

    This covers every source that ultralytics accepts: images, videos and streams arrive as uint8
    frames of native size, tensors as they are given (and are derained directly, in both modes).
    The detector gets derained frames rounded to 8 bits, so boxes are those of derained image files.
    `Results.orig_img` stays the rainy frame unless `draw_on` says otherwise; trackers, which
    estimate the camera's motion from it, always see the derained one in mode `frame`. The
    derainer's time, in ms per image, is `Results.speed["derain"]` and not part of `preprocess`.
    """

    settings: Settings
    speed: dict[str, float] | None  # of ultralytics: mean ms per frame of the last run, by step

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.settings.where == "network" and not _letterboxes(type(self)):
            raise RainmerError(
                f"{type(self).__name__}: where='network' needs a detector with ultralytics' "
                "letterbox; use where='frame'"
            )
        self._derain_time = Profile()
        self._time_before = 0.0
        self._derained: Sequence[Frame] = ()

    @staticmethod
    def bind(
        derainer: DerainCallable,
        task: str = "detect",
        where: Where = "frame",
        *,
        draw_on: DrawOn = "rainy",
    ) -> type[Any]:
        """Make a predictor class: `yolo.predict(source, predictor=DerainPredictor.bind(derainer))`.

        The same arguments always return the same class, so that ultralytics keeps its predictor
        from call to call. It also keeps it for later calls that name no predictor, which does not
        happen with `attach`.

        Args:
            derainer: Callable `frames -> frames`, as `rainmer.Derainer`.
            task: The detector's task: detect, segment, pose, obb or classify.
            where: `frame` derains at native size, `network` after the letterbox (cheaper).
            draw_on: What `Results.orig_img` shows: the `rainy` frame or the `derained` one.

        Raises:
            RainmerError: The task is unknown, or an option is out of range.
        """
        if task not in _BASES:
            raise RainmerError(f"no task {task!r}: use one of {', '.join(_BASES)}")
        return bind_predictor(_BASES[task], Settings(derainer, where, draw_on))

    def setup_model(self, model: Any, verbose: bool = True) -> None:
        """Set up the detector without changing the number of CPU threads."""
        with kept_threads():
            super().setup_model(model, verbose)

    def preprocess(self, im: Any) -> Tensor:
        """Derain a batch and convert it to the detector's input (B, 3, H, W), RGB, 0..1."""
        self._time_before = self._derain_time.t
        if isinstance(im, Tensor):
            return self._preprocess_tensor(im)
        for frame in im:
            if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
                raise ImageError(
                    "the derainer needs 8-bit colour frames (H, W, 3), but the source gave "
                    f"{frame.shape} of {frame.dtype}"
                )
        if self.settings.where == "network":
            return self._preprocess_at_network_size(im)
        if self._uses_device() and _letterboxes(type(self)):
            return self._preprocess_on_device(im)
        derained = self._derain([reverse_channels(frame) for frame in im], range(len(im)))
        self._derained = [reverse_channels(frame) for frame in derained]
        return cast(Tensor, super().preprocess(self._derained))

    def run_callbacks(self, event: str) -> None:
        """Complete the results, then run the callbacks of an event."""
        if event == "on_predict_start":
            self._derain_time = Profile(device=self.device)
        elif event == "on_predict_batch_end":
            batch_s = self._derain_time.t - self._time_before
            for result in self.results:
                result.speed = _split_time(result.speed, batch_s / len(self.results))
        elif event == "on_predict_end":
            self._finish(self.speed, self.seen)
        if event == "on_predict_postprocess_end":
            self._run_on_derained(event)
        else:
            super().run_callbacks(event)

    def _finish(self, speed: dict[str, float] | None, seen: int) -> None:
        """Complete the mean times; another thread's run may have begun, or ended, meanwhile."""
        if speed and seen and "derain" not in speed:
            self.speed = _split_time(speed, self._derain_time.t / seen)
            if self.args.verbose:
                LOGGER.info("Speed: %.1fms derain (a part of preprocess)", self.speed["derain"])

    def _run_on_derained(self, event: str) -> None:
        """Run callbacks, such as trackers, on the derained frames; then apply `draw_on`."""
        rainy = [result.orig_img for result in self.results]
        if self._needs_derained_frames():
            self._show(self._derained)
        super().run_callbacks(event)
        if self.settings.draw_on == "rainy":
            self._show(rainy)
        self._derained = ()

    def _show(self, frames: Sequence[Frame]) -> None:
        # There are none at network resolution.
        for result, frame in zip(self.results, frames, strict=False):
            result.orig_img = frame

    def _needs_derained_frames(self) -> bool:
        return self.settings.draw_on == "derained" or self.args.mode == "track"

    def _uses_device(self) -> bool:
        chosen = self.settings.on_device
        return bool(self.device.type == "cuda" if chosen is None else chosen)

    def _derain(self, frames: Any, indices: Sequence[int]) -> Any:
        """Derain frames of the current batch, measuring the time."""
        paths = self.batch[0] if self.batch else ["frame"] * (max(indices) + 1)
        # ultralytics fetches batches of some sources in a thread that has gradients on.
        with torch.inference_mode(), self._derain_time:
            return derain(self.settings, frames, [paths[i] for i in indices])

    def _preprocess_tensor(self, batch: Tensor) -> Tensor:
        batch = batch.to(self.device)
        batch = batch if batch.is_floating_point() else batch.float()
        batch = self._derain(batch, range(len(batch)))
        if self.settings.where == "frame" and self._needs_derained_frames():
            self._derained = _to_bgr_frames(quantize(batch))
        return cast(Tensor, super().preprocess(batch))

    def _preprocess_on_device(self, frames: Sequence[Frame]) -> Tensor:
        """Upload the frames once, as uint8; derain, resize and pad them there."""
        order: list[int] = []
        parts: list[Tensor] = []
        shown: dict[int, Frame] = {}
        for indices, placement in self._groups(frames):
            rainy = self._upload([frames[i] for i in indices])
            derained = self._derain(rainy, indices)
            order += indices
            parts.append(letterbox(derained, placement))
            if self._needs_derained_frames():
                shown.update(zip(indices, _to_bgr_frames(derained), strict=True))
        self._derained = [shown[i] for i in sorted(shown)]
        batch = torch.cat(parts)[torch.tensor(order, device=self.device).argsort()]
        return network_input(self, batch)

    def _upload(self, frames: list[Frame]) -> Tensor:
        """Bring BGR frames of one size to the device as (B, 3, H, W), uint8, RGB."""
        return upload(frames, self.device).flip(1)

    def _preprocess_at_network_size(self, frames: Sequence[Frame]) -> Tensor:
        batch = cast(Tensor, super().preprocess(frames))
        for indices, placement in self._groups(frames):
            rows, columns = placement.content
            derained = self._derain(batch[indices][:, :, rows, columns].float(), indices)
            batch[indices, :, rows, columns] = derained.to(batch.dtype)
        return batch

    def _groups(self, frames: Sequence[Frame]) -> list[tuple[list[int], Placement]]:
        """Group a batch by frame size, with each size's place in the detector's input."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for i, frame in enumerate(frames):
            by_size.setdefault((frame.shape[0], frame.shape[1]), []).append(i)
        one_size = len(by_size) == 1
        return [
            (indices, placement_of(self, size, one_size=one_size))
            for size, indices in by_size.items()
        ]


def bind_predictor(base: type, settings: Settings) -> type[Any]:
    """Derive a deraining class from any predictor class of ultralytics.

    Raises:
        RainmerError: `base` is not a predictor class.
    """
    if isinstance(base, type) and issubclass(base, DerainPredictor):
        return base
    if not (isinstance(base, type) and issubclass(base, BasePredictor)):
        raise RainmerError(f"expected a predictor class of ultralytics, but got {base!r}")
    return make_class(f"Derain{base.__name__}", (DerainPredictor, base), settings)


def _letterboxes(predictor: type) -> bool:
    """Return whether the predictor below the hook prepares frames as ultralytics' detectors do."""
    return letterboxes(super(DerainPredictor, predictor))


def _split_time(speed: dict[str, float], derain_s: float) -> dict[str, float]:
    """Subtract the derainer's time, s per image, from `preprocess`, ms per image."""
    derain_ms = derain_s * 1e3
    rest_ms = max(speed["preprocess"] - derain_ms, 0.0)
    return {"derain": derain_ms, **speed, "preprocess": rest_ms}


def _to_bgr_frames(batch: Tensor) -> list[Frame]:
    """Download (B, 3, H, W), uint8, RGB, as frames (H, W, 3) in ultralytics' channel order."""
    return download(batch.flip(1))
