"""Rainmer: an image derainer as a preprocessing stage, with its networks, data and training.

`Derainer` is the stage: frames in, derained frames out. `rainmer.models` holds the networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainmer.errors import RainmerError
from rainmer.lazy import lazy_names
from rainmer.version import __version__

if TYPE_CHECKING:
    from rainmer.stage import Derainer

__all__ = ["Derainer", "RainmerError", "__version__"]

__getattr__ = lazy_names(__name__, {"rainmer.stage": "Derainer"})
