"""What careless or hostile users give to the commands: one line, exit code 2, nothing half-done."""

import importlib
import json
import os
import pickle
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from eval.sets import load_set
from rainmer import Derainer
from rainmer.cli import run_command
from rainmer.errors import RainmerError
from rainmer.frames.images import read_image, write_image
from tests.eval.trees import write_tree

INPUTS = {
    "detection": "{} --derain none --detector none.pt --out out",
    "eval.detect": "--data {} --derain none --detector none.pt --out out",
    "eval.footage": "{} --derain none --detector none.pt --out out",
    "eval.restore": "--sets a=folders:{} --derain none --out out",
    "eval.sets": "write {} --adapter coco --out out",
    "rainmer.align": "measure a:{}/rainy:{}/clean --out out",
    "rainmer.data.layouts": "check rain100L:{}",
    "rainmer.derain": "{} --derain none --out out",
    "rainmer.rain": "{} --out out --preset day",
    "rainmer.train": "--config {} --out out",
}
"""The command lines around an input, of the commands that look at it before any weights."""

ODD_NAMES = (
    "with space.png",
    "ünïcödé 雨.png",
    "br[ack]et{s}*?.png",
    "-dash.png",
    "per%cent%s%d.png",
    "new\nline.png",
    "quote'\".png",
    "a.b.c.png",
    "<script>alert(1)<.png",
    "$HOME;ls.png",
)


@pytest.fixture
def type_in(monkeypatch, capsys):
    """Run a command as its module does; return its exit code and the lines on stderr."""

    def run(command, *arguments):
        monkeypatch.setattr(sys, "argv", [command, *map(str, arguments)])
        capsys.readouterr()
        try:
            run_command(importlib.import_module(f"{command}.__main__").main)
        except SystemExit as end:
            return end.code, capsys.readouterr().err.strip().splitlines()
        return 0, capsys.readouterr().err.strip().splitlines()

    return run


def picture(seed=0, size_hw=(12, 16)):
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8)


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (command, option)
        for command, own in {
            "eval.detect": (
                "--conf nan", "--pseudo-conf -1", "--imgsz 0", "--seed text", "--resamples x",
                "--conditions", "--overlap nan",
            ),
            "rainmer.derain": ("--suffix gif", "--suffix a/b", "--precision int8"),
            "detection": ("--iou 2", "--max-det 0", "--conf x", "--where nowhere"),
        }.items()
        for option in (*own, "--limit 0", "--limit -1", "--batch 0", "--tile 0", "--nonsense")
    ],
)  # fmt: skip
def test_options_out_of_range_are_named(type_in, tmp_path, command, option):
    needed = {
        "eval.detect": [],
        "rainmer.derain": [tmp_path, "--out", tmp_path / "out"],
        "detection": [tmp_path, "--derain", "none", "--detector", "none.pt"],
    }[command]
    code, lines = type_in(command, *needed, *option.split())
    assert code == 2
    assert option.split()[0] in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert not (tmp_path / "out").exists()


# --- derainers ------------------------------------------------------------------------------------


class _Bomb:
    """A pickle of this creates the file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("network", ["prenet", "rainmer"])
@pytest.mark.parametrize("as_checkpoint", [True, False])
def test_weights_that_would_run_code_are_refused_and_do_not_run(
    type_in, tmp_path, network, as_checkpoint
):
    proof, weights = tmp_path / "ran", tmp_path / "bomb.pth"
    if as_checkpoint:
        torch.save({"model": _Bomb(proof)}, weights)
    else:
        weights.write_bytes(pickle.dumps(_Bomb(proof), protocol=2))
    write_image(tmp_path / "a.png", picture())
    spec = f"{network}:{weights}"
    code, lines = type_in(
        "rainmer.derain", tmp_path / "a.png", "--out", tmp_path / "out", "--derain", spec
    )
    assert code == 2
    assert len(lines) == 1
    assert "bomb.pth is refused" in lines[0]
    assert not proof.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "unknown derainer ''"),
        (":", "unknown derainer ':'"),
        ("rainmer:", "unknown derainer 'rainmer:'"),
        ("NONE", "unknown derainer 'NONE'"),
        ("prenet:{here}", "is a folder, not a weights file"),
        ("prenet:{here}/loop.pth", "cannot read the weights"),
        ("torchscript:{here}", "no file"),
        ("results:{here}/a.png", "no such folder"),
        ("python:os", "expected python:module:callable"),
        ("python:os:path", "is not callable"),
        ("python:os.nothing:f", "python:os.nothing:f failed: ModuleNotFoundError"),
    ],
)
def test_specs_that_name_nothing(type_in, tmp_path, spec, message):
    write_image(tmp_path / "a.png", picture())
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    given = spec.format(here=tmp_path)
    code, lines = type_in(
        "rainmer.derain", tmp_path / "a.png", "--out", tmp_path / "out", "--derain", given
    )
    assert code == 2
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "b.png").unlink(), "no image is named b"),
        (lambda folder: write_image(folder / "b.png", picture(1, (5, 6))), "6x5 pixels"),
        (
            lambda folder: (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:90]),
            "truncated",
        ),
        (lambda folder: write_image(folder / "b.bmp", picture(1)), "2 images are named b"),
    ],
)
def test_results_that_do_not_fit_are_named_and_nothing_wrong_is_written(
    type_in, tmp_path, spoil, message
):
    for number, name in enumerate("abc"):
        write_image(tmp_path / "rainy" / f"{name}.png", picture(number))
        write_image(tmp_path / "results" / f"{name}.png", picture(number))
    spoil(tmp_path / "results")
    spec = f"results:{tmp_path / 'results'}"
    code, lines = type_in(
        "rainmer.derain", tmp_path / "rainy", "--out", tmp_path / "out", "--derain", spec, "--quiet"
    )
    assert code == 2
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out" / "b.png").exists()


# --- what is given and where results go -----------------------------------------------------------


@pytest.mark.parametrize("given", ["missing", "empty", "text.txt", "nothing.yaml", "dir.yaml"])
@pytest.mark.parametrize("command", INPUTS)
def test_inputs_that_are_none(type_in, tmp_path, monkeypatch, command, given):
    (tmp_path / "empty").mkdir()
    (tmp_path / "dir.yaml").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "nothing.yaml").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    code, lines = type_in(command, *INPUTS[command].replace("{}", given).split())
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert given in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "line",
    [
        "eval.restore --sets a=folders:good --derain none --out {}",
        "eval.street --out {} --scenes 2",
        "rainmer.align crop --rainy good/input --clean good/target --out {} --size 8",
        "rainmer.align measure a:good/input:good/target --out {}",
        "rainmer.derain good --derain none --out {}",
        "rainmer.rain good --preset day --out {}",
    ],
)
@pytest.mark.parametrize("out", ["file", "file/below", "/proc/none"])
def test_results_that_have_no_place(type_in, tmp_path, monkeypatch, line, out):
    write_image(tmp_path / "good" / "input" / "a.png", picture())
    write_image(tmp_path / "good" / "target" / "a.png", picture(1))
    (tmp_path / "file").write_text("precious")
    monkeypatch.chdir(tmp_path)
    code, lines = type_in(*line.format(out).split(), "--quiet")
    assert code == 2
    assert len(lines) == 1
    assert out in lines[0]
    assert (tmp_path / "file").read_text() == "precious"


# --- files ----------------------------------------------------------------------------------------


def test_odd_names_keep_their_names(type_in, tmp_path):
    for number, name in enumerate(ODD_NAMES):
        write_image(tmp_path / "in" / "sub dir" / name, picture(number))
    code, lines = type_in(
        "rainmer.derain", tmp_path / "in", "--out", tmp_path / "out", "--derain", "none", "--quiet"
    )
    assert (code, lines) == (0, [])
    for number, name in enumerate(ODD_NAMES):
        assert np.array_equal(read_image(tmp_path / "out" / "sub dir" / name), picture(number))


def test_a_name_with_glob_characters_is_a_name_first(type_in, tmp_path, monkeypatch):
    for name in ("b[a]r.png", "-dash.png", "bar.png"):
        write_image(tmp_path / name, picture())
    monkeypatch.chdir(tmp_path)
    more = ("--out", "out", "--derain", "none", "--quiet")
    assert type_in("rainmer.derain", "b[a]r.png", *more) == (0, [])
    assert files_below(tmp_path / "out") == [".derain.json", "b[a]r.png"]
    assert type_in("rainmer.derain", *more, "--", "-dash.png") == (0, [])
    assert (tmp_path / "out" / "-dash.png").exists()


def test_links_that_lead_nowhere_or_in_circles_end(type_in, tmp_path):
    folder = tmp_path / "in"
    write_image(folder / "ok.png", picture())
    (folder / "circle").symlink_to(folder)
    (folder / "self.png").symlink_to("self.png")
    more = ("--out", tmp_path / "out", "--derain", "none", "--quiet")
    code, lines = type_in("rainmer.derain", folder, *more)
    assert code == 2
    assert len(lines) == 1
    assert "1 of 2 files could not be read in full" in lines[0]
    assert "self.png: Too many levels" in lines[0]
    assert files_below(tmp_path / "out") == [".derain.json", "ok.png"]
    code, lines = type_in("rainmer.derain", folder / "self.png", *more)
    assert code == 2
    assert "no file or folder" in lines[0]


@pytest.mark.parametrize("mode", ["P", "LA", "1", "I;16", "RGBA"])
@pytest.mark.parametrize("size_hw", [(1, 1), (3, 700)])
def test_png_of_every_mode_and_extreme_size(type_in, tmp_path, mode, size_hw):
    gray = Image.fromarray(picture(0, size_hw)).convert("L")
    image = Image.fromarray(picture(0, size_hw))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    image.save(tmp_path / "a.png")
    arguments = (tmp_path / "a.png", "--out", tmp_path / "out", "--derain", "median", "--quiet")
    assert type_in("rainmer.derain", *arguments) == (0, [])
    assert read_image(tmp_path / "out" / "a.png").shape == (*size_hw, 3)


def test_a_suffix_that_lies_is_no_harm(type_in, tmp_path):
    write_image(tmp_path / "true.png", picture())
    (tmp_path / "lies.bmp").write_bytes((tmp_path / "true.png").read_bytes())
    arguments = (tmp_path / "lies.bmp", "--out", tmp_path / "out", "--derain", "none", "--quiet")
    assert type_in("rainmer.derain", *arguments) == (0, [])
    assert np.array_equal(read_image(tmp_path / "out" / "lies.bmp"), picture())


# --- sets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds nothing"),
        (b"\xff\xfe\x00a", "is not valid YAML"),
        (b"name:\tx\n\t- a: [", "is not valid YAML"),
        (b"name: !!python/object/apply:os.mkdir [ran]", "is not valid YAML"),
        (b"name: a", "give either `rainy`"),
        (b"{name: a, rainy: 3}", "rainy: expected str"),
        (b"{name: a, rainy: [x]}", "rainy: expected str"),
        (b"{name: a, rainy: null}", "give either `rainy`"),
        (b"{name: 5, rainy: rainy}", "name: expected str"),
        (b"{name: a, rainy: rainy, 1: 2}", "1: unknown key"),
        (b"{name: a, rainy: rainy, conditions: [day]}", "conditions: expected"),
        (b"{name: a, rainy: rainy, conditions: &x {a: *x}}", "conditions.a"),
        (b"{name: a, rainy: set.yaml, annotations: instances.json}", "no folder"),
        (b"{name: a, rainy: empty, annotations: instances.json}", "holds no image"),
        (b"{name: a, rainy: rainy, annotations: rainy, names: person}", "names: expected"),
        (b"{name: a, rainy: rainy, annotations: rainy, names: {a: b}}", "no class number"),
    ],
)
def test_set_files_of_the_wrong_form(type_in, tmp_path, monkeypatch, content, message):
    file = write_tree(tmp_path, images=1)
    (tmp_path / "empty").mkdir()
    file.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    code, lines = type_in("eval.detect", "--data", file, "--detector", "none.pt", "--derain")
    assert code == 2
    assert len(lines) == 1
    assert str(tmp_path) in lines[0]
    assert message in lines[0]
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "runs").exists()


def test_absolute_paths_and_a_byte_order_mark(tmp_path):
    file = write_tree(tmp_path, images=2)
    relative = load_set(file)
    content = yaml.safe_load(file.read_text())
    content |= {key: str(tmp_path / content[key]) for key in ("rainy", "clean", "annotations")}
    file.write_bytes(b"\xef\xbb\xbf" + yaml.safe_dump(content).encode())
    absolute = load_set(file)
    assert absolute.samples == relative.samples
    assert absolute.annotations == relative.annotations


ODD_COCO = {
    "no annotation ids": lambda c: [a.pop("id") for a in c["annotations"]],
    "null as area": lambda c: c["annotations"][0].update(area=None),
    "a category id as a float": lambda c: c["annotations"][0].update(category_id=float(
        c["annotations"][0]["category_id"])),
    "no height": lambda c: c["images"][0].update(height=None),
    "boxes as strings": lambda c: [
        a.update(bbox=list(map(str, a["bbox"]))) for a in c["annotations"]],
    "a height as a string": lambda c: c["images"][0].update(height="48"),
    "null as attributes": lambda c: c["images"][0].update(attributes=None),
    "folders in the names": lambda c: [
        i.update(file_name=f"images\\val/{i['file_name']}") for i in c["images"]],
}  # fmt: skip


@pytest.mark.parametrize("what", ODD_COCO)
def test_odd_but_usable_coco_files_give_the_same_boxes(tmp_path, what):
    file = write_tree(tmp_path, images=3, conditions=False)
    before = load_set(file)
    path = tmp_path / "instances.json"
    content = json.loads(path.read_text())
    ODD_COCO[what](content)
    path.write_text(json.dumps(content))
    after = load_set(file)
    assert not after.defects.error_lines()
    assert [a["bbox"] for a in after.annotations] == [a["bbox"] for a in before.annotations]
    assert [a["area"] for a in after.annotations] == [a["area"] for a in before.annotations]


@pytest.mark.parametrize(
    "bbox", [None, ["1,5", "2", "3", "4"], [1, 1, -3, 4], [1, 1, 3, float("inf")]]
)
def test_boxes_that_are_none(tmp_path, bbox):
    file = write_tree(tmp_path, images=2)
    path = tmp_path / "instances.json"
    content = json.loads(path.read_text())
    content["annotations"][0].update(bbox=bbox)
    path.write_text(json.dumps(content))
    assert any(line.startswith("malformed box: 1") for line in load_set(file).defects.error_lines())


@pytest.mark.parametrize("role", ["rainy", "clean"])
def test_images_that_differ_only_in_suffix_or_case_are_counted(tmp_path, role):
    file = write_tree(tmp_path, images=2)
    write_image(tmp_path / role / "NIGHT_00.bmp", picture())
    errors = load_set(file).defects.error_lines()
    assert any(e.startswith(f"{role} images that differ only in suffix or case") for e in errors)


# --- from Python ----------------------------------------------------------------------------------


def _read_only(frame):
    frame = frame.copy()
    frame.flags.writeable = False
    return frame


VIEWS = {
    "columns first": np.asfortranarray,
    "upside down": lambda frame: frame[::-1],
    "mirrored": lambda frame: frame[:, ::-1],
    "BGR": lambda frame: frame[..., ::-1],
    "every other pixel": lambda frame: frame[::2, ::2],
    "read-only": _read_only,
    "one row repeated": lambda frame: np.broadcast_to(frame[:1], frame.shape),
    "a masked array": lambda frame: np.ma.masked_array(frame, frame > 99),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", ">f4"])
def test_arrays_of_any_memory_order(view, dtype):
    frame = VIEWS[view](picture(size_hw=(14, 18)))
    if dtype != "uint8":
        frame = (frame / 255.0).astype(dtype)
    derainer = Derainer("median", device="cpu")
    expected = derainer(np.ascontiguousarray(np.asarray(frame)))
    assert np.array_equal(derainer(frame), expected)
    assert all(np.array_equal(out, expected) for out in derainer([frame, frame]))


@pytest.mark.parametrize(
    "bad",
    [
        picture() > 99,
        picture().astype(np.uint16),
        picture().astype(np.int8),
        picture().astype(object),
        picture().astype(complex),
        torch.ones(3, 8, 8, dtype=torch.bool),
        torch.zeros(3, 8, 8, dtype=torch.complex64),
        torch.zeros(8, 8, 3),
        np.zeros((1, 1, 8, 8, 3), np.uint8),
        [picture()[None]],
        [[1, 2]],
        torch.zeros(3, 0, 5),
    ],
    ids=lambda bad: f"{type(bad).__name__}-{getattr(bad, 'dtype', '')}",
)
def test_what_is_no_frame_is_refused(bad):
    with pytest.raises(RainmerError):
        Derainer("none", device="cpu")(bad)


def test_nothing_gives_nothing_and_a_generator_is_a_sequence():
    derainer = Derainer("none", device="cpu")
    assert derainer([]) == derainer(()) == []
    assert derainer(np.zeros((0, 4, 4, 3), np.uint8)).shape == (0, 4, 4, 3)
    assert [out.shape for out in derainer(picture(n) for n in range(2))] == [(12, 16, 3)] * 2


def test_a_callable_that_works_in_place_leaves_the_input_alone():
    derainer = Derainer(lambda batch: batch.mul_(0.5), device="cpu")
    tensor = torch.rand(2, 3, 8, 8, requires_grad=True)
    for given in (tensor, tensor.detach(), tensor[0], picture(), picture() / 255.0):
        copy = given.clone() if isinstance(given, torch.Tensor) else given.copy()
        derainer(given)
        assert (given == copy).all()


@pytest.mark.parametrize("returned", ["numpy", "None", "smaller"])
def test_callables_that_break_their_promise_are_named(type_in, tmp_path, monkeypatch, returned):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"promise_{returned}.py").write_text(
        "def numpy(batch): return batch.numpy()\n"
        "def None_(batch): return None\n"
        "def smaller(batch): return batch[..., 1:]\n"
    )
    name = "None_" if returned == "None" else returned
    write_image(tmp_path / "a.png", picture())
    spec = f"python:promise_{returned}:{name}"
    more = ("--out", tmp_path / "out", "--derain", spec, "--quiet")
    code, lines = type_in("rainmer.derain", tmp_path / "a.png", *more)
    assert code == 2
    assert len(lines) == 1
    assert f"{name} must return a floating-point tensor" in lines[0]
    assert not (tmp_path / "out" / "a.png").exists()
