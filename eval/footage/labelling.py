"""Frames to label next: images, proposals as YOLO labels and COCO JSON, and a set around them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from detection.types import Detections
from eval.footage.records import FrameResult
from eval.report.files import write_table
from rainmer.files import make_folder, safe_file_name, write_text
from rainmer.folders import list_files
from rainmer.frames.arrays import Frame
from rainmer.frames.images import write_image

__all__ = ["LabelFolder"]

_log = logging.getLogger(__name__)

_REMARK = """\
# Frames to label, written by `python -m eval.footage --label-next`. The boxes in labels/ are
# proposals of a detector: correct them before you measure anything. Then:
#   python -m eval.detect --data set.yaml --derain
"""


class LabelFolder:
    """A folder of frames to label.

    `images/` holds the rainy frames, without loss; `labels/` the proposals in YOLO's form;
    `instances.json` the same in COCO's, with scores; `set.yaml` is a detection set of `eval.sets`
    over images and YOLO labels, so that corrected labels count; `frames.csv` says where each image
    comes from. A label file that says something else already, because somebody has corrected it,
    stays as it is, and so do frames of an earlier run that are not chosen again.

    Args:
        folder: Where to write.
        name: Name of the set.
        names: The detector's classes.
    """

    def __init__(self, folder: Path, name: str, names: Mapping[int, str]) -> None:
        self.folder = make_folder(folder)
        self._name = re.sub(r"[^\w .-]+", "-", name).strip(" .") or "footage"
        self._names = dict(names)
        self._rows: list[dict[str, object]] = []
        self._corrected = 0
        self._boxes: list[list[tuple[list[float], float, int]]] = []

    def add(
        self, frame: FrameResult, image: Frame, proposals: Detections, informativeness: float
    ) -> None:
        """Write a frame with its proposals.

        Args:
            frame: Which frame.
            image: The rainy frame (H, W, 3), uint8, RGB.
            proposals: Boxes to start from, in pixels of the frame.
            informativeness: Why it was chosen.

        Raises:
            OutputError: A file cannot be written.
        """
        stem = self._free_name(frame)
        height, width = image.shape[:2]
        corners = proposals.boxes_xyxy.astype(np.float64).clip(0, [width, height, width, height])
        boxes = [
            (box, float(score), int(label))
            for box, score, label in zip(
                corners.tolist(), proposals.scores, proposals.labels, strict=True
            )
            if box[2] > box[0] and box[3] > box[1]
        ]
        write_image(self.folder / "images" / f"{stem}.png", image)
        lines = [_yolo_line(box, label, width, height) for box, _, label in boxes]
        self._write_labels(self.folder / "labels" / f"{stem}.txt", "".join(lines))
        self._boxes.append(boxes)
        self._rows.append({
            "image": f"{stem}.png", "shot": frame.shot, "frame": frame.key.name,
            "time_s": round(frame.time_s, 3), "width": width, "height": height,
            "proposals": len(boxes), "informativeness": round(informativeness, 3),
        })  # fmt: skip

    def _free_name(self, frame: FrameResult) -> str:
        """Name a frame's files; numbers tell apart what differs in its suffix alone."""
        name = safe_file_name(
            f"{Path(frame.key.source).stem}-{Path(frame.key.name).with_suffix('')}"
        )
        taken = {row["image"] for row in self._rows}
        free, number = name, 2
        while f"{free}.png" in taken:
            free, number = f"{name}-{number}", number + 1
        return free

    def _write_labels(self, path: Path, text: str) -> None:
        if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != text:
            self._corrected += 1
        else:
            write_text(path, text)

    def finish(self) -> None:
        """Write what describes all frames. Raises OutputError."""
        write_text(self.folder / "instances.json", json.dumps(self._coco(), indent=1) + "\n")
        names: object = self._names
        if sorted(self._names) == list(range(len(self._names))):
            names = [self._names[n] for n in range(len(self._names))]
        shots = dict.fromkeys(str(row["shot"]) for row in self._rows)
        content: dict[str, object] = {
            "name": self._name, "rainy": "images", "annotations": "labels", "names": names,
        }  # fmt: skip
        if len(shots) > 1:
            content["conditions"] = {
                shot: [row["image"] for row in self._rows if row["shot"] == shot] for shot in shots
            }
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_text(self.folder / "set.yaml", _REMARK + text)
        write_table(self.folder / "frames.csv", self._rows)
        others = len(list_files(self.folder / "images", {".png"})) - len(self._rows)
        if others or self._corrected:
            _log.warning(
                "%s: %d corrected label files and %d frames of earlier runs stay as they are",
                self.folder,
                self._corrected,
                others,
            )

    def _coco(self) -> dict[str, Any]:
        annotations: list[dict[str, object]] = []
        for image_id, boxes in enumerate(self._boxes, start=1):
            for (left, top, right, bottom), score, label in boxes:
                size = right - left, bottom - top
                annotations.append({
                    "id": len(annotations) + 1, "image_id": image_id, "category_id": label,
                    "bbox": [round(v, 2) for v in (left, top, *size)],
                    "area": round(size[0] * size[1], 2), "iscrowd": 0, "score": round(score, 5),
                })  # fmt: skip
        images = [
            {"id": n, "file_name": row["image"], "height": row["height"], "width": row["width"]}
            for n, row in enumerate(self._rows, start=1)
        ]
        categories = [{"id": n, "name": name} for n, name in sorted(self._names.items())]
        return {"images": images, "annotations": annotations, "categories": categories}


def _yolo_line(box: list[float], label: int, width: int, height: int) -> str:
    left, top, right, bottom = box
    values = (
        (left + right) / 2 / width,
        (top + bottom) / 2 / height,
        (right - left) / width,
        (bottom - top) / height,
    )
    return f"{label} {' '.join(f'{value:.6f}' for value in values)}\n"
