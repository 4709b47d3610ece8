"""Ctrl-C, `kill` and `kill -9`: nothing is half-written, and the same command goes on."""

import csv
import http.client
import json
import shutil
import signal
import socket
import threading
import time

import pytest
import torch
import yaml

from rainmer.frames.images import encode_image, write_image
from rainmer.frames.video import VideoWriter
from rainmer.models import Rainmer, RainmerConfig, save_weights
from tests.commands import start
from tests.eval.trees import NAMES, scene, write_tree
from tests.rainmer.align.test_align_command import night_tree, pair_tree
from tests.rainmer.train.conftest import TINY

CODES = {signal.SIGINT: {130}, signal.SIGTERM: {130, 143}, signal.SIGKILL: {-9}}
SAID = "interrupted; results so far are kept, the same command resumes"
SLOW = "python:tests.contract.slow:derain"
GROWING = (".jsonl", ".csv", "curves.png", "run.json", ".partial.mp4")
OF_THE_RUN = ("ms", "elapsed", "wall", "frames_per_s", "date", "environment", "config", "seconds")


def derain_images(root):
    for number in range(12):
        write_image(root / "in" / f"{number}.png", scene(number)[0])
    return "rainmer.derain", "in", "--out", "out", "--derain", SLOW, "--batch", 1


def derain_video(root):
    write_clip(root / "in.mp4", 30)
    return "rainmer.derain", "in.mp4", "--out", "out", "--derain", SLOW, "--batch", 2


def render_images(root):
    for number in range(8):
        write_image(root / "in" / f"{number}.png", scene(number)[0])
    return "rainmer.rain", "in", "--out", "out", "--preset", "day"


def render_video(root):
    write_clip(root / "in.mp4", 12)
    return "rainmer.rain", "in.mp4", "--out", "out", "--preset", "day"


def crop(root):
    night_tree(root / "in")
    return "rainmer.align", "crop", "in", "--out", "out", "--size", 12


def measure(root):
    pair_tree(root / "in", 24)
    return "rainmer.align", "measure", "mine:in/rainy:in/clean", "--out", "out"


def views(root):
    torch.manual_seed(0)
    save_weights(root / "tiny.safetensors", Rainmer(RainmerConfig(**TINY_VIEWS)))
    for name in ("a", "b"):
        for number in range(8):
            write_image(root / name / f"{number}.png", scene(number)[0])
    sets = ("--sets", "a:a", "b:b", "--method", "pca")
    return "rainmer.views", "--derain", "rainmer:tiny.safetensors", *sets, "--out", "out"


TINY_VIEWS = {"dim": 8, "base_dim": 16, "num_blocks": (1, 1, 1, 1)}


def train(root):
    for number in range(6):
        clean, rainy = scene(number)[0], scene(number)[0]
        rainy[:, number::9] = 255
        write_image(root / "pairs" / "input" / f"{number}.png", rainy)
        write_image(root / "pairs" / "target" / f"{number}.png", clean)
    config = {
        "name": "tiny",
        "variant": "chralpha",
        "model": dict(TINY),
        "data": {
            "pairs": {"columns": {"root": "pairs"}}, "query": 32, "negatives": 2, "threads": 0,
        },
        "stages": [{"steps": 12, "crop": 16, "batch": 2, "crops_per_frame": 2}],
        "archive": 8,
        "ema": 0.9,
        "save_every": 2,
        "log_every": 1,
    }  # fmt: skip
    (root / "tiny.yaml").write_text(yaml.safe_dump(config))
    return "rainmer.train", "--config", "tiny.yaml", "--out", "out", "--device", "cpu"


def detect_images(root):
    for number in range(8):
        write_image(root / "in" / f"{number}.png", scene(number)[0])
    return "detection", "in", "--derain", SLOW, *detector(root), "--out", "out", "--save"


def detect_video(root):
    write_clip(root / "in.mp4", 20)
    return "detection", "in.mp4", "--derain", SLOW, *detector(root), "--out", "out", "--save"


def measure_detection(root):
    file = write_tree(root / "set")
    options = ("--derain", SLOW, "--resamples", 20, "--cache", "cache")
    return "eval.detect", "--data", file, *detector(root), *options, "--out", "out"


def look_at_footage(root):
    write_clip(root / "in.mp4", 24)
    options = ("--derain", SLOW, "--resamples", 20, "--clip", 1, "--label-next", 2)
    return "eval.footage", "in.mp4", *detector(root), *options, "--out", "out"


def relate(root):
    sets = [write_tree(root / name, conditions=False) for name in ("one", "two")]
    for name, file in zip(("one", "two"), sets, strict=True):
        file.write_text(file.read_text().replace("tiny", name))
    options = ("--derain", SLOW, "--resamples", 20, "--cache", "cache")
    return "eval.relation", "--sets", *sets, *detector(root), *options, "--out", "out"


def restore(root):
    for number in range(8):
        write_image(root / "set" / "input" / f"{number}.png", scene(number)[0])
        write_image(root / "set" / "target" / f"{number}.png", scene(number)[0] // 2)
    options = ("--derain", SLOW, "--resamples", 20, "--cache", "cache", "--batch", 1)
    return "eval.restore", "--sets", "mine=folders:set", *options, "--out", "out"


def write_sets(root):
    write_tree(root / "in", images=8, labels="yolo")
    names = ("--names", "a", "b", "c")
    where = ("--images", "in/rainy", "--annotations", "in/labels")
    return "eval.sets", "write", "in", "--adapter", "yolo", *where, *names, "--out", "out"


def street(root):
    return "eval.street", "--out", "out", "--scenes", 4, "--processes", 1


def write_clip(path, frames):
    with VideoWriter(path, fps=5, size_hw=(48, 64)) as writer:
        for number in range(frames):
            writer.write(scene(number)[0])


def detector(root):
    """Save a small detector of random weights and return the options that take it."""
    from ultralytics import YOLO
    from ultralytics.utils import ROOT as PACKAGE

    shape = yaml.safe_load((PACKAGE / "cfg/models/v8/yolov8.yaml").read_text())
    shape |= {"nc": len(NAMES), "scales": {"n": [0.33, 0.0625, 256]}}
    (root / "yolov8n-tiny.yaml").write_text(yaml.safe_dump(shape))
    yolo = YOLO(root / "yolov8n-tiny.yaml")
    yolo.model.names = dict(NAMES)
    yolo.save(root / "tiny.pt")
    return "--detector", "tiny.pt", "--imgsz", 64, "--device", "cpu"


QUICK = (derain_images, restore)
ALL = (
    *QUICK, derain_video, render_images, render_video, crop, measure, views, train, detect_images,
    detect_video, measure_detection, look_at_footage, relate, write_sets, street,
)  # fmt: skip


def content(path):
    """Return what a file says apart from times; damaged files raise."""
    if path.suffix == ".json":
        return without_times(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [without_times(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [without_times(row) for row in csv.DictReader(file)]
    if path.suffix in (".html", ".svg"):
        return path.read_text().rstrip()[-6:]
    return None if path.suffix in (".pt", ".yaml", ".safetensors") else path.read_bytes()


def without_times(plain):
    if isinstance(plain, dict):
        return {
            key: without_times(value)
            for key, value in plain.items()
            if not any(word in str(key) for word in OF_THE_RUN)
        }
    return [without_times(item) for item in plain] if isinstance(plain, list) else plain


def results(folder):
    """Return the contents of all files of a run by name, but those under temporary names."""
    return {
        path.relative_to(folder).as_posix(): content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and "tensorboard" not in path.parts
    }


def temporary(folder):
    return [path for path in folder.rglob(".*-????????*") if path.is_file()]


class Bench:
    """A command with its inputs, and what it gives when nothing interrupts it."""

    def __init__(self, root, prepare):
        self.root = root
        self.command, *self.arguments = prepare(root)
        begun = time.monotonic()
        run = start(root, self.command, *self.arguments)
        assert run.end() == 0, run.said
        self.duration_s = time.monotonic() - begun
        self.results = results(root / "out")

    def check(self, number, wait):
        """Interrupt the command once `wait` returns, run it again, and compare the results."""
        for name in ("out", "cache"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        run = start(self.root, self.command, *self.arguments)
        wait(run)
        code = run.send(number)
        begun = results(self.root / "out")
        # At the very end, when all is written, nothing handles a signal any more.
        assert code in {0, *CODES[number]} or begun == self.results, (code, run.said)
        if code in CODES[number] and number != signal.SIGKILL:
            assert [line for line in run.said if not line.startswith("\r")][-1] == SAID
            assert not any("Traceback" in line for line in run.said)
            assert not temporary(self.root / "out")
        for name, text in begun.items():
            if not name.endswith(GROWING):
                assert text == self.results[name], name
        again = start(self.root, self.command, *self.arguments)
        assert again.end() == 0, again.said
        assert results(self.root / "out") == self.results


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    made = {}

    def bench(prepare):
        if prepare not in made:
            made[prepare] = Bench(tmp_path_factory.mktemp(prepare.__name__), prepare)
        return made[prepare]

    return bench


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("prepare", QUICK)
def test_after_the_first_result(benches, prepare, number):
    pattern = {derain_images: "out/*.png", restore: "out/rows/*"}[prepare]
    benches(prepare).check(number, lambda run: run.wait_for(pattern))


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_a_server_answers_what_is_in_flight(tmp_path, number):
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ("--derain", SLOW, *detector(tmp_path), "--port", port)
    run = start(tmp_path, "detection.serve", *arguments)
    run.wait_for_text("ready on http://127.0.0.1:")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    images = [encode_image(scene(0)[0][:, : 20 + i], ".png") for i in range(16)]
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="i"; filename="{i}"\r\n\r\n'.encode() + image
        for i, image in enumerate(images)
    ]
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    connection.request("POST", "/v1/derain", b"\r\n".join([*parts, b"--x--\r\n"]), kind)
    time.sleep(0.2)
    ended = threading.Thread(target=run.send, args=(number,))
    ended.start()
    answers = json.loads(connection.getresponse().read())["images"]
    ended.join()
    assert ["image" in answer for answer in answers] == [True] * 16
    assert run.process.exitcode == 0
    assert run.printed.decode().endswith("stopped after 1 requests\n")
    assert run.said == []


@pytest.mark.slow
@pytest.mark.parametrize("prepare", ALL)
def test_in_the_middle(benches, prepare):
    bench = benches(prepare)
    moments = (
        (signal.SIGINT, 0.0), (signal.SIGINT, 0.4), (signal.SIGTERM, 0.6), (signal.SIGKILL, 0.3),
        (signal.SIGKILL, 0.8),
    )  # fmt: skip
    for number, share in moments:
        bench.check(number, lambda _, s=share: time.sleep(s * bench.duration_s))
