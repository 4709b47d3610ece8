"""The cost of mAP and its intervals: eval.scores.coco against pycocotools, and the bootstrap.

python -m benchmarks.detection_metrics --images 5000 --boxes 40

Objects and detections are random: each image has as many detections as objects, each a slightly
moved object, of 80 classes of unequal frequency. Both implementations of mAP take turns on the same
results in one process; medians over rounds. The last part adds low-scored detections, because at
confidence 0.001 a detector gives far more detections than there are objects. Times are CPU seconds
of this process, so other load on the machine has little effect.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eval.scores.bootstrap import average_precisions, difference_interval, draw_weights
from eval.scores.coco import Evaluation, GroundTruth
from eval.scores.errors import break_down
from rainmer.cli import make_parser, positive_int, run_command
from rainmer.files import write_text

MOST_RATIO = 1.2
MOST_BOOTSTRAP_S = 60.0
_CLASSES = 80
_SIDE = 640.0
_BOOTSTRAP_IMAGES = 500
_RESAMPLES = 1000

Results = list[dict[str, Any]]


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    truth, results = draw_case(options.images, options.boxes, options.boxes, seed=0)
    ours, plain = _compare(truth, results, options.rounds)
    ratio = statistics.median(ours) / statistics.median(plain)
    print(
        "CPU seconds in one thread\n"
        f"mAP of {options.images} images with {options.boxes} boxes each: eval.scores.coco "
        f"{statistics.median(ours):.1f} s, pycocotools {statistics.median(plain):.1f} s, "
        f"ratio {ratio:.2f} ({_verdict(ratio, MOST_RATIO)})"
    )
    truth, results = draw_case(_BOOTSTRAP_IMAGES, options.boxes, options.detections, seed=1)
    match_s, bootstrap_s, breakdown_s = _time_rest(truth, results)
    print(
        f"{_BOOTSTRAP_IMAGES} images with {options.detections} detections each: matches "
        f"{match_s:.1f} s; interval of a difference of two rows from {_RESAMPLES} resamples "
        f"{bootstrap_s:.1f} s ({_verdict(bootstrap_s, MOST_BOOTSTRAP_S)}); errors by kind "
        f"{breakdown_s:.1f} s a row"
    )
    if options.out:
        times = {
            "images": options.images,
            "boxes": options.boxes,
            "eval_coco_s": ours,
            "pycocotools_s": plain,
            "detections": options.detections,
            "match_s": match_s,
            "bootstrap_s": bootstrap_s,
            "breakdown_s": breakdown_s,
        }
        write_text(options.out, json.dumps(times, indent=2) + "\n")


def _parse() -> Namespace:
    parser = make_parser(
        "python -m benchmarks.detection_metrics",
        "Time mAP, its bootstrap, and errors by kind.",
        "  python -m benchmarks.detection_metrics --images 500 --rounds 3",
    )
    parser.add_argument("--images", type=positive_int, default=5000)
    parser.add_argument("--boxes", type=positive_int, default=40, help="objects of each image")
    parser.add_argument(
        "--detections",
        type=positive_int,
        default=300,
        help="detections of each image where the bootstrap is timed",
    )
    parser.add_argument("--rounds", type=positive_int, default=1)
    parser.add_argument("--out", type=Path, metavar="JSON")
    return parser.parse_args()


def _verdict(value: float, limit: float) -> str:
    return f"{'within' if value <= limit else 'above'} {limit:g}"


def draw_case(images: int, boxes: int, detections: int, seed: int) -> tuple[GroundTruth, Results]:
    """Generate objects, a detection near each object, and low-scored detections elsewhere."""
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, _CLASSES + 1)
    annotations: list[dict[str, Any]] = []
    results: Results = []
    for image_id in range(1, images + 1):
        labels = rng.choice(_CLASSES, boxes, p=share / share.sum()) + 1
        objects = _draw_boxes(rng, boxes)
        for label, box in zip(labels.tolist(), objects.tolist(), strict=True):
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label}
            area = box[2] * box[3]
            annotations.append({**annotation, "bbox": box, "area": area, "iscrowd": 0})
        moved = objects + rng.normal(0, 0.08, objects.shape) * objects[:, [2, 3, 2, 3]]
        moved[:, 2:] = np.maximum(moved[:, 2:], 1.0)
        rest = max(0, detections - boxes)
        places = np.concatenate([moved, _draw_boxes(rng, rest)])[:detections]
        guesses = np.concatenate([labels, rng.choice(_CLASSES, rest, p=share / share.sum()) + 1])
        scores = np.concatenate([rng.beta(2, 2, boxes), rng.beta(1, 30, rest)])
        results += [
            {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
            for label, box, score in zip(
                guesses.tolist(), places.tolist(), scores.tolist(), strict=False
            )
        ]
    names = {n: f"class {n}" for n in range(1, _CLASSES + 1)}
    return GroundTruth(tuple(range(1, images + 1)), names, tuple(annotations)), results


def _draw_boxes(rng: np.random.Generator, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Generate boxes (left, top, width, height) of all sizes, mostly small ones."""
    sides = np.exp(rng.uniform(np.log(8.0), np.log(_SIDE / 2), (count, 2)))
    return np.concatenate([rng.uniform(0, 1, (count, 2)) * (_SIDE - sides), sides], axis=1)


def _compare(truth: GroundTruth, results: Results, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds per round of both implementations, after checking that mAP is equal."""
    ours, plain = [], []
    for _ in range(rounds):
        seconds, reference = _timed(lambda: _plain_map(truth, copy.deepcopy(results)))
        copying, _ = _timed(lambda: copy.deepcopy(results))
        plain.append(seconds - copying)
        seconds, summary = _timed(lambda: Evaluation(truth, results).summary(truth.image_ids))
        ours.append(seconds)
        assert abs((summary["mAP"] or 0.0) - reference) < 1e-12
    return ours, plain


def _plain_map(truth: GroundTruth, results: Results) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth.to_coco()
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def _time_rest(truth: GroundTruth, results: Results) -> tuple[float, float, float]:
    """Return the seconds of matching, of one bootstrapped difference, and of the breakdown."""
    match_s, evaluation = _timed(lambda: Evaluation(truth, results))
    classes = evaluation.class_matches()
    weights = draw_weights(len(truth.image_ids), _RESAMPLES, seed=0)

    def interval() -> object:
        rows = [average_precisions(classes, weights) for _ in range(2)]
        return difference_interval(*rows)

    bootstrap_s, _ = _timed(interval)
    everything = {"all": truth.image_ids}
    breakdown_s, _ = _timed(lambda: break_down(evaluation, everything, 0.25))
    return match_s, bootstrap_s, breakdown_s


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    value = call()
    return time.process_time() - started, value


if __name__ == "__main__":
    run_command(lambda _: main())
