"""`python -m detection.augment train` as users call it."""

import shutil

import pytest
import yaml
from ultralytics import YOLO
from ultralytics.utils import YAML
from ultralytics.utils.checks import check_yaml

from detection.augment.__main__ import main
from detection.yolo import training
from rainmer.errors import RainmerError
from rainmer.frames.images import write_image
from tests.detection.conftest import make_frame

FAST = [
    "epochs=1",
    "imgsz=64",
    "batch=2",
    "device=cpu",
    "plots=False",
    "val=False",
    "deterministic=False",  # which takes seconds to import
    "optimizer=SGD",
]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The weights of a YOLOv8 of a quarter of the smallest one's width."""
    folder = tmp_path_factory.mktemp("tiny")
    plan = YAML.load(check_yaml("yolov8.yaml")) | {"scales": {"n": [0.33, 0.0625, 1024]}}
    (folder / "yolov8n.yaml").write_text(yaml.safe_dump(plan))
    YOLO(folder / "yolov8n.yaml").save(folder / "tiny.pt")
    return folder / "tiny.pt"


@pytest.fixture
def folder(tmp_path, tiny, monkeypatch):
    """A folder with four pictures of 64 pixels, a detector, and nothing else."""
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        write_image(tmp_path / "images" / f"{i}.png", make_frame(48, 64, i))
        label = tmp_path / "labels" / f"{i}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text("0 0.5 0.5 0.4 0.4\n")
    write_set(tmp_path / "set.yaml", path=str(tmp_path), train="images", val="images")
    shutil.copy(tiny, "detector.pt")
    return tmp_path


def write_set(file, **fields):
    file.write_text(yaml.safe_dump({"names": ["thing"], **fields}))


def run(*more, data="set.yaml", model="detector.pt"):
    main(["train", "--data", data, "--model", model, "--out", "run", *more])


def test_a_run_passes_arguments_on_and_goes_on_where_it_was_interrupted(folder, monkeypatch):
    command = ["--rain", "day:1", "none:1", *FAST, "epochs=2", "seed=3"]
    epochs = []
    bind = training.RainTrainer.bind

    def bind_stopping(*args, **kwargs):
        class Stopping(bind(*args, **kwargs)):
            def save_model(self):
                super().save_model()
                epochs.append(self.epoch)
                if len(epochs) == 1:
                    raise KeyboardInterrupt

        return Stopping

    monkeypatch.setattr(training.RainTrainer, "bind", bind_stopping)
    with pytest.raises(KeyboardInterrupt):
        run(*command)
    run(*command)
    assert epochs == [0, 1]
    arguments = yaml.safe_load((folder / "run" / "args.yaml").read_text())
    assert (arguments["seed"], arguments["imgsz"], arguments["plots"]) == (3, 64, False)
    last = folder / "run" / "weights" / "last.pt"
    finished = last.read_bytes()
    run(*command)  # there is nothing left to do
    assert last.read_bytes() == finished
    with pytest.raises(RainmerError, match=r"other options \(rain\)"):
        run("--rain", "night:1", *command[3:])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rain dya:1", "no rain preset 'dya'"),
        ("--rain day", "no KIND:WEIGHT"),
        ("--rain day:1 day:2", "day is given twice"),
        ("--rain day:0 none:0", "one above 0"),
        ("--rain day:-1 none:2", "must be 0 or more"),
        ("--rain day:nan", "must be 0 or more"),
        ("--rain absent.yaml:1", "cannot read absent.yaml"),
        ("--rain typo.yaml:1", "typo.yaml: rain: rate: unknown key; did you mean 'rate_mm_h'"),
        ("epohcs=1", "no argument 'epohcs': did you mean 'epochs'?"),
        ("--rain day:1 epohcs=1", "did you mean 'epochs'?"),
        ("epochs=", "write key=value"),
        ("epochs=many", "'epochs=many' is of invalid type"),
        ("mosaic=7", "between 0.0 and 1.0"),
        ("project=x", "give --out"),
        ("optimizer=Nought", "Optimizer 'Nought' not found"),
    ],
)
def test_wrong_options_are_one_line(folder, words, message):
    (folder / "typo.yaml").write_text("rate: 3\n")
    with pytest.raises(RainmerError) as caught:
        run(*FAST, *words.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (None, "does not exist"),
        ({"val": "images"}, "'train:' key missing"),
        ({"train": None, "val": "images"}, "train: there is none"),
        ({"train": "absent", "val": "images"}, "train: no folder or list"),
        ({"train": "damaged", "val": "damaged"}, "No valid images found"),
        ({"train": "labels", "val": "images"}, "Error loading data from"),
        ({"train": "x", "val": "x", "download": "open('ran', 'w')"}, "images not found"),
    ],
)
def test_data_that_cannot_be_trained_on_is_one_line(folder, fields, message):
    (folder / "damaged").mkdir()
    (folder / "damaged" / "0.png").write_bytes(b"nonsense")
    if fields is not None:
        write_set(folder / "wrong.yaml", path=str(folder), **fields)
    with pytest.raises(RainmerError) as caught:
        run(*FAST, data="wrong.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder / "ran").exists()


def test_nothing_is_downloaded_unless_asked(folder):
    with pytest.raises(RainmerError, match="--allow-download"):
        run(*FAST, model="yolo11n.pt")
    with pytest.raises(RainmerError, match="only fetched with --allow-download"):
        run(*FAST, data="https://example.com/set.zip")
