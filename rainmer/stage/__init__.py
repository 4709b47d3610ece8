"""The preprocessing stage: frames of any kind and size in, the same frames without rain out."""

from rainmer.stage.derainer import Derainer, Precision, TileBy

__all__ = ["Derainer", "Precision", "TileBy"]
