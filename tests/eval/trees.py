"""Small real sets for tests: bright rectangles on dark ground, and a detector that finds them."""

import json
from dataclasses import dataclass

import cv2
import numpy as np
import yaml

from detection.types import Detections
from rainmer.frames.images import write_image

NAMES = {0: "red thing", 1: "green thing", 2: "blue thing"}
SIZE = (48, 64)


def scene(seed, size=SIZE):
    """A frame with two or three rectangles, and their (class, left, top, width, height)."""
    rng = np.random.default_rng(seed)
    frame = np.full((*size, 3), 20, np.uint8)
    boxes = []
    for column in range(2 + seed % 2):
        label = int(rng.integers(0, 3))
        width, height = (int(v) for v in rng.integers(8, 16, 2))
        left, top = 20 * column + 2, int(rng.integers(2, size[0] - height - 2))
        frame[top : top + height, left : left + width, label] = 250
        boxes.append((label, left, top, width, height))
    return frame, boxes


def rain(frame, seed, share=0.01):
    """Draw white streaks one pixel wide: they cut rectangles into pieces."""
    starts = np.random.default_rng(1000 + seed).random(frame.shape[:2]) < share
    streaks = cv2.dilate(starts.astype(np.uint8), np.ones((15, 1), np.uint8))
    return np.where(streaks[..., None] > 0, 255, frame).astype(np.uint8)


def write_tree(root, images=6, *, clean=True, labels="coco", conditions=True, first_image_id=0):
    """Write a set and return its YAML file. COCO ids start at 0 on purpose: they trap COCOeval."""
    coco = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": n} for i, n in NAMES.items()],
    }
    for number in range(images):
        name = f"{'day' if number % 2 else 'night'}_{number:02d}"
        frame, boxes = scene(number)
        write_image(root / "rainy" / f"{name}.png", rain(frame, number))
        if clean:
            write_image(root / "clean" / f"{name}.png", frame)
        height, width = frame.shape[:2]
        coco["images"].append(
            {
                "id": number + first_image_id,
                "file_name": f"{name}.jpg",
                "height": height,
                "width": width,
                "attributes": {"weather": "wet" if number < 2 else "dry"},
            }
        )
        lines = []
        for label, left, top, w, h in boxes:
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]),
                    "image_id": number + first_image_id,
                    "category_id": label,
                    "bbox": [left, top, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
            center = ((left + w / 2) / width, (top + h / 2) / height)
            lines.append(f"{label} {center[0]} {center[1]} {w / width} {h / height}")
        if labels == "yolo":
            (root / "labels").mkdir(exist_ok=True)
            (root / "labels" / f"{name}.txt").write_text("\n".join(lines))
    content = {"name": "tiny", "rainy": "rainy"}
    if clean:
        content["clean"] = "clean"
    if labels == "coco":
        (root / "instances.json").write_text(json.dumps(coco))
        content["annotations"] = "instances.json"
    elif labels == "yolo":
        content["annotations"] = "labels"
        content["names"] = list(NAMES.values())
    if conditions:
        content["conditions"] = {"day": "day_*", "night": ["night_00.png", "night_02", "night_04"]}
    return write_yaml(root, content)


def write_yaml(root, content):
    file = root / "set.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@dataclass(frozen=True)
class Batch:
    indices: tuple[int, ...]
    input_hw: tuple[int, int]


class RectangleDetector:
    """Finds bright areas of one colour. Simple, but a detector: rain makes it miss and invent.

    Its input has the size of the frame times `scale`.
    """

    names = NAMES
    fingerprint = "rectangles-1"

    def __init__(self, stop_after=None, scale=1):
        self.stop_after, self.frames_seen, self.scale = stop_after, 0, scale

    def plan(self, sizes_hw):
        order = sorted(range(len(sizes_hw)), key=lambda i: sizes_hw[i])
        return [Batch(tuple(order[i : i + 2]), (0, 0)) for i in range(0, len(order), 2)]

    def fit(self, frames, input_hw):
        return [cv2.resize(frame, None, fx=self.scale, fy=self.scale) for frame in frames]

    def detect_fitted(self, fitted, sizes_hw, input_hw):
        self.frames_seen += len(fitted)
        if self.stop_after is not None and self.frames_seen > self.stop_after:
            raise KeyboardInterrupt
        found = [self._detect(frame) for frame in fitted]
        return [Detections(f.boxes_xyxy / self.scale, f.scores, f.labels) for f in found]

    def _detect(self, frame):
        boxes, scores, labels = [], [], []
        for label in range(3):
            others = np.delete(frame, label, axis=2).max(axis=2)
            mask = ((frame[..., label] > 150) & (others < 120)).astype(np.uint8)
            count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
            for left, top, width, height, area in stats[1:count]:
                if area >= 6:
                    boxes.append([left, top, left + width, top + height])
                    scores.append(min(0.99, area / 150))
                    labels.append(label)
        order = np.argsort(-np.asarray(scores), kind="stable") if scores else []
        return Detections(
            np.asarray(boxes, np.float32).reshape(-1, 4)[order],
            np.asarray(scores, np.float32)[order],
            np.asarray(labels, np.int64)[order],
        )
