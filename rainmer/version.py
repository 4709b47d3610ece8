"""The version of the package; results and caches carry it."""

__version__ = "0.1.0"
