"""Features and raw outputs of a frozen ultralytics detector, with gradients for its input."""

# ultralytics is untyped: its objects and options are Any.
# ruff: noqa: ANN401

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.nn.modules import OBB, Concat, Detect
from ultralytics.utils.loss import v8DetectionLoss

from detection.types import NetworkOutputs
from detection.yolo.adapter import load_yolo
from detection.yolo.harness import file_fingerprint
from rainmer.errors import ConfigError
from rainmer.frames.tiling import pad_to_multiple
from rainmer.train.boxes import CropBoxes

__all__ = ["YoloFeatures"]

_ABSENT = -20.0
"""The logit of an object that is surely not there: it adds nothing to a loss."""


class YoloFeatures:
    """A detector of ultralytics as `detection.types.FrozenNetwork`.

    Images are not letterboxed: crops of a frame are shown as they are, padded by reflection to the
    detector's stride.

    Args:
        weights: A `.pt` file. It is a pickle, which runs code when it is loaded: use files you
            trust.
        device: Where to run.
        layers: Numbers of the layers whose maps are compared, as in the detector's YAML; none: what
            its neck takes from the backbone, and what its head takes from the neck.
        allow_download: Whether ultralytics may fetch missing weights.

    Raises:
        RainmerError: The weights are missing or no detector.
        ConfigError: There is no layer of such a number.
    """

    def __init__(
        self,
        weights: str,
        device: torch.device | str = "cpu",
        layers: Sequence[int] = (),
        *,
        allow_download: bool = False,
    ) -> None:
        yolo = load_yolo(weights, allow_download=allow_download)
        if not isinstance(getattr(yolo.model, "model", None), torch.nn.Sequential):
            raise ConfigError(f"{weights} is an export, which gives no gradients: use its .pt file")
        network = yolo.model.eval().float().requires_grad_(False).to(device)
        self._layers: Any = network.to(memory_format=torch.channels_last).model
        self._head: Any = self._layers[-1]
        self.layers = tuple(layers) or _default_layers(self._layers)
        last = len(self._layers) - 2  # the head gives boxes, not maps
        wrong = [number for number in self.layers if not 0 <= number <= last]
        if wrong:
            raise ConfigError(f"{weights} has layers 0 to {last}, but no layer {wrong[0]}")
        self._stride = int(max(yolo.model.stride))
        self._stride_of_first = int(yolo.model.stride[0])
        self._has_raw = isinstance(self._head, Detect)
        self.classes = tuple(yolo.model.names.values())
        self._criterion: Any = None
        if self._has_raw and not isinstance(self._head, OBB):
            self._criterion = v8DetectionLoss(network)
            self._criterion.hyp = get_cfg()  # the gains of the checkpoint may be missing
        # In training mode a head returns raw outputs; its layers stay in evaluation mode.
        self._head.training = True
        settings = (file_fingerprint(str(yolo.ckpt_path or weights)), self.layers)
        self.fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def __call__(self, images: Tensor, *, raw: bool = False) -> NetworkOutputs:
        """Run on images (B, 3, H, W), RGB, 0..1; see `detection.types.FrozenNetwork`.

        Raises:
            ConfigError: Raw outputs are asked for, but the head has no anchors.
        """
        if raw and not self._has_raw:
            raise ConfigError(
                f"the head {type(self._head).__name__} of this detector has no anchors; use "
                "features alone, with agreement and boxes at 0"
            )
        maps = pad_to_multiple(images, self._stride).contiguous(memory_format=torch.channels_last)
        outputs: list[Tensor] = []
        for layer in self._layers[:-1]:
            maps = layer(_inputs(layer, outputs, maps))
            outputs.append(maps)
        features = [outputs[number] for number in self.layers]
        if not raw:
            return NetworkOutputs(features)
        predictions = self._head(_inputs(self._head, outputs, maps))
        predictions = predictions.get("one2many", predictions)
        names = ("scores", "boxes", "feats")
        return NetworkOutputs(features, *(predictions[name] for name in names))

    def loss(self, outputs: NetworkOutputs, boxes: CropBoxes) -> Tensor:
        """Return ultralytics' loss, with its default gains; see `detection.types.FrozenNetwork`.

        Logits of classes that an image's annotations do not know count for nothing.

        Raises:
            ConfigError: Its boxes are rotated.
        """
        if self._criterion is None:
            raise ConfigError("boxes: this detector's boxes are rotated; leave boxes at 0")
        assert outputs.scores is not None
        assert outputs.boxes is not None
        scores = outputs.scores.float()
        scores = scores.where(boxes.labelled[:, :, None], scores.new_tensor(_ABSENT))
        height, width = (
            int(side * self._stride_of_first) for side in outputs.head_maps[0].shape[2:]
        )
        low, high = boxes.boxes[:, 2:4], boxes.boxes[:, 4:6]
        sides = low.new_tensor([width, height])
        targets = {
            "batch_idx": boxes.boxes[:, 0],
            "cls": boxes.boxes[:, 1],
            "bboxes": torch.cat(((low + high) / 2 / sides, (high - low) / sides), 1),
        }
        predictions = {"scores": scores, "boxes": outputs.boxes.float(), "feats": outputs.head_maps}
        total, _ = self._criterion.loss(predictions, targets)
        return cast(Tensor, total.sum()) / len(scores)


def _inputs(layer: Any, outputs: Sequence[Tensor], previous: Tensor) -> Any:
    """Return what a layer takes: the previous map, another one, or several."""
    if isinstance(layer.f, int):
        return previous if layer.f == -1 else outputs[layer.f]
    return [previous if number == -1 else outputs[number] for number in layer.f]


def _default_layers(layers: Any) -> tuple[int, ...]:
    """Return the layers between backbone and neck, and between neck and head."""
    head = set(layers[-1].f)
    numbers = [n for n, layer in enumerate(layers) if isinstance(layer, torch.nn.Upsample)]
    upsampling = numbers[0] if numbers else len(layers)
    taken = {
        number
        for layer in layers
        if isinstance(layer, Concat)
        for number in layer.f
        # The map right before the upsampling is the end of the backbone, and part of the neck.
        if 0 <= number < upsampling - 1
    }
    return tuple(sorted(taken | head))
