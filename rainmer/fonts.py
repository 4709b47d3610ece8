"""Fonts for any name: the one that matplotlib brings along, else one of the system's.

A class may be called 长颈鹿. DejaVu Sans, which is on every machine, has Latin, Greek, Cyrillic,
Arabic and Hebrew. For other scripts the fonts of the system are searched, once. matplotlib and
Pillow are imported by the functions that need them.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rainmer.console import printable

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

__all__ = ["drawable", "escaped", "families_for", "font_for", "render"]

_logger = logging.getLogger(__name__)

_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
_NO_TEXT_FONT = re.compile(r"last.?resort|blank|emoji", re.IGNORECASE)
_STYLED = re.compile(r"bold|black|heavy|thin|light|italic|oblique|mono|serif|cond", re.IGNORECASE)

# Shares of the font's size.
_LINE_HEIGHT = 1.25
_BASELINE = 0.97


def drawable(name: str, otherwise: str) -> str:
    """Return a name as it can be drawn on a picture, on one line.

    Args:
        name: Any text.
        otherwise: What stands for a name that is empty, or that no font of this machine has.
    """
    text = _on_one_line(name)
    if text and font_for(text, 12) is None:
        _note_once(name, otherwise)
        return otherwise
    return text or otherwise


def escaped(text: str) -> str:
    r"""Return a text with escapes, such as `\u96e8`, for the characters that no font has."""
    return "".join(
        character if _path_for(character) else ascii(character)[1:-1] for character in text
    )


@lru_cache(maxsize=1024)
def font_for(text: str, size: int) -> FreeTypeFont | None:
    """Return a font that has all characters of a text; None where there is none.

    Args:
        text: A line of text.
        size: Height of the font in pixels.
    """
    path = _path_for(text)
    return None if path is None else _open(path, size)


def families_for(text: str) -> list[str]:
    """Return families for matplotlib that have the characters of a text, as far as any has them."""
    from matplotlib.font_manager import FontProperties, fontManager

    families = ["DejaVu Sans"]
    for character in dict.fromkeys(text):
        path = _path_for(character)
        if path not in (None, _bundled()):
            known = {Path(entry.fname) for entry in fontManager.ttflist}
            if path not in known:
                fontManager.addfont(path)
            families.append(FontProperties(fname=path).get_name())
    return list(dict.fromkeys(families))


@lru_cache(maxsize=4096)
def render(text: str, size: int) -> NDArray[np.uint8]:
    """Return a line of text as a mask: 255 where it is drawn, 0 beside it.

    Args:
        text: What `drawable` returned.
        size: Height of the font in pixels.

    Returns:
        (line height, width of the text). Masks of one size fit side by side.
    """
    from PIL import Image, ImageDraw

    font = font_for(text, size) or _open(_bundled(), size)
    mask = Image.new("L", (max(1, round(font.getlength(text))), round(_LINE_HEIGHT * size)))
    ImageDraw.Draw(mask).text((0, round(_BASELINE * size)), text, 255, font, anchor="ls")
    array = np.asarray(mask)
    array.flags.writeable = False
    return array


def _on_one_line(text: str) -> str:
    """Compose marks with their letters, and leave out what has no shape, such as control codes."""
    seen = (
        character
        for character in unicodedata.normalize("NFC", " ".join(text.split()))
        if character in _JOINERS or unicodedata.category(character) not in ("Cc", "Cf")
    )
    return "".join(seen).strip()


@cache
def _note_once(name: str, otherwise: str) -> None:
    if _note_once.cache_info().currsize == 0:
        _logger.warning(
            "no font here has the characters of %s: pictures show %s for it, and so for other such "
            "names; a font such as Noto Sans CJK helps",
            printable(name),
            otherwise,
        )


@cache
def _bundled() -> Path:
    import matplotlib as mpl

    return Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@lru_cache(maxsize=64)
def _open(path: Path, size: int) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(path, size)


@lru_cache(maxsize=4096)
def _path_for(text: str) -> Path | None:
    """Return the first font that has a text: the bundled one, else one of the system's."""
    needed = np.unique([ord(c) for c in text if _has_shape(c)]).astype(np.uint32)
    if _runs_to_the_left(text) and not _can_shape():
        return None
    if _has_all(_characters(_bundled()), needed):
        return _bundled()
    return next((path for path, there in _system_fonts().items() if _has_all(there, needed)), None)


def _has_shape(character: str) -> bool:
    is_variation = "\N{VARIATION SELECTOR-1}" <= character <= "\N{VARIATION SELECTOR-16}"
    return not (character in " \n" or character in _JOINERS or is_variation)


def _runs_to_the_left(text: str) -> bool:
    return any(unicodedata.bidirectional(character) in ("R", "AL") for character in text)


@cache
def _can_shape() -> bool:
    """Whether Pillow can join Arabic letters, and write from right to left."""
    from PIL import features

    return bool(features.check("raqm"))


def _has_all(there: NDArray[np.uint32], needed: NDArray[np.uint32]) -> bool:
    if not len(there):
        return not len(needed)
    places = np.minimum(np.searchsorted(there, needed), len(there) - 1)
    return bool((there[places] == needed).all())


@cache
def _system_fonts() -> dict[Path, NDArray[np.uint32]]:
    """Return the characters of every font for text, upright and sans-serif ones first."""
    from matplotlib.font_manager import findSystemFonts

    paths = sorted(map(Path, findSystemFonts()), key=lambda p: (bool(_STYLED.search(p.stem)), p))
    return {path: _characters(path) for path in paths if not _NO_TEXT_FONT.search(path.stem)}


@cache
def _characters(path: Path) -> NDArray[np.uint32]:
    """Return the code points that a font has, sorted; none if it is damaged or made of pixels."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(str(path))
        codes = np.sort(np.fromiter(font.get_charmap(), np.uint32)) if font.scalable else ()
    except (OSError, RuntimeError):
        codes = ()
    return np.asarray(codes, np.uint32)
