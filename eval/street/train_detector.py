"""`python -m eval.street.train_detector`: train the embedded detector on clean scenes.

The scenes, alternating day and night, are kept in memory. Most epochs use small images, which is
many times cheaper; the last epochs use full size. Training starts from random weights.
"""

from __future__ import annotations

import csv
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from eval.scores.coco import Evaluation, GroundTruth
from eval.street.detector import build_network, save_detector, write_checkpoint
from eval.street.scene import CLASSES
from eval.street.splits import TEST, SceneId, train_scenes, write_split
from rainmer.cli import (
    add_threads_option,
    make_parser,
    non_negative_int,
    parse_options,
    positive_int,
    run_command,
    set_threads,
)
from rainmer.errors import RainmerError
from rainmer.files import make_folder
from rainmer.frames.arrays import Frame
from rainmer.frames.images import read_image
from rainmer.models.weights import write_torch

__all__ = ["Recipe", "measure", "train"]

_STAGES = ((320, 5 / 7), (480, 1 / 7), (640, 1 / 7))  # width of the input, share of the epochs
_KEPT_SHARE = 0.3  # least share of an object that must remain after cropping
_LEAST_SIDE = 3.0  # pixels of the input; smaller boxes are dropped
_PAD = 114  # grey level around images, as in ultralytics


@dataclass(frozen=True)
class Recipe:
    """Options of the training.

    Attributes:
        images: Number of training scenes.
        epochs: Number of epochs.
        batch: Images per step.
        seed: Seed of the weights, the order and the augmentation.
        architecture: Name of a description in ultralytics.
        learning_rate: Peak learning rate of AdamW, reached by a warm-up and followed by a cosine.
        extra: Further epochs at full size with little augmentation, with a second cosine that
            starts from `extra_rate`.
        extra_rate: Learning rate at the start of the extra epochs.
        weight_decay: Weight decay of the kernels.
    """

    images: int = 2800
    epochs: int = 11
    batch: int = 8
    seed: int = 0
    architecture: str = "yolo11n.yaml"
    learning_rate: float = 0.002
    extra: int = 4
    extra_rate: float = 0.0008
    weight_decay: float = 0.0005

    def widths(self) -> list[int]:
        """Return the width of the input in each epoch: small first."""
        last = [max(1, round(share * self.epochs)) for _, share in _STAGES[1:]]
        first = max(self.epochs - sum(last), 0)
        widths = [width for (width, _), count in zip(_STAGES, [first, *last], strict=True)
                  for _ in range(count)]  # fmt: skip
        return widths[-self.epochs :] + [_STAGES[-1][0]] * self.extra


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The options of the command."""

    out: Path
    work: Path | None
    images: int
    epochs: int
    extra: int
    seed: int
    quiet: bool


class Scenes(NamedTuple):
    """Scenes in memory.

    Attributes:
        images: (N, H, W, 3), uint8, RGB.
        boxes: For each image (n, 5): class, x1, y1, x2, y2 in pixels.
    """

    images: npt.NDArray[np.uint8]
    boxes: list[npt.NDArray[np.float32]]


def load_scenes(folder: Path, count: int, *, quiet: bool = False) -> Scenes:
    """Draw the training scenes into a folder unless it holds them, and read them.

    Raises:
        OutputError: The folder cannot be written.
    """
    file = folder / "instances.json"
    if not file.is_file() or len(json.loads(file.read_text())["images"]) < count:
        write_split(folder, train_scenes(count), quiet=quiet)
    content = json.loads(file.read_text())
    records = content["images"][:count]
    images = [read_image(folder / "images" / record["file_name"]) for record in records]
    boxes: dict[int, list[tuple[float, ...]]] = {record["id"]: [] for record in records}
    for annotation in content["annotations"]:
        if annotation["image_id"] in boxes:
            x, y, w, h = annotation["bbox"]
            boxes[annotation["image_id"]].append(
                (annotation["category_id"] - 1, x, y, x + w, y + h)
            )
    arrays = [np.array(rows, np.float32).reshape(-1, 5) for rows in boxes.values()]
    return Scenes(np.stack(images), arrays)


def augmented(
    rng: np.random.Generator, image: Frame, boxes: npt.NDArray[np.float32],
    size_hw: tuple[int, int], *, gentle: bool = False,
) -> tuple[Frame, npt.NDArray[np.float32]]:  # fmt: skip
    """Flip, zoom, shift and tint an image.

    Args:
        rng: Source of the random choices.
        image: (H, W, 3), uint8, RGB.
        boxes: (n, 5): class, x1, y1, x2, y2 in pixels.
        size_hw: Height and width of the result in pixels.
        gentle: Zoom and shift only half of the images, by a quarter of the usual range.

    Returns:
        The image (H, W, 3), and the boxes (m, 5) that remain inside.
    """
    height, width = size_hw
    strength = (0.25 if rng.random() < 0.5 else 0.0) if gentle else 1.0
    zoom = width / image.shape[1] * float(np.exp(strength * rng.uniform(-0.22, 0.3)))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    shift = strength * rng.uniform(-0.1, 0.1, 2) * [width, height]
    centre = np.array([image.shape[1], image.shape[0]]) / 2
    scale = np.array([flip * zoom, zoom])
    offset = np.array([width, height]) / 2 + shift - scale * centre
    # OpenCV has pixel centres at whole numbers.
    matrix = np.array([[scale[0], 0, offset[0]], [0, scale[1], offset[1]]])
    matrix[:, 2] += 0.5 * scale - 0.5
    moved = cv2.warpAffine(image, matrix, (width, height), borderValue=(_PAD, _PAD, _PAD))
    gains = rng.uniform(0.75, 1.3) * rng.uniform(0.93, 1.07, 3)
    levels = np.arange(256)[:, None] * gains
    table = np.clip(levels, 0, 255).astype(np.uint8)[:, None]
    moved = cv2.LUT(moved, table.reshape(1, 256, 3))
    corners = boxes[:, 1:].reshape(-1, 2, 2) * scale + offset
    corners = np.sort(corners, axis=1)
    whole = np.prod(corners[:, 1] - corners[:, 0], axis=1)
    corners = np.clip(corners, 0, [width, height])
    sides = corners[:, 1] - corners[:, 0]
    inside = (np.prod(sides, axis=1) > _KEPT_SHARE * whole) & (sides.min(axis=1) > _LEAST_SIDE)
    changed = np.concatenate([boxes[:, :1], corners.reshape(-1, 4)], axis=1)[inside]
    return moved, changed.astype(np.float32)


def batches(
    scenes: Scenes, rng: np.random.Generator, batch: int, size_hw: tuple[int, int], *,
    gentle: bool = False,
) -> Iterator[dict[str, Tensor]]:  # fmt: skip
    """Yield the batches of an epoch in random order; a thread prepares the next two."""
    order = rng.permutation(len(scenes.images))
    starts = range(0, len(order) - batch + 1, batch)
    make = partial(_batch, scenes, rng, size_hw, gentle)
    with ThreadPoolExecutor(1) as pool:
        pending = [pool.submit(make, order[start : start + batch]) for start in starts[:2]]
        for start in list(starts[2:]) + [None] * min(2, len(starts)):
            yield pending.pop(0).result()
            if start is not None:
                pending.append(pool.submit(make, order[start : start + batch]))


def _batch(
    scenes: Scenes, rng: np.random.Generator, size_hw: tuple[int, int], gentle: bool,
    chosen: npt.NDArray[np.intp],
) -> dict[str, Tensor]:  # fmt: skip
    """Return a batch in the form of ultralytics' losses: boxes as centre and size, 0..1."""
    pairs = [
        augmented(rng, scenes.images[i], scenes.boxes[i], size_hw, gentle=gentle) for i in chosen
    ]
    height, width = size_hw
    images = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)
    counts = [len(boxes) for _, boxes in pairs]
    boxes = torch.from_numpy(np.concatenate([boxes for _, boxes in pairs]))
    corners = boxes[:, 1:] / torch.tensor([width, height, width, height])
    return {
        "img": images.float() / 255,
        "batch_idx": torch.repeat_interleave(
            torch.arange(len(pairs)), torch.tensor(counts)
        ).float(),
        "cls": boxes[:, :1],
        "bboxes": torch.cat(
            [(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1
        ),
    }


class Training:
    """A network in training, its averaged weights, and the state for resuming."""

    def __init__(self, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.network = build_network(recipe.architecture, list(CLASSES))
        self.network.to(memory_format=torch.channels_last)
        self.average = build_network(recipe.architecture, list(CLASSES)).eval()
        self.average.load_state_dict(self.network.state_dict())
        kernels = [p for p in self.network.parameters() if p.ndim > 1 and p.requires_grad]
        others = [p for p in self.network.parameters() if p.ndim <= 1 and p.requires_grad]
        groups = [
            {"params": kernels, "weight_decay": recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), fused=True)
        pairs = zip(
            self.average.state_dict().values(), self.network.state_dict().values(), strict=True
        )
        # These tensors share their memory with the networks.
        self._averaged, self._current = zip(
            *[(mean, value) for mean, value in pairs if mean.is_floating_point()], strict=True
        )
        self.step = 0
        self.epoch = 0
        self.steps = recipe.epochs * (recipe.images // recipe.batch)

    def run_epoch(self, scenes: Scenes, width: int, *, quiet: bool) -> float:
        """Train for one epoch and return its mean loss."""
        size_hw = (width * scenes.images.shape[1] // scenes.images.shape[2], width)
        rng = np.random.default_rng([self.recipe.seed, self.epoch])
        gentle = self.epoch >= self.recipe.epochs
        self.network.train()
        total, count = 0.0, len(scenes.images) // self.recipe.batch
        name = f"epoch {self.epoch + 1}/{self.recipe.epochs + self.recipe.extra} at {width}"
        with tqdm(total=count, desc=name, unit="step", disable=quiet, file=sys.stderr) as bar:
            for batch in batches(scenes, rng, self.recipe.batch, size_hw, gentle=gentle):
                total += self._advance(batch)
                bar.update()
        self.epoch += 1
        return total / max(count, 1)

    def _advance(self, batch: dict[str, Tensor]) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        losses, _ = self.network(batch)
        loss = losses.sum() / len(batch["img"])
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self.optimizer.step()
        self.step += 1
        # ultralytics' moving average is too slow for such a short training.
        keep = min(0.998, self.step / (self.step + 30))
        with torch.no_grad():
            torch._foreach_lerp_(self._averaged, self._current, 1 - keep)
        return float(loss.detach())

    def _rate(self) -> float:
        """Return the learning rate of the next step."""
        recipe = self.recipe
        if self.step < self.steps:
            rise = min(1.0, (self.step + 1) / 200)
            return recipe.learning_rate * rise * _fall(self.step / self.steps)
        further = recipe.extra * (recipe.images // recipe.batch)
        return recipe.extra_rate * _fall((self.step - self.steps) / max(further, 1))

    def save(self, path: Path) -> None:
        """Save the state to a file for `load`.

        Raises:
            RainmerError: A weight is not finite; the file stays as it was.
        """
        network, average = self.network.state_dict(), self.average.state_dict()
        for name, value in (*network.items(), *average.items()):
            if not value.isfinite().all():
                raise RainmerError(
                    f"{name} is not finite after epoch {self.epoch}, so {path} stays as it was: "
                    "train with a lower learning rate"
                )
        content = {
            "network": network, "average": average, "optimizer": self.optimizer.state_dict(),
            "step": self.step, "epoch": self.epoch,
        }  # fmt: skip
        write_torch(path, content)

    def load(self, path: Path) -> None:
        """Resume from a file written by `save`."""
        content = torch.load(path, weights_only=True)
        self.network.load_state_dict(content["network"])
        self.average.load_state_dict(content["average"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.epoch = content["step"], content["epoch"]


def _fall(share: float) -> float:
    """Return the learning rate factor after a share of the steps: a half cosine, 1 to 0.02."""
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def measure(weights: Path, folder: Path, *, imgsz: int = 640) -> dict[str, dict[str, float | None]]:
    """Measure a detector on scenes written by `write_split`.

    Args:
        weights: A `.pt` file.
        folder: Holds `images` and `instances.json`.
        imgsz: Long side of the detector's input in pixels.

    Returns:
        The fractions of `eval.scores.coco.Evaluation.summary` under `all`, `day` and `night`; the
        AP of each class under `classes`.
    """
    from detection.yolo.harness import ValidationHarness

    content = json.loads((folder / "instances.json").read_text())
    records = content["images"]
    harness = ValidationHarness(str(weights), imgsz=imgsz)
    frames = [read_image(folder / "images" / record["file_name"]) for record in records]
    results: list[dict[str, Any]] = []
    for batch in harness.plan([(frame.shape[0], frame.shape[1]) for frame in frames]):
        detected = harness.detect([frames[i] for i in batch.indices], batch.input_hw)
        for index, detections in zip(batch.indices, detected, strict=True):
            for box, score, label in zip(
                detections.boxes_xyxy, detections.scores, detections.labels, strict=True
            ):
                x0, y0, x1, y1 = (float(value) for value in box)
                results.append(
                    {"image_id": records[index]["id"], "category_id": int(label) + 1,
                     "bbox": [x0, y0, x1 - x0, y1 - y0], "score": float(score)}
                )  # fmt: skip
    names = {category["id"]: category["name"] for category in content["categories"]}
    ids = {record["id"]: record["attributes"]["time"] for record in records}
    evaluation = Evaluation(GroundTruth(tuple(ids), names, tuple(content["annotations"])), results)
    scores = {"all": evaluation.summary(ids)}
    for condition in sorted(set(ids.values())):
        scores[condition] = evaluation.summary(i for i, time_ in ids.items() if time_ == condition)
    scores["classes"] = {score.name: score.ap for score in evaluation.per_class(ids)}
    return scores


def train(recipe: Recipe, work: Path, *, quiet: bool = False) -> Training:
    """Train, or resume an interrupted training in the same folder.

    The folder gets the scenes (`train`, `held-out`), `state.pt`, and `epochs.csv` with the loss and
    the mAP on 96 held-out scenes, which are not in the test split either.

    Raises:
        OutputError: The folder cannot be written.
    """
    make_folder(work)
    scenes = load_scenes(work / "train", recipe.images, quiet=quiet)
    held_out = _draw_into(work / "held-out", train_scenes(96, 1_000_000), quiet=quiet)
    training = Training(recipe)
    state, log = work / "state.pt", work / "epochs.csv"
    if state.is_file():
        training.load(state)
    for width in recipe.widths()[training.epoch :]:
        started = time.perf_counter()
        loss = training.run_epoch(scenes, width, quiet=quiet)
        seconds = time.perf_counter() - started
        training.save(state)
        write_checkpoint(training.average, work / "average.pt")
        scores = measure(work / "average.pt", held_out, imgsz=width)
        row = {"epoch": training.epoch, "width": width, "loss": round(loss, 4),
               "seconds": round(seconds, 1), "held_out_mAP": round(scores["all"]["mAP"] or 0.0, 4),
               "held_out_mAP50": round(scores["all"]["mAP50"] or 0.0, 4)}  # fmt: skip
        _append(log, row)
    return training


def _draw_into(folder: Path, scenes: Sequence[SceneId], *, quiet: bool) -> Path:
    """Draw scenes into a folder unless it holds them; return the folder."""
    if not (folder / "instances.json").is_file():
        write_split(folder, scenes, quiet=quiet)
    return folder


def _append(path: Path, row: dict[str, Any]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row.keys())
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def _parse(argv: Sequence[str] | None) -> _Options:
    parser = make_parser(
        "python -m eval.street.train_detector",
        "Train the embedded detector on clean Rainy Street scenes and write its weights.",
        "  python -m eval.street.train_detector --out detector.safetensors",
    )
    defaults = Recipe()
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the weights")
    parser.add_argument(
        "--work", type=Path, metavar="DIR",
        help="scenes and state, to go on after a break (default: beside --out)",
    )  # fmt: skip
    parser.add_argument("--images", type=positive_int, default=defaults.images, metavar="N",
                        help="training scenes (default: %(default)s)")  # fmt: skip
    parser.add_argument("--epochs", type=positive_int, default=defaults.epochs, metavar="E",
                        help="how often each is seen (default: %(default)s)")  # fmt: skip
    parser.add_argument("--extra", type=non_negative_int, default=defaults.extra, metavar="E",
                        help="further epochs at full size (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=defaults.seed, metavar="S")
    add_threads_option(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    return parse_options(parser, _Options, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises RainmerError for invalid input."""
    options = _parse(argv)
    set_threads()
    os.environ.setdefault("YOLO_AUTOINSTALL", "False")
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())
    recipe = Recipe(
        images=options.images, epochs=options.epochs, extra=options.extra, seed=options.seed
    )
    work = options.work or options.out.with_name(f"{options.out.stem}-work")
    started = time.perf_counter()
    training = train(recipe, work, quiet=options.quiet)
    test = _draw_into(work / "test", TEST, quiet=options.quiet)
    scores = measure(work / "average.pt", test)
    _save(training, options.out, scores)
    print(f"{options.out}: {time.perf_counter() - started:.0f} s")
    for condition in ("all", "day", "night"):
        print(f"  {condition}: mAP {100 * (scores[condition]['mAP'] or 0):.1f}")


def _save(training: Training, path: Path, scores: dict[str, dict[str, float | None]]) -> None:
    """Write the averaged weights, with the recipe and the scores on the test split."""
    recipe = training.recipe
    facts = {
        "images": str(recipe.images), "epochs": f"{recipe.epochs}+{recipe.extra}",
        "batch": str(recipe.batch),
        "seed": str(recipe.seed), "data": "clean Rainy Street scenes, day and night, drawn",
        "test": json.dumps(scores),
    }  # fmt: skip
    save_detector(training.average.state_dict(), path, architecture=recipe.architecture,
                  names=list(CLASSES), facts=facts)  # fmt: skip


if __name__ == "__main__":
    run_command(main)
