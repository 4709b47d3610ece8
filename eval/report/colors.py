"""The colours of reports: each input and each derainer has one everywhere on a page.

They are chosen so that rainy, clean and the first six derainers differ for readers with deutan and
protan colour vision too, and stand out from a light and a dark page; see
`tests/eval/report/test_colors.py`. Figures are drawn in the colours of the light page; on a page,
variables of CSS take their place.
"""

from __future__ import annotations

from collections.abc import Iterable

from rainmer.figures import COLORS, INK

__all__ = ["PALETTE", "color_in", "on_page", "series_of"]

_DARK = (
    "#5068ea",
    "#74ea9c",
    "#cc6f35",
    "#b0628a",
    "#7fb6da",
    "#a08cf7",
    "#c3c46a",
    "#b98d7c",
)  # fmt: skip
PALETTE: dict[str, tuple[str, str]] = {
    "rainy": ("#5b6678", "#d2dfec"),
    "clean": ("#8f6a14", "#e2b03f"),
    "loss": ("#b2451f", "#e5825a"),
    **{f"s{i}": pair for i, pair in enumerate(zip(COLORS, _DARK, strict=True))},
}
"""Each colour on a light and on a dark page; `s0` is that of the first derainer, and so on."""


def series_of(names: Iterable[str]) -> dict[str, str]:
    """Return the name of each derainer's colour in `PALETTE`; with very many they repeat.

    >>> series_of(["rainmer-s", "median"])
    {'rainmer-s': 's0', 'median': 's1'}
    """
    return {name: f"s{i % len(COLORS)}" for i, name in enumerate(dict.fromkeys(names))}


def color_in(series: str) -> str:
    """Return a colour of `PALETTE` as figures are drawn in it."""
    return PALETTE[series][0]


def on_page(text: str) -> str:
    """Replace the colours of a figure by those of the page around it.

    >>> on_page("fill: #5b6678; stroke: #16212c")
    'fill: var(--rainy); stroke: currentColor'
    """
    for name, (light, _) in PALETTE.items():
        text = text.replace(light, f"var(--{name})")
    return text.replace(INK, "currentColor")
