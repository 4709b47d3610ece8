"""The colours of reports, as readers with other colour vision see them."""

from itertools import combinations

import numpy as np
import pytest

from eval.detect.error_report import _COLORS as KINDS
from eval.report.colors import PALETTE
from eval.report.strips import COLORS as OUTCOMES

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "deutan": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protan": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}
# Ottosson 2020, Oklab.
LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
TOLD_APART = 8.0  # percent of the way from black to white
CARDS = ("#ffffff", "#182129")


def linear(color):
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def distance(one, other, vision):
    seen = [VISION[vision] @ linear(color) for color in (one, other)]
    labs = [LAB @ np.cbrt(LMS @ np.clip(rgb, 0, 1)) for rgb in seen]
    return 100 * float(np.linalg.norm(labs[0] - labs[1]))


def contrast(one, other):
    lights = sorted(float(linear(color) @ [0.2126, 0.7152, 0.0722]) for color in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def closest(colors, vision):
    return min((distance(*pair, vision), pair) for pair in combinations(colors, 2))


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("theme", [0, 1])
def test_inputs_and_six_derainers_are_told_apart(theme, vision):
    names = ["rainy", "clean", *(f"s{i}" for i in range(6))]
    least, pair = closest([PALETTE[name][theme] for name in names], vision)
    assert least > TOLD_APART, pair


@pytest.mark.parametrize("theme", [0, 1])
def test_every_colour_stands_out_from_the_page(theme):
    assert min(contrast(colors[theme], CARDS[theme]) for colors in PALETTE.values()) >= 3


@pytest.mark.parametrize("vision", VISION)
def test_kinds_of_errors_and_outcomes_are_told_apart(vision):
    kinds = list(KINDS.values())
    assert closest(kinds, vision)[0] > TOLD_APART
    assert min(contrast(kind, "#10181f") for kind in kinds) >= 4.5, "numbers stand on them"
    outcomes = {kind: "#{:02x}{:02x}{:02x}".format(*rgb) for kind, rgb in OUTCOMES.items()}
    assert closest(outcomes.values(), vision)[0] > TOLD_APART
    for missed in (outcomes["missed"], KINDS["missed"]):
        assert all(distance(missed, gold, vision) > TOLD_APART for gold in PALETTE["clean"])
