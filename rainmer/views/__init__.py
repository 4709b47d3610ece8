"""Views of whole data sets: what the encoder of a Rainmer network makes of their images.

`find_set` and `draw_images` choose images, `embed_images` turns them into unit vectors, `project`
lays these out in the plane, `mean_cosines` and `measure_separability` say in numbers whether the
sets differ. The command is `python -m rainmer.views`.
"""

from rainmer.views.encode import Embedded, embed_images, views_of
from rainmer.views.measure import Separability, mean_cosines, measure_separability
from rainmer.views.projection import METHODS, Method, Projection, default_method, project
from rainmer.views.sets import ImageSet, draw_images, find_set

__all__ = [
    "METHODS",
    "Embedded",
    "ImageSet",
    "Method",
    "Projection",
    "Separability",
    "default_method",
    "draw_images",
    "embed_images",
    "find_set",
    "mean_cosines",
    "measure_separability",
    "project",
    "views_of",
]
