"""Rainmer: a derainer as a preprocessing stage, its networks, data and training."""
__version__ = "0.1.0"
