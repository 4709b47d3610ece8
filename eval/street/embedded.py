"""The embedded set for runs without a data set, drawn on first use into the user's cache folder."""

from __future__ import annotations

import logging
from pathlib import Path

import yaml

from eval.street.scene import SCENES_VERSION
from eval.street.splits import TEST, SceneId, write_split
from rainmer.files import default_cache_folder, make_folder, write_text

__all__ = ["INPUT_SIZE", "street_set"]

INPUT_SIZE = 640
"""Long side of the embedded detector's input in pixels."""

_log = logging.getLogger(__name__)

_NAME = "rainy-street"
_RAIN = {"day-heavy": "day-*", "night-heavy": "night-*"}
_CONDITIONS = {"day": "day-*", "night": "night-*"}


def street_set(
    folder: Path | None = None,
    *,
    scenes: tuple[SceneId, ...] = TEST,
    processes: int = 1,
    quiet: bool = False,
) -> Path:
    """Draw the clean images of Rainy Street, unless an earlier run did.

    Args:
        folder: Folder of the images; None: a versioned folder in the user's cache folder.
        scenes: The scenes to draw.
        processes: Number of processes. More than one needs a main module that is safe to import,
            as the documentation of `multiprocessing` explains.
        quiet: Show no progress.

    Returns:
        The set's YAML file, which asks for heavy rain by day and by night.

    Raises:
        OutputError: The folder cannot be written.
    """
    folder = make_folder(folder or default_cache_folder().parent / f"street-{SCENES_VERSION}")
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
