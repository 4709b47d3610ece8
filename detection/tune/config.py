"""The configuration of a tuning run: that of a training run, and a section `detector`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rainmer.config import from_mapping
from rainmer.errors import ConfigError
from rainmer.train.config import TrainConfig, read_mapping

__all__ = ["EFFICIENTNET", "DetectorConfig", "read_config"]

EFFICIENTNET = "efficientnet-lite0"
"""What `weights` names instead of a file: a classifier of ImageNet under the Apache licence."""

_SECTION = "detector"


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """The frozen network whose view of restored crops should be that of clean ones.

    Attributes:
        weights: An ultralytics detector (`.pt`), or `efficientnet-lite0`: a classifier whose
            gradients carry no AGPL, from the extra `features`.
        features: Weight of the distance of its features.
        layers: Numbers of the layers that are compared; none: see
            `detection.yolo.features.YoloFeatures`.
        agreement: Weight of the distance of its raw outputs: classes and boxes before NMS.
        boxes: Weight of its own training loss on photos with `annotations`.
    """

    weights: str
    features: float = 0.2
    layers: tuple[int, ...] = ()
    agreement: float = 0.0
    boxes: float = 0.0

    def __post_init__(self) -> None:
        for name in ("features", "agreement", "boxes"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(
                    f"detector: {name} is {getattr(self, name)}, but must be 0 or more"
                )
        if not (self.features or self.agreement or self.boxes):
            raise ConfigError("detector: features, agreement and boxes are 0, so nothing is tuned")
        if (self.agreement or self.boxes) and self.weights == EFFICIENTNET:
            raise ConfigError(
                f"detector: {EFFICIENTNET} detects nothing: agreement and boxes must be 0"
            )


def read_config(path: Path, changes: Sequence[str] = ()) -> tuple[TrainConfig, DetectorConfig]:
    """Read a configuration; see `rainmer.train.config.read_mapping`.

    Raises:
        ConfigError: A file is missing or no YAML, a key or value is wrong, or there is no section
            `detector`.
    """
    mapping = read_mapping(path, changes, "tune")
    section = mapping.pop(_SECTION, None)
    if not isinstance(section, dict):
        raise ConfigError(
            f"{path} has no section `{_SECTION}`: name the detector, as in "
            "configs/tune/rainmer-s.yaml"
        )
    detector = from_mapping(DetectorConfig, section, f"{path}.{_SECTION}")
    return from_mapping(TrainConfig, mapping, str(path)), detector
