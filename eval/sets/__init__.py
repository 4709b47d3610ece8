"""Rainy detection sets: what a set is, and reading one from its YAML file."""

from eval.sets.loading import ALL, DetectionSet, Sample, SetConfig, load_set

__all__ = ["ALL", "DetectionSet", "Sample", "SetConfig", "load_set"]
