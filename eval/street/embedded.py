"""The embedded set and detector: what a run needs where the user names nothing.

Scenes are drawn and rain is rendered on first use, into the user's cache folder.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import yaml

from eval.street.splits import TEST, SceneId, write_split
from rainmer.files import default_cache_folder, make_folder, write_text

__all__ = ["INPUT_SIZE", "street_set"]

INPUT_SIZE = 640
"""Long side of the embedded detector's input in pixels."""

_log = logging.getLogger(__name__)

_NAME = "rainy-street"
_RAIN = {"day-heavy": "day-*", "night-heavy": "night-*"}
_CONDITIONS = {"day": "day-*", "night": "night-*"}
# Modules of this package that have no part in how scenes look.
_OTHERS = frozenset({"__main__.py", "detector.py", "embedded.py", "train_detector.py"})


def street_set(
    folder: Path | None = None,
    *,
    scenes: tuple[SceneId, ...] = TEST,
    processes: int = 1,
    quiet: bool = False,
) -> Path:
    """Draw the clean half of Rainy Street, or find it from an earlier time.

    Args:
        folder: Where it is kept; None: the user's cache folder, by the version of the scenes.
        scenes: Which scenes.
        processes: How many draw at once. More than one needs a main module that may be imported
            again, as `multiprocessing` explains.
        quiet: Show no progress.

    Returns:
        The set's YAML file, which asks for heavy rain by day and by night.

    Raises:
        OutputError: The folder cannot be written.
    """
    folder = make_folder(folder or default_cache_folder().parent / f"street-{_version()}")
    instances, file = folder / "instances.json", folder / "set.yaml"
    if not instances.is_file():
        _log.info("drawing the %d street scenes of the embedded set, once", len(scenes))
        write_split(folder, scenes, processes=processes, quiet=quiet)
    content = {
        "name": _NAME,
        "clean": "images",
        "annotations": instances.name,
        "rain": {"preset": _RAIN, "seed": 0, "depth": "depth"},
        "conditions": _CONDITIONS,
    }
    if not file.is_file():
        write_text(file, yaml.safe_dump(content, sort_keys=False))
    return file


def _version() -> str:
    """Return a digest of the code that draws: other code, other scenes."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.name not in _OTHERS:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
