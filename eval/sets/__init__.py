"""Rainy detection sets, read from YAML files."""

from eval.sets.config import SetConfig
from eval.sets.loading import load_set
from eval.sets.model import ALL, DetectionSet, Sample

__all__ = ["ALL", "DetectionSet", "Sample", "SetConfig", "load_set"]
