"""Views of whole data sets: their images as a Rainmer network's encoder embeds them.

`embed_images` turns images into unit vectors, `project` maps these to the plane, `mean_cosines`
and `measure_separability` measure whether the sets differ. The command is
`python -m rainmer.views`.
"""

from rainmer.views.encode import Embedded, embed_images, views_of
from rainmer.views.measure import Separability, mean_cosines, measure_separability
from rainmer.views.projection import METHODS, Method, Projection, default_method, project

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
