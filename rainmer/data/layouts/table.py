"""The table of layouts: folders and names of the sets that derainers are trained and tested on.

The folders are those of Rainmer's released loaders, so that one tree of data serves both. Counts
are the published ones, before what training skips.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from rainmer.config import nearest
from rainmer.data.layouts.rules import (
    FirstInScene,
    NoReference,
    Numbered,
    OneOf,
    Prefixed,
    Rule,
    SameName,
    SameStem,
    TextBefore,
    WithoutToken,
)
from rainmer.errors import ConfigError

__all__ = ["CLEAN_FOLDERS", "LAYOUTS", "RAINY_FOLDERS", "Layout", "Mode", "find_layout"]

Mode = Literal["train", "test"]

RAINY_FOLDERS = ("rainy", "input", "rain")
CLEAN_FOLDERS = ("clean", "gt", "target", "norain")
"""Names of the two folders of a set of pairs in order of preference; case does not matter."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the files of a set are, below its root.

    Attributes:
        name: Name on the command line.
        mode: "train" or "test"; None: both.
        rainy: Glob of the rainy images below the root (see `Tree.match`), a template if numbered.
        clean: Rule for their clean partners.
        pairs: Published number of rainy images; None: not published.
        clean_images: Published number of distinct clean images; None: not published.
        skip: Rainy images with this text in their name are left out.
        aliases: Other names, which need not be unique if the mode differs.
    """

    name: str
    mode: Mode | None
    rainy: str
    clean: Rule
    pairs: int | None = None
    clean_images: int | None = None
    skip: str | None = None
    aliases: tuple[str, ...] = ()

    def describe_rainy(self) -> str:
        """Return where the rainy images are, in words."""
        rule = self.clean
        numbers = f" ({rule.numbers()})" if isinstance(rule, Numbered) else ""
        return self.rainy + numbers

    def __str__(self) -> str:
        return f"{self.name} ({self.mode})" if self.mode else self.name


_TRAINING = (
    Layout(
        name="synrain",
        mode="train",
        rainy="MultiRain/train/rain/*.jpg",
        clean=SameName("MultiRain/train/norain/*.jpg"),
        pairs=13_711,
        clean_images=13_711,
        aliases=("rain13k", "multirain"),
    ),
    Layout(
        name="gt-rain",
        mode="train",
        rainy="GT-Rain/GT-RAIN_train/*/*R-*.png",
        clean=FirstInScene("GT-Rain/GT-RAIN_train/*/*C-000*.png"),
        pairs=26_124,
        clean_images=89,
    ),
    Layout(
        name="gtav-balance",
        mode="train",
        rainy="GTAV-balance/train/rainy/*.png",
        clean=WithoutToken("GTAV-balance/train/gt/*.png"),
        pairs=12_321,
        clean_images=3_201,
        # The released training code leaves this sequence out.
        skip="0011_00_set2",
        aliases=("gtav", "gtav-nightrain-balance"),
    ),
    Layout(
        name="gtav-nightrain-crops",
        mode="train",
        rainy="GTAV-NightRain/crops/train/rainy/*.png",
        clean=WithoutToken("GTAV-NightRain/crops/train/gt/*.png"),
        pairs=60_000,
        aliases=("gtav-nightrain", "gtav-crops"),
    ),
    Layout(
        name="outdoorrain",
        mode="train",
        rainy="AllinOne/rain/train/input/*.png",
        clean=SameName("AllinOne/rain/train/target/*.png"),
        aliases=("outdoor", "allinone-rain"),
    ),
    Layout(
        name="raindrop",
        mode="train",
        rainy="AllinOne/raindrop/train/input/*.png",
        clean=SameName("AllinOne/raindrop/train/target/*.png"),
        aliases=("allinone-raindrop",),
    ),
    Layout(
        name="snow",
        mode="train",
        rainy="AllinOne/snow/train/input/*.jpg",
        clean=SameName("AllinOne/snow/train/target/*.jpg"),
        aliases=("snow100k", "allinone-snow"),
    ),
)

_TESTS = (
    Layout(
        name="test100",
        mode="test",
        rainy="MultiRain/test/Test100/input/{i}.png",
        clean=Numbered("MultiRain/test/Test100/target/{i}.png", i=range(1, 99)),
        pairs=98,
        aliases=("rain800-test",),
    ),
    Layout(
        name="rain100L",
        mode="test",
        rainy="MultiRain/test/Rain100L/input/{i}.png",
        clean=Numbered("MultiRain/test/Rain100L/target/{i}.png", i=range(1, 101)),
        pairs=100,
    ),
    Layout(
        name="rain100H",
        mode="test",
        rainy="MultiRain/test/Rain100H/input/{i}.png",
        clean=Numbered("MultiRain/test/Rain100H/target/{i}.png", i=range(1, 101)),
        pairs=100,
    ),
    Layout(
        name="rain200H",
        mode="test",
        rainy="Rain200H/test/rain/X2/norain-{i}x2.png",
        clean=Numbered("Rain200H/test/norain/norain-{i}.png", i=range(1, 201)),
        pairs=200,
    ),
    Layout(
        name="test1200",
        mode="test",
        rainy="MultiRain/test/Test1200/input/{i}.png",
        clean=Numbered("MultiRain/test/Test1200/target/{i}.png", i=range(1, 1201)),
        pairs=1_200,
        aliases=("rain1200", "did"),
    ),
    Layout(
        name="test2800",
        mode="test",
        rainy="MultiRain/test/Test2800/input/{i}_{j}.jpg",
        clean=Numbered(
            "MultiRain/test/Test2800/target/{i}_{j}.jpg",
            i=range(801, 1001),
            j=range(1, 15),
            scene="{i}",
        ),
        pairs=2_800,
        aliases=("ddn",),
    ),
    Layout(
        name="gtrain",
        mode="test",
        rainy="GT-Rain/GT-RAIN_test/*/*R-*.png",
        clean=FirstInScene("GT-Rain/GT-RAIN_test/*/*C-000*.png"),
    ),
    Layout(
        name="gtavcrop",
        mode="test",
        rainy="GTAV-balance/test/rainy/*.png",
        clean=WithoutToken("GTAV-balance/test/gt/*.png"),
        aliases=("gtav", "gtav-balance"),
    ),
    Layout(
        name="gtavset3",
        mode="test",
        rainy="gtavset3/test/rainy/{i:04d}_{j:02d}.png",
        clean=Numbered(
            "gtavset3/test/gt/{i:04d}.png", i="gtavset3/test/gt/*", j=range(10), scene="{i:04d}"
        ),
    ),
    Layout(
        name="realint",
        mode="test",
        rainy="Real_Internet/*.png",
        clean=NoReference(),
        aliases=("real-internet", "internet"),
    ),
    Layout(
        name="real_ours",
        mode="test",
        rainy="real-world/ours/{i:03d}.jpg",
        clean=Numbered(None, i=range(1, 1083)),
        pairs=1_082,
        aliases=("ours",),
    ),
    Layout(
        name="outdoorrain",
        mode="test",
        rainy="AllinOne/rain/test/rain/*",
        clean=TextBefore("AllinOne/rain/test/gt/*.png", mark="_s"),
        aliases=("outdoor", "allinone-rain"),
    ),
    Layout(
        name="raindrop",
        mode="test",
        rainy="AllinOne/raindrop/test/data/{i}_rain.png",
        clean=Numbered("AllinOne/raindrop/test/gt/{i}_clean.png", i=range(58)),
        pairs=58,
        aliases=("allinone-raindrop",),
    ),
    Layout(
        name="snow100k-L",
        mode="test",
        rainy="AllinOne/snow/test/snowy/*",
        clean=SameName("AllinOne/snow/test/gt/*"),
        aliases=("snow", "snow100k", "allinone-snow"),
    ),
    Layout(
        name="rain100-zip",
        mode="test",
        rainy="rainy/rain-*.png",
        clean=Prefixed("norain-*.png", prefix="no"),
        pairs=100,
        aliases=("rain100L-zip", "rain100H-zip"),
    ),
)

_FOLDERS = tuple(
    Layout(name=f"{rainy}-{clean}", mode=None, rainy=f"{rainy}/**", clean=SameStem(f"{clean}/**"))
    for rainy, clean in (
        ("input", "target"),
        ("rain", "norain"),
        ("rainy", "clean"),
        ("rainy", "gt"),
        ("lq", "gt"),
    )
)

LAYOUTS: tuple[Layout, ...] = (
    *_TRAINING,
    *_TESTS,
    *_FOLDERS,
    Layout(
        name="folders",
        mode=None,
        rainy="two folders",
        clean=OneOf(tuple(layout.name for layout in _FOLDERS)),
        aliases=("pairs", "paired", "plain"),
    ),
)


def find_layout(name: str, mode: Mode | None = None) -> Layout:
    """Return the layout of a name or alias. Case, hyphens and underscores do not count.

    Args:
        name: The name, such as "synrain" or "Rain-100L".
        mode: Chooses between several; None: there must be only one, or one of exactly this name.

    Raises:
        ConfigError: There is no such layout, not in this mode, or several.
    """
    fitting = [layout for layout in LAYOUTS if None in (mode, layout.mode) or layout.mode == mode]
    exact = [layout for layout in fitting if layout.name.casefold() == name.strip().casefold()]
    candidates = exact or [layout for layout in fitting if _is_called(layout, name)]
    if len(candidates) > 1:
        choices = " or ".join(map(str, candidates))
        raise ConfigError(f"{name!r} may be {choices}: say the mode, or the exact name")
    if not candidates:
        others = [layout for layout in LAYOUTS if _is_called(layout, name)]
        if others:
            raise ConfigError(f"{name!r} is not for {mode}: there is {others[0]}")
        names = {layout.name for layout in LAYOUTS}
        raise ConfigError(f"no layout {name!r}; {nearest(name, names)}")
    return candidates[0]


def _is_called(layout: Layout, name: str) -> bool:
    return _plain(name) in map(_plain, (layout.name, *layout.aliases))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())
