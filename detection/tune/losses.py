"""How far a frozen network sees a restored image from the clean one."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor

from detection.tune.config import DetectorConfig
from detection.types import FrozenNetwork, NetworkOutputs
from rainmer.train.boxes import CropBoxes

__all__ = ["DetectorLoss", "disagreement", "feature_distance"]

_EPSILON = 1e-3


class DetectorLoss:
    """The extra loss of a tuning run; see `rainmer.train.losses.ExtraLoss`.

    Args:
        network: The frozen network, on the run's device.
        config: Weights of the terms.
    """

    def __init__(self, network: FrozenNetwork, config: DetectorConfig) -> None:
        self._network = network
        self._config = config
        weights = [config.features, config.agreement, *([config.boxes] if config.boxes else [])]
        parts = (network.fingerprint, *weights)
        self.fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        self.classes = network.classes if config.boxes else ()

    def __call__(
        self, restored: Tensor, clean: Tensor, boxes: CropBoxes | None = None
    ) -> dict[str, Tensor]:
        """Return the weighted terms `feature`, `agreement` and `boxes`: those with a weight.

        `boxes` is 0 for crops of photos without annotations, and only classes that these know
        count: the detector may well see others.
        """
        features, agreement = self._config.features, self._config.agreement
        outputs = self._network(restored, raw=bool(agreement or self.classes))
        terms = {}
        if features or agreement:  # objects are compared with boxes, not with the clean crop
            with torch.no_grad():
                target = self._network(clean, raw=bool(agreement))
            if features:
                terms["feature"] = features * feature_distance(outputs, target)
            if agreement:
                terms["agreement"] = agreement * disagreement(outputs, target)
        if self.classes:
            loss = restored.new_zeros(()) if boxes is None else self._network.loss(outputs, boxes)
            terms["boxes"] = self._config.boxes * loss
        return terms


def feature_distance(outputs: NetworkOutputs, target: NetworkOutputs) -> Tensor:
    """Return the relative L1 distance of features: |f - t| / |t|, mean over images and layers.

    Relative, because the maps of different layers have different scales.
    """
    distances = []
    for map_, target_map in zip(outputs.features, target.features, strict=True):
        difference = (map_ - target_map).abs().mean((1, 2, 3)).float()
        scale = target_map.abs().mean((1, 2, 3)).float()
        distances.append((difference / (scale + _EPSILON)).mean())
    return torch.stack(distances).mean()


def disagreement(outputs: NetworkOutputs, target: NetworkOutputs) -> Tensor:
    """Return how far raw outputs are from those on the clean image.

    Sum over anchors and classes of the difference of probabilities, and over anchors of the
    difference of box distributions where the clean image has an object, both divided by the sum of
    the clean image's probabilities.
    """
    assert outputs.scores is not None
    assert outputs.boxes is not None
    assert target.scores is not None
    assert target.boxes is not None
    probability = target.scores.float().sigmoid()
    change = (outputs.scores.float().sigmoid() - probability).abs().sum((1, 2))
    confidence = probability.amax(1)
    sides = (outputs.boxes.float() - target.boxes.float()).abs().mean(1)
    total = probability.sum((1, 2)) + 1.0
    return ((change + (sides * confidence).sum(1)) / total).mean()
