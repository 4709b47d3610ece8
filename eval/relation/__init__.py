"""Relating restoration gain to detection gain: the parts of `python -m eval.relation`."""
