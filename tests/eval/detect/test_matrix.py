"""Several detectors on the same inputs: cells by hand, words, files and mistakes."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from detection.types import Detections
from eval.detect.__main__ import main
from eval.detect.comparison import compare, row_specs
from eval.detect.matrix import build_matrix, format_matrix
from eval.detect.table import Settings
from eval.detect.truth import common_categories
from eval.rows.derainers import Derainers
from eval.scores.coco import GroundTruth
from eval.sets import load_set
from rainmer.errors import DatasetError, SpecError
from rainmer.frames.images import read_image
from tests.eval.detect.test_detect_command import arguments
from tests.eval.pages import Page
from tests.eval.trees import NAMES, RectangleDetector, write_tree

SETTINGS = Settings(resamples=100)


class Oracle:
    """Finds every object of some classes on each kind of image, and nothing else.

    Args:
        sight: Kind of image (rainy, derained, clean) to the classes that it finds there.
        names: Its classes.
    """

    def __init__(self, folder, names=NAMES, **sight):
        self.names, self.sight = names, sight
        self.fingerprint = repr((names, sight))
        self.plan = RectangleDetector().plan
        self.data = load_set(folder / "set.yaml")
        self.kinds = {}
        for sample in self.data.samples:
            for kind, path in (("rainy", sample.rainy), ("clean", sample.clean)):
                self.kinds[read_image(path).tobytes()] = (kind, sample.image_id)
                # The derainer of these tests turns the image upside down.
                self.kinds[read_image(path)[::-1].tobytes()] = (
                    "derained" if kind == "rainy" else "derained_clean",
                    sample.image_id,
                )

    def fit(self, frames, input_hw):
        return list(frames)

    def detect_fitted(self, fitted, sizes_hw, input_hw):
        return [self._detect(*self.kinds[frame.tobytes()]) for frame in fitted]

    def _detect(self, kind, image_id):
        found = [
            a
            for a in self.data.annotations
            if a["image_id"] == image_id and a["category_id"] in self.sight.get(kind, ())
        ]
        boxes = np.array([a["bbox"] for a in found], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([a["category_id"] for a in found], np.int64)
        return Detections(boxes, np.full(len(found), 0.9, np.float32), labels)


def upside_down(batch):
    return batch.flip(-2)


def comparisons(folder, detectors, settings=SETTINGS):
    data = load_set(folder / "set.yaml")
    spec = f"flip=python:{__name__}:upside_down"
    specs = row_specs(data, Derainers([spec], {"device": "cpu"}).for_set(data.name))
    return {
        name: compare(data, harness, specs, folder / name, settings)
        for name, harness in detectors.items()
    }


def by_label(matrix, name, condition="all"):
    return dict(zip(matrix.inputs, matrix.row(condition, name), strict=True))


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """In the rain the first finds one class of three, derained two; the other two, and three."""
    folder = tmp_path_factory.mktemp("matrix")
    write_tree(folder, images=8)
    dry = {"clean": (0, 1, 2), "derained_clean": (0, 1, 2)}
    first = Oracle(folder, rainy=(0,), derained=(0, 1), **dry)
    other = Oracle(folder, rainy=(1, 2), derained=(0, 1, 2), **(dry | {"clean": (0, 1)}))
    return comparisons(folder, {"A": first, "B": other})


@pytest.fixture(scope="module")
def matrix(sides):
    return build_matrix(sides, SETTINGS)


def test_cells_are_those_computed_by_hand(matrix):
    assert matrix.detectors == ["A", "B"]
    assert matrix.inputs == ["rainy", "flip", "clean", "flip on clean"]
    assert matrix.conditions == ["all", "day", "night"]
    a, b = by_label(matrix, "A"), by_label(matrix, "B")
    levels = [[row[name].mean_ap for name in matrix.inputs] for row in (a, b)]
    np.testing.assert_allclose(levels, [[1 / 3, 2 / 3, 1, 1], [2 / 3, 1, 2 / 3, 1]])
    changes = [[row[name].change.value for name in matrix.inputs] for row in (a, b)]
    assert changes[0][0] is changes[0][2] is None, "nothing to compare with"
    np.testing.assert_allclose(changes[0][1::2], [1 / 3, 0], atol=1e-12)
    np.testing.assert_allclose(changes[1], [1 / 3, 2 / 3, -1 / 3, 0], atol=1e-12)
    assert [[row[name].way for name in matrix.inputs] for row in (a, b)] == [
        ["nothing", "derain", "", ""],
        ["retrain", "both", "", ""],
    ]
    harm = b["clean"].change
    assert harm.low <= harm.value <= harm.high < 0
    assert b["flip"].ms_per_image > 0
    assert (a["rainy"].images, a["rainy"].boxes) == (8, b["flip"].boxes)


def test_cells_of_the_first_detector_are_those_of_its_own_report(tmp_path):
    """Same numbers and same intervals, so that the two pages never contradict."""
    write_tree(tmp_path)
    both = comparisons(
        tmp_path,
        {
            "A": Oracle(tmp_path, rainy=(0,), derained=(0, 1), clean=(1, 2), derained_clean=(0,)),
            "B": Oracle(tmp_path, rainy=(1,)),
        },
    )
    matrix = build_matrix(both, SETTINGS)
    for row in both["A"].table:
        cell = by_label(matrix, "A", row.condition)[row.label]
        assert cell.mean_ap == pytest.approx(row.mean_ap, abs=1e-12)
        if row.derainer:
            ends = (cell.change.value, cell.change.low, cell.change.high)
            expected = (row.change.value, row.change.low, row.change.high)
            assert ends == pytest.approx(expected, abs=1e-12)


def test_few_images_name_no_winner(matrix):
    verdict = matrix.verdicts[0]
    assert verdict.effect == "unclear"
    assert verdict.sentences[0].startswith("too few images to tell, 8 with 20 boxes: “both” ")


@pytest.mark.usefixtures("few_suffice")
def test_words_name_the_winner_only_beyond_noise(sides):
    matrix = build_matrix(sides, SETTINGS)
    verdict = matrix.verdicts[0]
    assert (verdict.best, verdict.next) == ("both", "derain"), "the first of two equal ones"
    assert verdict.lead.value == pytest.approx(1 / 3)
    first = "“both” (B with flip) wins with mAP 100.0, by 33.3 points ["
    assert verdict.sentences[0].startswith(first)
    assert "over the next, “derain” (A with flip), 66.7" in verdict.sentences[0]
    assert verdict.sentences[1].startswith("Against “nothing”: derain +33.3 points [")
    assert "retrain -33.3 points [" in verdict.sentences[2]
    assert "derain 0.0 points [0.0, 0.0]" in verdict.sentences[2]
    text = format_matrix(matrix, 60)
    assert "wins with mAP 100.0" in text
    assert max(map(len, text.partition("\n\nall images: ")[0].splitlines()[1:])) <= 60


@pytest.mark.usefixtures("few_suffice")
def test_equal_detectors_are_no_winners(tmp_path):
    write_tree(tmp_path, images=4)
    sight = {"rainy": (0,), "derained": (0,), "clean": (0, 1, 2), "derained_clean": (0, 1, 2)}
    twins = {name: Oracle(tmp_path, **sight) for name in ("A", "twin")}
    matrix = build_matrix(comparisons(tmp_path, twins), SETTINGS)
    for cell in by_label(matrix, "twin").values():
        assert (cell.change.value, cell.change.low, cell.change.high) == (0, 0, 0)
    for verdict in matrix.verdicts:
        assert verdict.sentences[0].startswith("no measurable difference between “nothing” (A), ")
    unsure = build_matrix(comparisons(tmp_path, twins), Settings(resamples=0))
    assert "without an interval to the next" in unsure.verdicts[0].sentences[0]
    assert unsure.verdicts[0].sentences[0].endswith("it may be chance.")


def test_only_classes_that_all_detectors_know_count(tmp_path):
    """The other detector lacks a class that the first one never finds: both then find all."""
    write_tree(tmp_path)
    two = {label: name for label, name in NAMES.items() if label < 2}
    sight = dict.fromkeys(("rainy", "derained", "clean", "derained_clean"), (0, 1))
    found = comparisons(
        tmp_path, {"A": Oracle(tmp_path, **sight), "B": Oracle(tmp_path, names=two, **sight)}
    )
    assert found["A"].table[0].mean_ap == pytest.approx(2 / 3)
    matrix = build_matrix(found, SETTINGS)
    assert matrix.classes == ["red thing", "green thing"]
    boxes = sum(a["category_id"] == 2 for a in found["A"].data.annotations)
    assert matrix.left_out == [f"blue thing ({boxes} boxes)"]
    assert matrix.notes == [
        f"the matrix counts what all detectors know alike: red thing, green thing; "
        f"left out: blue thing ({boxes} boxes)"
    ]
    cell = by_label(matrix, "A")["rainy"]
    assert cell.mean_ap == pytest.approx(1)
    assert cell.boxes == len(found["A"].data.annotations) - boxes


def test_a_class_that_stands_for_two_is_not_common():
    """A detector that calls vans cars has other cars than one that knows both."""
    car, van, man = ({"id": i, "image_id": 1, "category_id": i} for i in (1, 2, 3))
    apart = GroundTruth((1,), {1: "car", 2: "van", 3: "man"}, (car, van, man))
    together = GroundTruth((1,), {1: "car", 3: "man"}, (car, {**van, "category_id": 1}, man))
    assert common_categories([apart, together]) == {3: "man"}
    assert common_categories([apart, GroundTruth((2,), {3: "man"}, ())]) == {}


@pytest.fixture
def twin(tmp_path, detector):
    path = tmp_path / "other" / "tiny.pt"
    path.parent.mkdir()
    path.write_bytes(detector.read_bytes())
    return path


def test_a_run_with_two_detectors(tmp_path, detector, twin, capsys):
    """One of the images is broken: it is counted once, and out of everything."""
    file = write_tree(tmp_path / "set", images=3, conditions=False)
    path = tmp_path / "set" / "rainy" / "day_01.png"
    path.write_bytes(path.read_bytes()[:-20])
    out = tmp_path / "run"
    more = ["--derain", "none", "--no-control", "--no-breakdown", "--detector", str(detector)]
    with pytest.raises(DatasetError, match=r"finished on 2 images.*unreadable image, skipped: 1 "):
        main([*arguments(file, detector, out), *more, f"my twin={twin}"])
    printed = capsys.readouterr().out
    assert printed.index("detector tiny") < printed.index("detector my twin")
    assert "too few images to tell, 2 with" in printed
    assert "\n2 of 3 images\n" in printed
    assert printed.endswith(f"report: {out / 'report.html'}\n")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["schema"] == 1
    assert {row["detector"] for row in metrics["rows"]} == {"tiny", "my twin"}
    assert metrics["images_total"] == 3
    assert metrics["matrix"]["detectors"] == ["tiny", "my twin"]
    assert metrics["matrix"]["verdicts"][0]["delta_mAP"] == 0
    assert metrics["config"]["detector"] == {"tiny": str(detector), "my twin": str(twin)}
    cells = pd.read_csv(out / "matrix.csv", keep_default_na=False)
    assert cells.to_dict("list").keys() == metrics["matrix"]["cells"][0].keys()
    assert len(cells) == len(pd.read_csv(out / "metrics.csv")) == 2 * 4
    assert set(cells["images"]) == {2}
    assert metrics["notes"].count("unreadable image, skipped: 1 (day_01.png)") == 1
    assert yaml.safe_load((out / "config.yaml").read_text())["imgsz"] == {"tiny": 64, "my twin": 64}
    page = Page((out / "report.html").read_text())
    links = [a["href"] for a in page.all("a") if not a["href"].startswith("#")]
    assert links == ["detectors/tiny/report.html", "detectors/my%20twin/report.html"]
    for name in ("tiny", "my twin"):
        own = json.loads((out / "detectors" / name / "metrics.json").read_text())
        rows = [{k: v for k, v in r.items() if k != "detector"} for r in metrics["rows"]]
        assert all(row in rows for row in own["rows"])
        assert (out / "detectors" / name / "report.html").exists()


def test_mistakes_end_before_the_work(tmp_path, detector, twin):
    file = write_tree(tmp_path / "set", images=2)
    unlabelled = write_tree(tmp_path / "unlabelled", images=2, labels=None)
    out = tmp_path / "run"

    def fails(file, error, message, *detectors):
        with pytest.raises(error, match=message):
            main([*arguments(file, detector, out), "--detector", *detectors])
        assert not out.exists()

    fails(file, SpecError, "two detectors are called 'a'", f"a={detector}", f"a={twin}")
    message = "tiny has no boxes: several detectors need a truth"
    fails(unlabelled, DatasetError, message, str(detector), f"twin={twin}")
    content = yaml.safe_load(file.read_text()) | {"aliases": {"red thing": "lorry"}}
    file.write_text(yaml.safe_dump(content))
    message = "detector tiny-.*: alias 'red thing': the detector has no class 'lorry'"
    fails(file, DatasetError, message, str(detector), str(twin))
