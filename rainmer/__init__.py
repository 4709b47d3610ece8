"""Rainmer: an image derainer as a preprocessing stage, with its networks, data and training.

`Derainer` is the stage: frames in, derained frames out. `rainmer.models` holds the networks.
"""

from rainmer.errors import RainmerError
from rainmer.stage import Derainer
from rainmer.version import __version__

__all__ = ["Derainer", "RainmerError", "__version__"]
