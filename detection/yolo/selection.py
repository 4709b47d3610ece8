"""From a detection head's output to `Detections`, for a whole batch at once.

The rules, and the bits, are those of ultralytics' `predict`. It goes from image to image, though,
and waits for the device three times in each, and three times more for the result. Here everything
whose shape is known beforehand is done for all images together, so that a CUDA graph can hold it.
What depends on the picture then waits twice for the batch, once in the NMS of each image (which
torchvision does not offer for several with the same bits), and once for the result.
"""

# ultralytics is untyped: its objects and options are Any.
# ruff: noqa: ANN401

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.nn.modules.head import Detect, v10Detect
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import ops

from detection.types import Detections
from detection.yolo.letterbox import Placement

__all__ = ["Candidates", "Selection", "allowed_labels", "detections_of", "plain_head"]

_CLASS_SHIFT = 7680  # pixels by which ultralytics keeps the boxes of classes apart
_MOST_BOXES = 30_000  # that go into its NMS


class Candidates(NamedTuple):
    """What a network says of all its places, of which N are in an image.

    Attributes:
        rows: (B, N, 6), float32: xyxy in pixels of the frame, score, label.
        shifted: (B, N, 4), float32: the boxes as NMS compares them; rows without NMS.
        chosen: (B, N): whether score and class are wanted.
    """

    rows: Tensor
    shifted: Tensor
    chosen: Tensor


@dataclass(frozen=True)
class Selection:
    """Which boxes of a batch are detections, by the options of an ultralytics predictor.

    Attributes:
        frame_hw: (height, width) of the frames.
        placement: Where they lie in the network's input.
        conf: Lowest score.
        agnostic: Whether boxes of different classes suppress each other.
        end2end: Whether the network has chosen boxes itself, and no NMS follows.
    """

    frame_hw: tuple[int, int]
    placement: Placement
    conf: float
    agnostic: bool
    end2end: bool

    def candidates(self, outputs: Tensor, allowed: Tensor | None = None) -> Candidates:
        """Prepare the choice; the same operations for all outputs of one shape.

        Args:
            outputs: Of the network: (B, 4 + classes, N), or (B, N, 6) if it is `end2end`.
            allowed: (classes,), bool: which labels to keep; None: all.
        """
        if self.end2end:
            scores, labels = outputs[..., 4], outputs[..., 5]
            rows = shifted = outputs.float()
        else:
            scores, labels = outputs[:, 4:].max(1)
            boxes = ops.xywh2xyxy(outputs[:, :4].transpose(1, 2))
            # Half precision ends here, as in ultralytics: labels are float32.
            rows = torch.cat([boxes, scores[..., None], labels[..., None].float()], 2)
            shifted = rows[..., :4] + rows[..., 5:6] * (0 if self.agnostic else _CLASS_SHIFT)
        chosen = scores > self.conf
        if allowed is not None:
            chosen = chosen & allowed[labels.long()]
        boxes = ops.scale_boxes(self.placement.canvas_hw, rows[..., :4].clone(), self.frame_hw)
        return Candidates(torch.cat([boxes, rows[..., 4:6]], 2), shifted, chosen)

    def choose(self, given: Candidates, iou: float, max_det: int) -> list[Detections]:
        """Choose among the candidates of each image, and bring the detections to the host.

        Args:
            given: From `candidates`.
            iou: Overlap above which the box with the lower score is dropped.
            max_det: Maximum number of detections per image.
        """
        counts = given.chosen.sum(1).tolist()
        index = given.chosen.flatten().nonzero()[:, 0]
        rows = given.rows.flatten(0, 1)[index]
        if self.end2end:
            every = torch.arange(len(rows), device=rows.device)
            kept = [part[:max_det] for part in torch.split(every, counts)]
        else:
            shifted = given.shifted.flatten(0, 1)[index]
            kept, start = [], 0
            scores = torch.split(rows[:, 4], counts)
            for boxes, of_boxes in zip(torch.split(shifted, counts), scores, strict=True):
                kept.append(_suppressed(boxes, of_boxes, iou)[:max_det] + start)
                start += len(boxes)
        table = rows[torch.cat(kept)].cpu()
        return _split(table, [len(part) for part in kept])


def _suppressed(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Return the indices of the boxes that NMS keeps, best first."""
    from torchvision.ops import nms  # slow to import, and not needed by end-to-end networks

    if len(boxes) <= 1:
        return torch.arange(len(boxes), device=boxes.device)
    if len(boxes) > _MOST_BOXES:
        best = scores.argsort(descending=True)[:_MOST_BOXES]
        return best[_suppressed(boxes[best], scores[best], iou)]
    kept: Tensor = nms(boxes, scores, iou)
    return kept


def detections_of(results: Sequence[Any]) -> list[Detections]:
    """Return the boxes of ultralytics' results, one for each frame, in one download."""
    found = [result.boxes if result.boxes is not None else result.obb for result in results]
    tables = [
        torch.cat([boxes.xyxy.float(), boxes.conf.float()[:, None], boxes.cls.float()[:, None]], 1)
        for boxes in found
    ]
    return _split(torch.cat(tables).cpu(), [len(table) for table in tables])


def _split(table: Tensor, counts: Sequence[int]) -> list[Detections]:
    """Return `Detections` of rows (M, 6) on the host: xyxy, score, label."""
    rows = table.numpy()
    ends = np.cumsum(counts)
    return [
        Detections(part[:, :4], part[:, 4], part[:, 5].astype(np.int64))
        for part in np.split(rows, ends[:-1])
    ]


def plain_head(predictor: Any) -> Detect | None:
    """Return the head of a predictor's network, if `Selection` does all that follows it.

    None for exported files, other tasks and networks with rules of their own, for maps of
    activations, and where somebody looks at what enters the head (ultralytics' trackers).
    """
    backend = predictor.model
    if backend.format != "pt" or type(backend.model) is not DetectionModel:
        return None
    head = backend.model.model[-1]
    stock = DetectionPredictor
    args = predictor.args
    is_plain = (
        type(head) in (Detect, v10Detect)
        and not (head.dynamic or head.export or head._forward_pre_hooks)
        and type(predictor).postprocess is stock.postprocess
        and type(predictor).construct_result is stock.construct_result
        and type(predictor).construct_results is stock.construct_results
        and type(predictor).inference is stock.inference
        and not (args.visualize or args.augment or args.embed or args.compile)
        and predictor.device.type in ("cpu", "cuda")
    )
    return head if is_plain else None


@functools.lru_cache(maxsize=64)
def allowed_labels(classes: tuple[int, ...], count: int, device: torch.device) -> Tensor:
    """Return (count,), bool: which labels are among the classes."""
    wanted = set(classes)
    return torch.tensor([label in wanted for label in range(count)], device=device)
