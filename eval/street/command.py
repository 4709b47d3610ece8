"""Drawing of training scenes."""

from __future__ import annotations

from eval.street.options import StreetOptions
from eval.street.splits import train_scenes, write_split
from eval.street.yolo_labels import write_yolo_set

__all__ = ["run"]


def run(options: StreetOptions) -> None:
    """Run the command. Raises RainmerError for invalid input."""
    scenes = train_scenes(options.scenes, options.first)
    parts = {}
    for name, night in (("day", False), ("night", True)):
        parts[name] = [scene for scene in scenes if scene.night == night]
        write_split(
            options.out / name, parts[name], processes=options.processes, quiet=options.quiet
        )
    write_yolo_set(options.out, [name for name, drawn in parts.items() if drawn])
