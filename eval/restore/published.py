"""Numbers that others published, to be shown beside measured ones and never mixed with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rainmer.metrics import Convention

__all__ = ["PUBLISHED", "Published", "PublishedScore", "published_for"]


class PublishedScore(NamedTuple):
    """Scores of a set as printed.

    Attributes:
        psnr: In dB.
        ssim: 0..1.
        images: Number of images they are the mean of; None: not told.
        digits: Decimals with which the SSIM was printed.
    """

    psnr: float
    ssim: float
    images: int | None
    digits: int = 4


@dataclass(frozen=True)
class Published:
    """A published row.

    Attributes:
        method: What was published.
        conventions: In whose tables it is shown: those that its numbers are in, or so close to that
            the difference is told in `note`.
        scores: By name of the set's layout.
        note: Where the numbers are from, and what to bear in mind.
    """

    method: str
    conventions: Sequence[Convention]
    scores: Mapping[str, PublishedScore]
    note: str

    def score(self, *names: str) -> PublishedScore | None:
        """Return the scores of a set that is called one of these names, if there are any."""
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
    """Return the published rows of a convention that have scores of at least one set.

    Args:
        convention: Whose table it is.
        sets: The names that each set goes by: its layout's and its label.
    """
    return [
        one
        for one in PUBLISHED
        if convention in one.conventions and any(one.score(*names) for names in sets)
    ]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())
