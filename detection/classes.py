"""The classes of COCO, as detectors number them, and names of classes beside a weights file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rainmer.errors import WeightsError

__all__ = ["COCO_80", "COCO_91", "NO_CLASS", "named_classes", "names_beside"]

COCO_80 = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # numbers of COCO's papers without any box

COCO_91: Mapping[int, str] = dict(
    zip((n for n in range(1, 91) if n not in _GAPS), COCO_80, strict=True)
)
"""The classes as COCO's annotation files, torchvision and DETR number them: 1 to 90, with gaps."""

NO_CLASS = frozenset({"N/A", "__background__", "no person"})
"""What networks call an output that stands for no class."""


def named_classes(names: Sequence[str] | Mapping[int, str]) -> dict[int, str]:
    """Return label to name, without the outputs that stand for no class.

    >>> named_classes(["__background__", "car", "N/A"])
    {1: 'car'}
    """
    pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
    return {int(label): str(name) for label, name in pairs if str(name) not in NO_CLASS}


def names_beside(file: Path, count: int) -> dict[int, str] | None:
    """Return the classes that the text file `FILE.names` lists, one a line; None without it.

    Args:
        file: The weights.
        count: How many classes the network tells apart. With one name fewer, class 0 is the
            background.

    Raises:
        WeightsError: The number of names does not fit, or the file is no text.
    """
    listing = Path(f"{file}.names")
    if not listing.is_file():
        return None
    try:
        text = listing.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"cannot read the names of classes in {listing}: {error}") from error
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if count - len(names) not in (0, 1):
        raise WeightsError(
            f"{listing} names {len(names)} classes, but {file} has {count}: one name a line, "
            "the background may be left out"
        )
    return named_classes(dict(enumerate(names, start=count - len(names))))
