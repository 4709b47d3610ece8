"""Views of whole data sets: their images as a Rainmer network's encoder embeds them.

`embed_images` turns images into unit vectors, `project` maps these to the plane, `mean_cosines`
and `measure_separability` measure whether the sets differ. The command is
`python -m rainmer.views`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainmer.lazy import lazy_names

if TYPE_CHECKING:
    from rainmer.views.encode import Embedded, embed_images, views_of
    from rainmer.views.measure import Separability, mean_cosines, measure_separability
    from rainmer.views.options import METHODS, Method
    from rainmer.views.projection import Projection, default_method, project

__all__ = [
    "METHODS",
    "Embedded",
    "Method",
    "Projection",
    "Separability",
    "default_method",
    "embed_images",
    "mean_cosines",
    "measure_separability",
    "project",
    "views_of",
]

__getattr__ = lazy_names(
    __name__,
    {
        "rainmer.views.encode": "Embedded embed_images views_of",
        "rainmer.views.measure": "Separability mean_cosines measure_separability",
        "rainmer.views.options": "METHODS Method",
        "rainmer.views.projection": "Projection default_method project",
    },
)
