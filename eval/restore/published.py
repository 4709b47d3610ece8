"""Published scores, shown next to measured ones and never mixed with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rainmer.metrics import Convention

__all__ = ["PUBLISHED", "Published", "PublishedScore", "published_for"]


class PublishedScore(NamedTuple):
    """Scores on a set as printed.

    Attributes:
        psnr: In dB.
        ssim: 0..1.
        images: Number of averaged images; None: unknown.
        digits: Printed decimals of the SSIM.
    """

    psnr: float
    ssim: float
    images: int | None
    digits: int = 4


@dataclass(frozen=True)
class Published:
    """A published row.

    Attributes:
        method: Name of the method.
        conventions: Conventions whose tables show the row: that of its scores, and any so close
            that `note` can state the difference.
        scores: Scores by name of the set's layout.
        note: Source of the scores, and how they compare with measured ones.
    """

    method: str
    conventions: Sequence[Convention]
    scores: Mapping[str, PublishedScore]
    note: str

    def score(self, *names: str) -> PublishedScore | None:
        """Return the scores on the set known by any of these names; None without any."""
        plain = {_plain(name): score for name, score in self.scores.items()}
        return next((plain[_plain(name)] for name in names if _plain(name) in plain), None)


PUBLISHED: tuple[Published, ...] = (
    Published(
        method="Rainmer",
        conventions=("official",),
        scores={
            "rain100L": PublishedScore(36.42, 0.9669, 100),
            "rain100H": PublishedScore(29.38, 0.8775, 100),
            "test100": PublishedScore(29.86, 0.9171, 98),
            "test1200": PublishedScore(31.98, 0.9377, 1200),
            "test2800": PublishedScore(33.22, 0.9543, 2800),
            "gtrain": PublishedScore(23.17, 0.6594, None),
            "gtavcrop": PublishedScore(35.42, 0.9631, None),
        },
        note="ACM MM 2024, one model trained on the main mix; scored by the paper's code on "
        "images that were not rounded to 8 bits (--protocol paper)",
    ),
    Published(
        method="PReNet",
        conventions=("matlab", "matlab_double"),
        scores={"rain100H": PublishedScore(29.46, 0.899, 100, digits=3)},
        note="CVPR 2019, weights of Rain100H; scored by its MATLAB script, whose luma is not "
        "rounded (matlab_double): matlab is lower by about 0.001 in SSIM and differs by up to "
        "0.02 dB",
    ),
)


def published_for(convention: Convention, sets: Sequence[Sequence[str]]) -> list[Published]:
    """Return the published rows of a convention that have scores on at least one set.

    Args:
        convention: Convention of the table.
        sets: The names of each set: its layout and its label.
    """
    return [
        published
        for published in PUBLISHED
        if convention in published.conventions and any(published.score(*names) for names in sets)
    ]


def _plain(name: str) -> str:
    """Drop case, spaces and punctuation, so that `Rain100-H` equals `rain100h`."""
    return re.sub(r"[\W_]", "", name.casefold())
