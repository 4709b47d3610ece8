"""Specs: what a user may write after --derain, and what happens when it is wrong."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from rainmer import Derainer
from rainmer.errors import ImageError, RainmerError, SpecError, WeightsError
from rainmer.frames.images import write_image
from rainmer.stage.results import PrecomputedResults, make_derainer, open_results
from tests.numerics import rounding


def frame(height=12, width=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Make a module of the user's importable; returns a function that writes it."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text, name="mine"):
        (tmp_path / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
        return f"python:{name}:"

    return write


def test_a_function_of_ones_own(own_module):
    spec = own_module("def halve(batch):\n    return batch * 0.5\n") + "halve"
    derainer = Derainer(spec, device="cpu")
    assert derainer.name == "halve"
    image = frame()
    assert np.abs(derainer(image) - image / 2.0).max() <= 1


def test_a_class_of_ones_own_is_made_without_arguments(own_module):
    text = "class Half:\n    def __call__(self, batch):\n        return batch * 0.5\n"
    assert Derainer(own_module(text) + "Half", device="cpu")(frame()).max() <= 128


def test_code_that_may_have_changed_is_not_cached_unless_it_has_a_fingerprint(own_module):
    text = "def f(batch):\n    return batch\n"
    one, two = (Derainer(own_module(text) + "f", device="cpu") for _ in range(2))
    assert not one.cacheable
    assert one.fingerprint != two.fingerprint
    text += "f.fingerprint = 'v1'\n"
    one, two = (Derainer(own_module(text) + "f", device="cpu") for _ in range(2))
    assert one.cacheable
    assert one.fingerprint == two.fingerprint
    assert Derainer("median", device="cpu").cacheable


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_that_name", "No module named"),
        ("def g(batch): ...", "no attribute 'f'"),
        ("f = 3", "not callable"),
        ("raise SystemExit(3)", "SystemExit"),
        ("def f(", "SyntaxError"),
        ("class f:\n    def __init__(self, needed): ...\n    def __call__(self, b): ...", "needed"),
    ],
)
def test_modules_that_cannot_be_used(own_module, text, message):
    with pytest.raises(SpecError, match=message):
        Derainer(own_module(text) + "f", device="cpu")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise KeyError('x')", "f failed: KeyError"),
        ("return batch[:, :1]", "must return a floating-point tensor"),
        ("return (batch * 255).byte()", "uint8"),
        ("return batch.long()", "int64"),
        ("return None", "NoneType"),
        ("return batch * float('nan')", "not finite"),
    ],
)
def test_functions_that_break_their_promise(own_module, body, message):
    derainer = Derainer(own_module(f"def f(batch):\n    {body}\n") + "f", device="cpu")
    with pytest.raises(RainmerError, match=message):
        derainer(frame())


@pytest.mark.parametrize("spec", ["python:", "python:os", "python::f", "python:.mine:f"])
def test_incomplete_python_specs(spec):
    with pytest.raises(SpecError):
        Derainer(spec, device="cpu")


@pytest.mark.parametrize("spec", ["", "medain", "prenet:", "rainmr:w.pth", "results:", "spandrel:"])
def test_unknown_specs_list_what_is_known(spec):
    with pytest.raises(SpecError, match="expected one of rainmer-s, none, median, NETWORK:WEIGHTS"):
        Derainer(spec, device="cpu")


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("rainmer", "did you mean rainmer-s?"),
        ("rainmr:w.pth", "did you mean rainmer:?"),
        ("a/PReNet_h.pth", "as in prenet:a/PReNet_h.pth"),
        ("rainmer-s.safetensors", "as in rainmer:rainmer-s.safetensors"),
        ("net.onnx", "as in onnx:net.onnx"),
        ("prenet", "it needs its weights, prenet:FILE"),
        ("medain", "NETWORK is one of airnet, brn,"),
    ],
)
def test_unknown_specs_say_what_was_meant(spec, meant):
    with pytest.raises(SpecError) as told:
        Derainer(spec, device="cpu")
    assert meant in str(told.value)


def test_the_user_s_module_may_lie_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "of_the_working_folder.py").write_text("def f(batch):\n    return batch\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert Derainer("python:of_the_working_folder:f", device="cpu").name == "f"


def test_torchscript(tmp_path):
    class Half(nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return batch * 0.5

    torch.jit.script(Half()).save(str(tmp_path / "half.ts"))
    derainer = Derainer(f"torchscript:{tmp_path / 'half.ts'}", device="cpu")
    image = frame(13, 17)  # no multiple of 8: padded and cropped
    restored = derainer(image)
    assert restored.shape == image.shape
    assert np.abs(restored - image / 2.0).max() <= 1
    (tmp_path / "text.ts").write_text("no module")
    with pytest.raises(WeightsError, match="not a TorchScript file"):
        Derainer(f"torchscript:{tmp_path / 'text.ts'}", device="cpu")
    with pytest.raises(WeightsError, match="no file"):
        Derainer("torchscript:none.ts", device="cpu")


def write_results(folder, *names):
    for seed, name in enumerate(names):
        write_image(folder / name, frame(seed=seed))
    return PrecomputedResults(folder)


def test_results_are_matched_by_name_whatever_the_suffix(tmp_path):
    derainer = write_results(tmp_path, "a.png", "b.png")
    assert derainer.needs_names
    restored = derainer([frame(seed=9), frame(seed=9)], names=["b.jpg", "A.jpg"])
    np.testing.assert_array_equal(restored[0], frame(seed=1))
    np.testing.assert_array_equal(restored[1], frame(seed=0))


def test_results_in_subfolders_are_matched_by_path(tmp_path):
    derainer = write_results(tmp_path, "day/01.png", "night/01.png")
    restored = derainer([frame(seed=9)] * 2, names=["night/01.png", "day/01.png"])
    np.testing.assert_array_equal(restored[0], frame(seed=1))
    np.testing.assert_array_equal(restored[1], frame(seed=0))


def test_a_result_is_never_taken_from_another_folder(tmp_path):
    derainer = write_results(tmp_path, "day/01.png", "night/02.png")
    with pytest.raises(SpecError, match="no image is named night/01"):
        derainer([frame()], names=["night/01.png"])


def test_a_flat_result_serves_one_frame_only(tmp_path):
    derainer = write_results(tmp_path, "01.png")
    derainer([frame()], names=["day/01.png"])
    with pytest.raises(SpecError, match=r"the result of both day/01 and night/01"):
        derainer([frame()], names=["night/01.png"])


def test_missing_results_are_told(tmp_path):
    derainer = write_results(tmp_path, "a.png", "c.png", "c.jpg")
    assert derainer.missing(["a.jpg", "b.png", "x/B.png"]) == ["b.png", "x/B.png"]
    with pytest.raises(SpecError, match="2 images are named"):
        derainer.missing(["c.png"])


def test_results_that_do_not_fit(tmp_path):
    derainer = write_results(tmp_path, "a.png")
    with pytest.raises(SpecError, match="needs file names"):
        Derainer(f"results:{tmp_path}", device="cpu")
    with pytest.raises(SpecError, match="no image is named c"):
        derainer([frame()], names=["c.png"])
    with pytest.raises(ImageError, match="16x12 pixels, but its rainy image is 20x12"):
        derainer([frame(12, 20)], names=["a.png"])
    write_image(tmp_path / "a.jpg", frame())
    with pytest.raises(SpecError, match="2 images are named a"):
        PrecomputedResults(tmp_path)([frame()], names=["a"])
    with pytest.raises(RainmerError, match="1 names for 2 frames"):
        derainer([frame(), frame()], names=["a"])


def onnx_file(path, channels=3):
    """Write a network that halves its input."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    shape = ["batch", channels, "height", "width"]
    half = helper.make_tensor("half", TensorProto.FLOAT, [1], [0.5])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["rainy", "half"], ["restored"])],
        "halve",
        [helper.make_tensor_value_info("rainy", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("restored", TensorProto.FLOAT, shape)],
        [half],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_an_onnx_network(tmp_path):
    derainer = Derainer(f"onnx:{onnx_file(tmp_path / 'halve.onnx')}", device="cpu")
    image = frame(13, 17)
    assert derainer.name == "halve"
    assert derainer.cacheable
    assert np.abs(derainer(image) - image / 2.0).max() <= 1


def test_a_file_that_is_not_onnx(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(WeightsError, match=r"junk\.onnx is not an ONNX file") as caught:
        Derainer(f"onnx:{tmp_path / 'junk.onnx'}", device="cpu")
    assert "\n" not in str(caught.value)


def test_published_weights_that_spandrel_recognises(tmp_path):
    pytest.importorskip("spandrel")
    from spandrel.architectures.NAFNet import NAFNet

    torch.manual_seed(0)
    network = NAFNet(
        img_channel=3, width=8, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]
    ).eval()
    torch.save(network.state_dict(), tmp_path / "nafnet.pth")
    derainer = Derainer(f"spandrel:{tmp_path / 'nafnet.pth'}", device="cpu", precision="fp32")
    image = torch.rand(1, 3, 24, 32)
    with torch.no_grad():
        expected = network(image).clamp(0, 1)
    torch.testing.assert_close(derainer(image), expected, rtol=0, atol=rounding(depth=30))


def test_weights_that_spandrel_does_not_recognise(tmp_path):
    pytest.importorskip("spandrel")
    torch.save({"a": torch.zeros(3)}, tmp_path / "own.pth")
    with pytest.raises(WeightsError, match="does not recognise these weights"):
        Derainer(f"spandrel:{tmp_path / 'own.pth'}", device="cpu")


@pytest.mark.parametrize(("kind", "module"), [("onnx", "onnxruntime"), ("spandrel", "spandrel")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, kind, module):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "x.pth").write_bytes(b"x")
    with pytest.raises(SpecError, match=rf"pip install 'rainmer\[{kind}\]'"):
        Derainer(f"{kind}:{tmp_path / 'x.pth'}", device="cpu")


def test_the_shipped_derainer_has_a_name():
    derainer = Derainer("rainmer-s", device="cpu")
    assert derainer.name == "rainmer-s"
    image = frame(20, 24)
    assert derainer(image).shape == image.shape


def test_a_blend_lies_between_the_rainy_and_the_derained_frame():
    image = frame()
    median = Derainer("median", device="cpu")(image).astype(float)
    derainer = Derainer("blend:0.25:median", device="cpu")
    assert derainer.name == "blend-0.25-median"
    expected = 0.25 * median + 0.75 * image
    assert np.abs(derainer(image) - expected).max() <= 0.5 + 1e-4


@pytest.mark.parametrize(("share", "same_as"), [("0", "none"), ("1", "median"), ("1.0", "median")])
def test_the_ends_of_a_blend_are_its_parts(share, same_as):
    image = frame()
    blended = Derainer(f"blend:{share}:median", device="cpu")(image)
    np.testing.assert_array_equal(blended, Derainer(same_as, device="cpu")(image))


def test_a_blend_is_of_the_clamped_frame(own_module):
    spec = own_module("def bright(batch):\n    return batch + 5.0\n") + "bright"
    black = np.zeros((8, 8, 3), np.uint8)
    assert np.unique(Derainer(f"blend:0.2:{spec}", device="cpu")(black)).tolist() == [51]


def test_a_blend_is_cached_as_what_it_blends(own_module, tmp_path):
    text = "def f(batch):\n    return batch\n"
    assert not Derainer("blend:0.5:" + own_module(text) + "f", device="cpu").cacheable
    write_image(tmp_path / "theirs" / "a.png", frame())
    results = make_derainer(f"blend:0.5:results:{tmp_path / 'theirs'}", device="cpu")
    assert results.needs_names
    assert results.name == "blend-0.5-results-theirs"
    one, same, more, other = (
        Derainer(spec, device="cpu")
        for spec in ("blend:0.5:median", "blend:0.50:median", "blend:0.6:median", "blend:0.5:none")
    )
    assert one.cacheable
    assert one.fingerprint == same.fingerprint
    assert len({d.fingerprint for d in (one, more, other, Derainer("median", device="cpu"))}) == 4


def test_blends_of_results_follow_the_file_names(tmp_path):
    rainy, theirs = frame(seed=1), frame(seed=2)
    write_image(tmp_path / "theirs" / "a.png", theirs)
    blended = open_results(f"blend:0.5:results:{tmp_path / 'theirs'}")([rainy], ["a.jpg"])
    expected = (rainy.astype(float) + theirs) / 2
    assert np.abs(blended[0] - expected).max() <= 0.5 + 1e-4


@pytest.mark.parametrize(
    "spec",
    ["blend", "blend:", "blend:0.5", "blend:0.5:", "blend:half:median", "blend:1.5:median",
     "blend:nan:median", "blend:-0.1:median", "blend:median:0.5"],
)  # fmt: skip
def test_blends_that_make_no_sense(spec):
    with pytest.raises(SpecError, match="blend:A:SPEC"):
        Derainer(spec, device="cpu")


def test_a_blend_of_something_unknown_names_that():
    with pytest.raises(SpecError, match="unknown derainer 'medain'"):
        Derainer("blend:0.5:medain", device="cpu")
