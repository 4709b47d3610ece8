"""Class names: those of COCO detectors, and what other sets call them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from detection.classes import COCO_80

__all__ = ["DAWN_IDS", "aliases_for", "without_counterpart"]

DAWN_IDS = {1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 6: "bus", 8: "truck"}
"""DAWN's YOLO files count as COCO's annotation files do: from 1, with gaps, 91 in all."""

# A rider is a person on something: COCO labels the person as `person` and the bicycle apart, as
# BDD100K and Cityscapes do.
_SYNONYMS = {
    "aeroplane": "airplane",
    "bike": "bicycle",
    "diningtable": "dining table",
    "human": "person",
    "motor": "motorcycle",
    "motorbike": "motorcycle",
    "pedestrian": "person",
    "people": "person",
    "pottedplant": "potted plant",
    "rider": "person",
    "sofa": "couch",
    "trafficlight": "traffic light",
    "tvmonitor": "tv",
}


def aliases_for(names: Iterable[str]) -> dict[str, str]:
    """Return the COCO name of each of the names that COCO calls differently.

    Example:
        >>> aliases_for(["car", "Pedestrian", "traffic sign"])
        {'Pedestrian': 'person'}
    """
    return {name: _SYNONYMS[_plain(name)] for name in names if _plain(name) in _SYNONYMS}


def without_counterpart(names: Iterable[str]) -> list[str]:
    """Return the names that no class of COCO stands for, aliases considered.

    Example:
        >>> without_counterpart(["car", "rider", "traffic sign"])
        ['traffic sign']
    """
    known = {_plain(name) for name in COCO_80} | _SYNONYMS.keys()
    return [name for name in names if _plain(name) not in known]


def _plain(name: str) -> str:
    """Fold what `eval.detect.truth` ignores when it matches classes: case, and the separator."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
