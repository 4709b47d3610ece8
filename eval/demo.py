"""The demonstration: the whole path on two photos that come with ultralytics, nothing downloaded.

It shows the machinery, not a finding: a few views of two photos, streaks of the plain additive
and a tiny detector that is fitted to these very views on first use (a minute or two on two CPU
cores). Everything is kept in the user's cache folder.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from tqdm import tqdm

from eval.cache import default_cache_folder
from rainmer.files import atomic_write, make_folder, write_text
from rainmer.frames import Frame, read_image, write_image

__all__ = ["Demo", "prepare_demo"]

_log = logging.getLogger(__name__)

_VERSION = 1  # of what lies in the cache folder
_NAMES = ("person", "tie", "bus")
# Objects of the two photos, marked by hand: class, left, top, right, bottom in pixels.
_OBJECTS: dict[str, tuple[tuple[int, int, int, int, int], ...]] = {
    "bus.jpg": (
        (2, 22, 231, 806, 754),
        (0, 49, 397, 246, 903),
        (0, 670, 382, 810, 876),
        (0, 223, 406, 344, 858),
        (0, 0, 550, 62, 873),
    ),
    "zidane.jpg": (
        (0, 148, 200, 1117, 713),
        (0, 748, 41, 1144, 710),
        (1, 436, 438, 524, 714),
    ),
}
_VIEWS = 8  # of each photo: itself, then crops, every other one mirrored
_SIDE = 320  # longer side of a view in pixels
_INPUT = 256  # detector input in pixels
_EPOCHS = 240  # one step each
_LEAST_VISIBLE = 0.3  # share of an object's sides that a crop must keep


@dataclass(frozen=True)
class Demo:
    """What a run needs: a set, a detector (a file or a published name), and its input size."""

    data: Path
    detector: str
    imgsz: int


def prepare_demo(folder: Path | None = None, *, epochs: int = _EPOCHS, quiet: bool = False) -> Demo:
    """Build the demonstration's set and detector, or find them from an earlier time.

    Args:
        folder: Where they are kept; None: the user's cache folder.
        epochs: Training steps of the detector.
        quiet: Show no progress.

    Raises:
        OutputError: The folder cannot be written.
    """
    folder = make_folder(folder or default_cache_folder().parent / f"demo-{_VERSION}")
    data, detector = folder / "set.yaml", folder / "demo-detector.pt"
    if not data.exists():
        _write_set(folder)
    if not detector.exists():
        _log.info("demonstration: fitting a small detector to two photos, once")
        _fit_detector(folder, detector, epochs, quiet)
    return Demo(data, str(detector), _INPUT)


def _write_set(folder: Path) -> None:
    from ultralytics.utils import ASSETS

    rng = np.random.default_rng(0)
    for photo, objects in _OBJECTS.items():
        image = read_image(Path(ASSETS) / photo)
        for number in range(_VIEWS):
            strength = "heavy" if number % 4 >= 2 else "light"
            name = f"{strength}-{Path(photo).stem}-{number}"
            view, labels = _view(image, objects, number, rng)
            write_image(folder / "images" / f"{name}.png", view)
            write_text(folder / "labels" / f"{name}.txt", "\n".join(labels) + "\n")
            rainy = add_streaks(view, 0.9 if strength == "heavy" else 0.5, rng)
            write_image(folder / "rainy" / f"{name}.png", rainy)
    training = {"path": str(folder.resolve()), "train": "images", "val": "images"}
    write_text(
        folder / "train.yaml", yaml.safe_dump({**training, "names": dict(enumerate(_NAMES))})
    )
    content = {
        "name": "demo",
        "rainy": "rainy",
        "clean": "images",
        "annotations": "labels",
        "names": list(_NAMES),
        "conditions": {"light": "light-*", "heavy": "heavy-*"},
    }
    write_text(folder / "set.yaml", yaml.safe_dump(content, sort_keys=False))


def _view(
    image: Frame, objects: Sequence[tuple[int, ...]], number: int, rng: np.random.Generator
) -> tuple[Frame, list[str]]:
    """Return one view of a photo and its YOLO label lines."""
    height, width = image.shape[:2]
    share = 1.0 if number == 0 else float(rng.uniform(0.7, 0.95))
    h, w = int(height * share), int(width * share)
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    view = image[top : top + h, left : left + w]
    labels = []
    for label, x1, y1, x2, y2 in objects:
        box = np.clip([x1 - left, y1 - top, x2 - left, y2 - top], 0, [w, h, w, h]) / [w, h, w, h]
        if number % 2:
            box = np.array([1 - box[2], box[1], 1 - box[0], box[3]])
        sides = box[2:] - box[:2]
        if (sides * [w, h] < _LEAST_VISIBLE * np.array([x2 - x1, y2 - y1])).any():
            continue
        center = (box[:2] + box[2:]) / 2
        labels.append(f"{label} {center[0]:.5f} {center[1]:.5f} {sides[0]:.5f} {sides[1]:.5f}")
    if number % 2:
        view = view[:, ::-1]
    scale = _SIDE / max(h, w)
    size = (round(w * scale), round(h * scale))
    return cv2.resize(np.ascontiguousarray(view), size, interpolation=cv2.INTER_AREA), labels


def add_streaks(frame: Frame, strength: float, rng: np.random.Generator) -> Frame:
    """Add white rain streaks the plain way of early data sets: noise drawn out along a direction.

    Args:
        frame: (H, W, 3), uint8, RGB.
        strength: Brightness of the streaks; about 0..1.
        rng: Where the drops fall.
    """
    height, width = frame.shape[:2]
    drops = np.where(rng.random((height, width)) > 0.985, 255.0, 0.0)
    length, angle = 25, float(rng.uniform(70, 110))
    line = np.zeros((length, length), np.float32)
    line[length // 2] = 1.0 / length
    turn = cv2.getRotationMatrix2D((length / 2 - 0.5, length / 2 - 0.5), angle, 1.0)
    streaks = cv2.filter2D(drops, -1, cv2.warpAffine(line, turn, (length, length)))
    streaks = streaks / streaks.max() * 255.0 * strength
    rainy: Frame = np.clip(np.rint(frame + streaks[..., None]), 0, 255).astype(np.uint8)
    return rainy


def _fit_detector(folder: Path, detector: Path, epochs: int, quiet: bool) -> None:
    """Train a very small YOLO on the clean views."""
    from ultralytics import YOLO
    from ultralytics.utils import LOGGER

    level, threads = LOGGER.level, torch.get_num_threads()
    LOGGER.setLevel(logging.ERROR)
    try:
        yolo = YOLO(str(_write_architecture(folder)))
        with tqdm(total=epochs, desc="fitting", unit="step", disable=quiet, file=sys.stderr) as bar:
            yolo.add_callback("on_train_start", _follow_quickly)
            # ultralytics leaves itself fewer threads than there are.
            yolo.add_callback("on_train_start", lambda trainer: torch.set_num_threads(threads))
            yolo.add_callback("on_train_epoch_end", lambda trainer: bar.update())
            yolo.train(
                data=str(folder / "train.yaml"),
                epochs=epochs,
                imgsz=_INPUT,
                batch=2 * _VIEWS,
                nbs=2 * _VIEWS,
                optimizer="AdamW",
                lr0=0.005,
                cos_lr=True,
                mosaic=0.0,
                scale=0.2,
                pretrained=False,
                amp=False,
                workers=0,
                device="cpu",
                seed=0,
                val=False,
                plots=False,
                verbose=False,
                project=str(folder.resolve()),
                name="training",
                exist_ok=True,
            )
    finally:
        LOGGER.setLevel(level)
        torch.set_num_threads(threads)
    with atomic_write(detector) as temporary:
        shutil.copyfile(folder / "training" / "weights" / "last.pt", temporary)


def _write_architecture(folder: Path) -> Path:
    """Write YOLOv8 with half the width of its nano size: as much as these photos need."""
    from ultralytics.utils import ROOT

    source = Path(ROOT, "cfg", "models", "v8", "yolov8.yaml").read_text(encoding="utf-8")
    architecture = {**yaml.safe_load(source), "nc": len(_NAMES)}
    architecture["scales"] = {"n": [0.33, 0.125, 512]}
    path = folder / "yolov8n-demo.yaml"
    write_text(path, yaml.safe_dump(architecture))
    return path


def _follow_quickly(trainer: Any) -> None:  # noqa: ANN401 (an ultralytics trainer)
    """Shorten the memory of the averaged weights: by default it outlasts this short training."""
    trainer.ema.decay = lambda updates: min(0.97, updates / 100)
