"""Derainer, letterbox, detector and NMS as one module for exporters.

No shape in it depends on data but inside the NMS, whose results are padded to a fixed number.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from detection.export.gate import RainGate
from detection.export.resize import Resize
from detection.yolo.letterbox import PAD_VALUE, Placement
from rainmer.export.graph import DerainGraph

__all__ = ["FrameBoxes", "Letterbox", "PipelineGraph", "Suppression"]

_MOST_CANDIDATES = 3840
"""Of one frame for the NMS: what TensorRT sorts at most. Ultralytics takes the best 30,000."""
_CLASS_OFFSET = 7680.0
"""Pixels between the classes of one NMS, ultralytics' own: the same roundings."""
_NOWHERE = -30000.0


class Letterbox(nn.Module):
    """`detection.yolo.letterbox.letterbox` with the division by 255.

    Args:
        frame_hw: (height, width) of the frames in pixels.
        placement: Where they lie in the network's input.
    """

    def __init__(self, frame_hw: tuple[int, int], placement: Placement) -> None:
        super().__init__()
        self.resize = Resize(frame_hw, placement.size_hw)
        self.padding = _border(placement)

    def forward(self, frames: Tensor) -> Tensor:
        """Turn uint8 frames (B, 3, H, W) into the input (B, 3, h, w), float32, 0..1."""
        resized: Tensor = self.resize(frames).float()
        if any(self.padding):
            resized = F.pad(resized, self.padding, value=float(PAD_VALUE))
        return resized.div(255.0)


def _border(placement: Placement) -> tuple[int, int, int, int]:
    """Return the padding left, right, above and below, in pixels."""
    (height, width), (rows, columns) = placement.canvas_hw, placement.size_hw
    left, top = placement.left, placement.top
    return left, width - columns - left, top, height - rows - top


class FrameBoxes(nn.Module):
    """Boxes in pixels of the network's input, moved to the frame and clipped to it."""

    offset: Tensor
    gain: Tensor
    most: Tensor

    def __init__(self, frame_hw: tuple[int, int], placement: Placement) -> None:
        super().__init__()
        (height, width), (rows, columns) = frame_hw, placement.size_hw
        offset = torch.tensor([placement.left, placement.top], dtype=torch.float32)
        gain = torch.tensor([columns / width, rows / height], dtype=torch.float32)
        self.register_buffer("offset", offset.repeat(2))
        self.register_buffer("gain", gain.repeat(2))
        self.register_buffer("most", torch.tensor([width, height], dtype=torch.float32).repeat(2))

    def forward(self, boxes_xyxy: Tensor) -> Tensor:
        """Map boxes (B, N, 4)."""
        moved = (boxes_xyxy - self.offset) / self.gain
        return torch.minimum(moved.clamp_min(0.0), self.most)


class Suppression(nn.Module):
    """The NMS of ultralytics' `predict`: the best class of each anchor, class by class.

    Args:
        conf: Lowest score of a detection, 0..1.
        iou: Overlap above which the box with the lower score is dropped.
        count: Detections of a frame that come out.
    """

    def __init__(self, conf: float, iou: float, count: int) -> None:
        super().__init__()
        self.conf, self.iou, self.count = conf, iou, count

    def forward(self, boxes_xyxy: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Choose among boxes (B, A, 4) with scores (B, A, C).

        Returns:
            Boxes (B, N, 4), scores (B, N) and labels (B, N), int64, the best first; zeros follow.
        """
        best, labels = scores.max(2)
        candidates = min(_MOST_CANDIDATES, best.shape[1])
        best, order = best.topk(candidates, dim=1)
        labels = labels.gather(1, order)
        boxes = boxes_xyxy.gather(1, order[..., None].expand(-1, -1, 4))
        is_above = best > self.conf
        moved = boxes + labels[..., None].to(boxes.dtype) * _CLASS_OFFSET
        # All others lie in one place, where the first drops the rest.
        moved = moved.where(is_above[..., None], moved.new_tensor([_NOWHERE] * 2 + [0.0] * 2))
        kept = torch.stack([self._kept(*pair) for pair in zip(moved, best, strict=True)])
        chosen = torch.where(kept & is_above, best, torch.zeros_like(best))
        chosen, order = chosen.topk(min(self.count, candidates), dim=1)
        exists = chosen > 0
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4)) * exists[..., None]
        return boxes, chosen, labels.gather(1, order) * exists

    def _kept(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """Return which of (N, 4) with scores (N,) no better box overlaps, as (N,)."""
        places = torchvision.ops.nms(boxes, scores, self.iou)
        kept = torch.zeros_like(scores).index_fill(0, places, 1.0)
        return kept > 0.5


class PipelineGraph(nn.Module):
    """Frames in, detections out.

    Args:
        derainer: Derains frames (B, 3, H, W); None: they are detected in as they are.
        detector: A network of boxes; see `detection.yolo.export.YoloGraph`.
        frame_hw: (height, width) of the frames in pixels.
        placement: Where they lie in the detector's input; None: they are that input, floats 0..1.
        suppression: The NMS; None: it is left to who runs the graph.
        content: Where the frame lies in a letterboxed input, whose border is not derained; None:
            all of it is.
        gate: Decides which frames are derained; None: all are.
        layout: Order of the frames' axes.

    Attributes:
        outputs: Names of the outputs, in order.
    """

    def __init__(
        self,
        derainer: DerainGraph | None,
        detector: Any,  # noqa: ANN401 (a network of ultralytics)
        *,
        frame_hw: tuple[int, int],
        placement: Placement | None,
        suppression: Suppression | None,
        content: Placement | None = None,
        gate: RainGate | None = None,
        layout: Literal["nchw", "nhwc"] = "nchw",
    ) -> None:
        super().__init__()
        self.derainer, self.detector, self.gate = derainer, detector, gate
        self.suppression, self.layout, self.content = suppression, layout, content
        self.letterbox = self.to_frame = None
        if placement is not None:
            self.letterbox = Letterbox(frame_hw, placement)
            self.to_frame = FrameBoxes(frame_hw, placement)
        self.outputs = _outputs(
            letterboxed=placement is None,
            chosen=suppression is not None or detector.end_to_end,
            gated=gate is not None,
        )

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Detect in frames of the layout: uint8, or, letterboxed already, float32 of 0..1."""
        batch = frames.permute(0, 3, 1, 2) if self.layout == "nhwc" else frames
        derained, *decision = self._derained(batch)
        if self.letterbox is None:
            images = derained.mul(255.0).round().div(255.0)  # as the stage gives levels
        else:
            images = self.letterbox(derained)
        return (*self._detected(images), *decision)

    def _derained(self, batch: Tensor) -> tuple[Tensor, ...]:
        if self.derainer is None:
            return (batch,)
        if self.content is not None:
            rows, columns = self.content.content
            inner = self.derainer(batch[:, :, rows, columns])
            return (F.pad(inner, _border(self.content), value=PAD_VALUE / 255.0),)
        if self.gate is None:
            return (self.derainer(batch),)
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            raise NotImplementedError("a trace knows one side of an If only")
        benefit, needed = self.gate(batch)
        derainer = self.derainer

        def derain(batch: Tensor, needed: Tensor) -> Tensor:
            return torch.where(needed[:, None, None, None], derainer(batch), batch).contiguous()

        def leave(batch: Tensor, needed: Tensor) -> Tensor:
            return batch.clone(memory_format=torch.contiguous_format)

        # An If, so that dry batches do not pay for the network.
        derained = torch.cond(needed.any(), derain, leave, (batch, needed))
        return derained, benefit, needed

    def _detected(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self.detector(images)
        if self.letterbox is None and self.suppression is None:
            return (found,)
        if self.detector.end_to_end:
            boxes, scores, labels = found[..., :4], found[..., 4], found[..., 5].long()
        else:
            rows = found.transpose(1, 2)
            centres, halves = rows[..., :2], rows[..., 2:4] / 2.0
            boxes, scores = torch.cat((centres - halves, centres + halves), 2), rows[..., 4:]
            if self.suppression is None:
                return self._moved(boxes), scores
            boxes, scores, labels = self.suppression(boxes, scores)
        if self.letterbox is None:
            row = torch.cat((boxes, scores[..., None], labels[..., None].to(boxes.dtype)), 2)
            return (row,)
        exists = scores > 0
        boxes = self._moved(boxes) * exists[..., None]
        return exists.sum(1, dtype=torch.int32), boxes, scores, labels.to(torch.int32)

    def _moved(self, boxes: Tensor) -> Tensor:
        assert self.to_frame is not None
        moved: Tensor = self.to_frame(boxes)
        return moved


def _outputs(*, letterboxed: bool, chosen: bool, gated: bool) -> tuple[str, ...]:
    if letterboxed:
        return ("predictions",)
    detected = ("count", "boxes", "scores", "labels") if chosen else ("boxes", "scores")
    return (*detected, *(("benefit", "derained") if gated else ()))
