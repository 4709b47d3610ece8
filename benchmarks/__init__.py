"""Benchmarks of speed and memory, mostly as ratios measured in one process; run by hand."""
