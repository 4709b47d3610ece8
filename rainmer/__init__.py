"""Rainmer: an image derainer as a preprocessing stage, with its networks, data and training.

`Derainer` is the stage: frames in, derained frames out. `rainmer.models` holds the networks.
"""

__version__ = "0.1.0"

from rainmer.errors import RainmerError
from rainmer.stage import Derainer

__all__ = ["Derainer", "RainmerError", "__version__"]
