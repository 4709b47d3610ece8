"""Rows that derain at the detector's resolution, behind the letterbox."""

import numpy as np
import pytest
import yaml
from ultralytics import YOLO

from detection import attach
from detection.timing import StageTimes
from detection.yolo.harness import ValidationHarness
from eval.detect.comparison import compare, row_specs
from eval.detect.strips import seen_in, select_strips
from eval.detect.table import Settings
from eval.rows.cache import CachedDerainer
from eval.rows.run import RowSpec, run_row
from eval.sets import load_set
from rainmer import Derainer
from rainmer.frames.images import write_image
from tests.detection.conftest import make_frame, make_yolo
from tests.eval.recording import recorded_val
from tests.eval.trees import RectangleDetector, write_tree

SIZES = [(90, 120), (120, 90), (64, 128), (77, 101), (150, 200), (50, 50)]
# Random weights see something everywhere; below this confidence the NMS would take minutes.
OPTIONS = {"imgsz": 128, "conf": 0.3, "batch": 2}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A set of shapes and sizes all around the detector's input, and a detector's weights."""
    folder = tmp_path_factory.mktemp("places")
    yolo = make_yolo()
    yolo.save(folder / "tiny.pt")
    (folder / "labels").mkdir()
    for number, size_hw in enumerate(SIZES):
        write_image(folder / "images" / f"{number}.png", make_frame(*size_hw, seed=number))
        (folder / "labels" / f"{number}.txt").write_text("3 0.5 0.5 0.4 0.6\n")
    stock = {"path": str(folder), "train": "images", "val": "images", "names": yolo.names}
    (folder / "stock.yaml").write_text(yaml.safe_dump(stock))
    ours = {"name": "places", "rainy": "images", "annotations": "labels"}
    ours["names"] = list(yolo.names.values())
    (folder / "set.yaml").write_text(yaml.safe_dump(ours))
    return folder


def boxes_of_rows(folder, derainer, where, cache=None):
    data = load_set(folder / "set.yaml")
    harness = ValidationHarness(str(folder / "tiny.pt"), "cpu", **OPTIONS)
    spec = RowSpec("derained", CachedDerainer(derainer, cache), where=where)
    run = run_row(spec, data, harness, folder / "rows" / where, times=StageTimes())
    keys = {sample.image_id: sample.rainy.name for sample in data.samples}
    return {
        keys[image_id]: np.array(result.boxes).reshape(-1, 6) for image_id, result in run.items()
    }


def boxes_of_val(folder, derainer, where, tmp_path):
    yolo = attach(YOLO(folder / "tiny.pt"), derainer, where)
    records, _ = recorded_val(
        yolo,
        data=str(folder / "stock.yaml"),
        **OPTIONS,
        project=str(tmp_path),
        name=where,
    )
    found = {}
    for record in records:
        # Without a COCO set's name, ultralytics counts classes from 1.
        line = [*record["bbox"], record["score"], record["category_id"] - 1]
        found.setdefault(record["file_name"], []).append(line)
    return {name: np.array(lines) for name, lines in found.items()}


@pytest.mark.parametrize("where", ["frame", "network"])
def test_rows_are_what_an_attached_derainer_gives_in_val(places, where, tmp_path):
    # The median of 8-bit levels is one: nothing is lost where rows round to 8 bits.
    derainer = Derainer("median", device="cpu")
    ours = boxes_of_rows(places, derainer, where)
    theirs = boxes_of_val(places, derainer, where, tmp_path)
    assert sum(map(len, ours.values())) > 20
    for name, boxes in ours.items():
        np.testing.assert_allclose(boxes, theirs.get(name, boxes[:0]), atol=2e-3)


def test_the_place_matters_unless_a_frame_is_not_resized(places):
    derainer = Derainer("median", device="cpu")
    at_frame, at_network = (boxes_of_rows(places, derainer, w) for w in ("frame", "network"))
    same = {n: np.array_equal(at_frame[n], at_network[n]) for n in at_frame}
    assert same == {f"{n}.png": SIZES[n] == (64, 128) for n in range(len(SIZES))}


def test_frames_of_both_places_share_a_cache_and_are_not_mixed_up(places, tmp_path):
    seen = []

    def derain(batch):
        seen.extend([tuple(batch.shape[-2:])] * len(batch))
        return batch.flip(-1)

    derain.fingerprint = "mirror-1"
    derainer = Derainer(derain, device="cpu")
    first = [boxes_of_rows(places, derainer, w, tmp_path) for w in ("frame", "network")]
    # 64x128 is already as the detector wants it, so its frame is derained once.
    assert sorted(seen) == sorted([*SIZES, (96, 128), (128, 96), (98, 128), (96, 128), (128, 128)])
    for path in places.glob("rows/*/derained-*derain-*"):
        path.unlink()
    seen.clear()
    again = [boxes_of_rows(places, derainer, w, tmp_path) for w in ("frame", "network")]
    assert not seen
    for before, after in zip(first, again, strict=True):
        assert all(np.array_equal(before[name], after[name]) for name in before)


def run(file, folder, detector, **more):
    cached = [CachedDerainer(Derainer("median", device="cpu"), None)]
    data = load_set(file)
    specs = row_specs(data, cached, where=("frame", "network"), **more)
    return compare(data, detector, specs, folder, Settings(resamples=100))


def timeless(comparison):
    return [
        {
            key: value
            for key, value in row.flat().items()
            if not key.startswith("ms_") and key != "images_per_s"
        }
        for row in comparison.table
    ]


def test_an_interrupted_run_resumes_to_the_same_numbers(tmp_path):
    file = write_tree(tmp_path)
    whole = run(file, tmp_path / "whole", RectangleDetector(scale=2))
    with pytest.raises(KeyboardInterrupt):
        run(file, tmp_path / "cut", RectangleDetector(stop_after=28, scale=2))
    resumed = RectangleDetector(scale=2)
    again = run(file, tmp_path / "cut", resumed)
    assert 0 < resumed.frames_seen < 12
    assert timeless(whole) == timeless(again)
    assert whole.per_class == again.per_class


def test_the_difference_of_places_is_paired(tmp_path):
    comparison = run(write_tree(tmp_path), tmp_path / "rows", RectangleDetector(scale=2))
    labels = [row.spec.label for row in comparison.rows]
    assert labels[2:] == [
        "derained-median", "derained_clean-median", "derained-network-median",
        "derained_clean-network-median",
    ]  # fmt: skip
    table = [row.flat() for row in comparison.table]
    rows = {(r["input"], r["derainer"]): r for r in table if r["condition"] == "all"}
    frame, network = (rows["derained", name] for name in ("median", "network-median"))
    # At twice the size a 5x5 median takes away less.
    assert network["mAP"] != frame["mAP"]
    assert network["delta_frame"] == pytest.approx(network["mAP"] - frame["mAP"])
    assert network["frame_ci_low"] <= network["delta_frame"] <= network["frame_ci_high"]
    assert network["delta_mAP"] == pytest.approx(network["mAP"] - rows["rainy", ""]["mAP"])
    assert network["psnr"] is None
    assert network["recovered"] is not None
    assert frame["delta_frame"] is None
    assert "network-median" not in {
        strip.derainer for strip in select_strips(seen_in(comparison, 0.25))
    }
