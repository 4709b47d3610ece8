"""Networks of other projects: what their files declare is what they get."""

import logging
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from rainmer import Derainer
from rainmer.errors import RainmerError, SpecError, WeightsError
from rainmer.frames.images import read_image, write_image
from rainmer.models import build
from rainmer.stage.rules import InputRules

onnx_files = pytest.importorskip("tests.rainmer.stage.onnx_files", exc_type=ImportError)
pytest.importorskip("onnxruntime")
from tests.rainmer.stage.onnx_files import (  # noqa: E402
    BYTES,
    FLOAT,
    HALF,
    TensorProto,
    constant,
    write_onnx,
)


def frame(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def derain(path, kind="onnx", **options):
    return Derainer(f"{kind}:{path}", device="cpu", **options)


@pytest.mark.parametrize(
    "shape",
    [
        [1, 3, 128, 128],
        [1, 3, "h", "w"],
        ["b", 3, 128, 128],
        ["b", "h", "w", 3],
        [1, 64, 96, 3],
        [4, 3, 100, "w"],
        [None, None, None, None],
    ],
)
def test_frames_of_any_size_go_through_files_of_any_shape(tmp_path, shape):
    derainer = derain(write_onnx(tmp_path / "net.onnx", shape))
    frames = [frame(150, 200), frame(100, 100), frame(150, 200, 1), frame(5, 300), frame(1, 1)]
    for given, restored in zip(frames, derainer(frames), strict=True):
        np.testing.assert_array_equal(restored, given)


def test_a_blend_of_a_file_follows_its_size(tmp_path):
    path = write_onnx(tmp_path / "net.onnx", [1, 3, 48, 48])
    blended = Derainer(f"blend:0.5:onnx:{path}", device="cpu")(frame(60, 30))
    np.testing.assert_array_equal(blended, frame(60, 30))


def test_the_command_takes_a_file_of_a_fixed_size(tmp_path):
    from rainmer.derain.__main__ import main

    write_onnx(tmp_path / "fixed.onnx", [1, 3, 128, 128])
    for name, size in (("a.png", (150, 200)), ("b.png", (100, 100))):
        write_image(tmp_path / "two" / name, frame(*size))
    spec = f"onnx:{tmp_path / 'fixed.onnx'}"
    main([str(tmp_path / "two"), "--derain", spec, "--out", str(tmp_path / "out"), "--quiet"])
    for name, size in (("a.png", (150, 200)), ("b.png", (100, 100))):
        np.testing.assert_array_equal(read_image(tmp_path / "out" / name), frame(*size))


def test_a_fixed_size_decides_on_tiles_and_fingerprint(tmp_path, caplog):
    path = write_onnx(tmp_path / "fixed.onnx", [1, 3, 64, 64])
    whole, same, other = (derain(path, tile=tile) for tile in (None, 64, 96))
    assert whole.fingerprint == same.fingerprint == other.fingerprint
    assert whole.fingerprint != derain(path, overlap=8).fingerprint
    assert caplog.messages == ["fixed takes 64x64 pixels: tiles are of that size"]
    np.testing.assert_array_equal(other(frame(90, 70)), frame(90, 70))


def test_types_and_orders_are_read(tmp_path):
    image = frame(24, 40)
    halves = [("Mul", ["x", "half"], ["y"], {})]
    cases = {
        "half": write_onnx(
            tmp_path / "a.onnx", ["b", 3, "h", "w"], *halves,
            types=(HALF, HALF), constants=[constant("half", 0.5, kind=HALF)],
        ),
        "bytes": write_onnx(
            tmp_path / "b.onnx", ["b", "h", "w", 3],
            ("Cast", ["x"], ["f"], {"to": FLOAT}), ("Mul", ["f", "half"], ["g"], {}),
            ("Cast", ["g"], ["y"], {"to": BYTES}),
            types=(BYTES, BYTES), constants=[constant("half", 0.5)],
        ),
        "bytes to floats of 0..255": write_onnx(
            tmp_path / "c.onnx", ["b", 3, "h", "w"],
            ("Cast", ["x"], ["f"], {"to": FLOAT}), ("Mul", ["f", "half"], ["y"], {}),
            types=(BYTES, FLOAT), constants=[constant("half", 0.5)],
        ),
        "bytes to floats of 0..1": write_onnx(
            tmp_path / "d.onnx", ["b", 3, "h", "w"],
            ("Cast", ["x"], ["f"], {"to": FLOAT}), ("Mul", ["f", "half"], ["y"], {}),
            types=(BYTES, FLOAT), constants=[constant("half", 0.5 / 255)],
        ),
        "another order": write_onnx(
            tmp_path / "e.onnx", ["b", 3, "h", "w"],
            ("Mul", ["x", "half"], ["n"], {}), ("Transpose", ["n"], ["y"], {"perm": [0, 2, 3, 1]}),
            out_shape=["b", "h", "w", 3], constants=[constant("half", 0.5)],
        ),
        "another order, not declared": write_onnx(
            tmp_path / "f.onnx", ["b", 3, "h", "w"],
            ("Mul", ["x", "half"], ["n"], {}), ("Transpose", ["n"], ["y"], {"perm": [0, 2, 3, 1]}),
            out_shape=[None] * 4, constants=[constant("half", 0.5)],
        ),
    }  # fmt: skip
    for case, path in cases.items():
        restored = derain(path)(image).astype(float)
        assert np.abs(restored - image / 2.0).max() <= 1, case


def test_files_that_are_no_derainers_are_refused_in_one_line(tmp_path):
    doubled = [("Resize", ["x", "", "by"], ["y"], {"mode": "nearest"})]
    by = [constant("by", 1.0, 1.0, 2.0, 2.0)]
    nchw = ["b", 3, "h", "w"]
    query = ("query", ["b", 3, 128, 128])
    refused = {
        "expected one input of RGB images": write_onnx(
            tmp_path / "a.onnx", nchw, ("Identity", ["x"], ["y"], {}), more=[query]
        ),
        r"\(B, H, W, 3\), but it has x \['b', 1, 'h', 'w'\]": write_onnx(
            tmp_path / "b.onnx", ["b", 1, "h", "w"]
        ),
        "expected an output of its input's size": write_onnx(
            tmp_path / "c.onnx", [1, 3, 32, 32], *doubled, out_shape=[1, 3, 64, 64], constants=by
        ),
        "expected floats or uint8": write_onnx(
            tmp_path / "d.onnx", nchw, types=(TensorProto.INT64, TensorProto.INT64)
        ),
    }
    for message, path in refused.items():
        with pytest.raises(WeightsError, match=message) as caught:
            derain(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_what_goes_wrong_while_a_file_runs_is_one_line(tmp_path, capfd):
    doubled = [("Resize", ["x", "", "by"], ["y"], {"mode": "nearest"})]
    by, nchw, free = [constant("by", 1.0, 1.0, 2.0, 2.0)], ["b", 3, "h", "w"], ["b", 3, "r", "c"]
    reshape = [("Reshape", ["x", "to"], ["y"], {})]
    to = [constant("to", 1, 3, 16, 16, kind=TensorProto.INT64)]
    broken = {
        "enlarges frames 2 times": write_onnx(
            tmp_path / "a.onnx", nchw, *doubled, out_shape=free, constants=by
        ),
        "failed: RuntimeError: Non-zero status code.*at 64x64.*--tile SIDE": write_onnx(
            tmp_path / "b.onnx", nchw, *reshape, out_shape=free, constants=to
        ),
        "int64": write_onnx(
            tmp_path / "c.onnx", nchw, ("Cast", ["x"], ["y"], {"to": TensorProto.INT64}),
            types=(FLOAT, TensorProto.INT64),
        ),
        "not finite": write_onnx(
            tmp_path / "d.onnx", nchw, ("Div", ["x", "zero"], ["y"], {}),
            constants=[constant("zero", 0.0)],
        ),
    }  # fmt: skip
    for message, path in broken.items():
        with pytest.raises(RainmerError, match=message) as caught:
            derain(path)(frame(64, 64))
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)
    assert not capfd.readouterr().err  # onnxruntime's own log


def test_what_a_file_demands_but_does_not_declare_is_tried(tmp_path):
    """As networks are exported whose reshapes hold the sizes of the trace."""
    free = ["b", 3, "h", "w"]
    to = [constant("to", 1, 3, 128, 128, kind=TensorProto.INT64)]
    traced = write_onnx(tmp_path / "traced.onnx", free, ("Reshape", ["x", "to"], ["y"], {}),
                      constants=to)  # fmt: skip
    image = frame(150, 200)
    derainer = derain(traced)
    np.testing.assert_array_equal(derainer([image, image])[1], image)
    assert derainer._restorer.rules == InputRules(8, (128, 128), 1)


@pytest.mark.parametrize("text", ["Failed to allocate memory for requested buffer", "bad_alloc"])
def test_a_runtime_that_runs_out_of_memory_gets_less(tmp_path, text, monkeypatch):
    derainer = derain(write_onnx(tmp_path / "net.onnx", ["b", 3, "h", "w"]))
    function, calls = derainer._restorer.function, []

    class Hungry:
        def run(self, outputs, inputs):
            calls.append(inputs["x"].shape)
            if inputs["x"].size > 3 * 100 * 100:
                raise Exception(f"[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : {text}")
            return [inputs["x"]]

    monkeypatch.setattr(function._session, "_session", Hungry())
    np.testing.assert_array_equal(derainer(frame(150, 160)), frame(150, 160))
    assert len(calls) > 4


def test_a_fixed_size_that_does_not_fit_into_memory_is_one_line(tmp_path, monkeypatch):
    derainer = derain(write_onnx(tmp_path / "net.onnx", [None, 3, 96, 96]))
    given = []

    def fail(batch):
        given.append(len(batch))
        raise MemoryError

    monkeypatch.setattr(derainer._restorer, "function", fail)
    with pytest.raises(RainmerError, match=r"net\.onnx runs out of memory on cpu"):
        derainer(frame(300, 300))
    assert given == [8, 4, 2, 1]


class Fixed(nn.Module):
    def __init__(self, size_hw, *, last=False, batch=True):
        super().__init__()
        self.size_hw, self.last, self.batch = tuple(size_hw), last, batch

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        count = image.shape[0] if self.batch else 1
        if self.last:
            return image.view(count, self.size_hw[0], self.size_hw[1], 3) * 0.5
        return image.view(count, 3, self.size_hw[0], self.size_hw[1]) * 0.5


class Strides(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        rows, columns = image.shape[2] // 32, image.shape[3] // 32
        return image.view(image.shape[0], 3, rows, 32, columns, 32).view(image.shape) * 0.5


class Doubled(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(image, scale_factor=2.0)


class Late(nn.Module):
    """Takes the trial, not the frames."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image if image.shape[2] <= 64 else image.view(1, 2, 3)


def script(network, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wants to be rid of TorchScript
        torch.jit.script(network).save(str(path))
    return path


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize(
    ("network", "fixed", "batch"),
    [
        (Fixed((128, 128)), (128, 128), None),
        (Fixed((480, 640), batch=False), (480, 640), 1),
        (Fixed((64, 64), last=True), (64, 64), None),
        (Strides(), (None, None), None),
    ],
)
def test_scripts_tell_by_trial_what_they_take(tmp_path, network, fixed, batch):
    derainer = derain(script(network, tmp_path / "net.ts"), "torchscript")
    for size in ((150, 200), (100, 100)):
        assert np.abs(derainer(frame(*size)) - frame(*size) / 2.0).max() <= 1
    rules = derainer._restorer.rules
    assert (rules.fixed_hw, rules.batch) == (fixed, batch)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_scripts_that_are_no_derainers(tmp_path):
    with pytest.raises(SpecError, match=r"two\.ts .*enlarges frames 2 times"):
        derain(script(Doubled(), tmp_path / "two.ts"), "torchscript")
    odd = script(Fixed((33, 33)), tmp_path / "odd.ts")
    with pytest.raises(SpecError, match=r"odd\.ts failed: .*3, 33, 33.*--tile SIDE"):
        derain(odd, "torchscript")(frame(70, 80))
    told = derain(odd, "torchscript", tile=33, overlap=8)
    assert np.abs(told(frame(30, 80)) - frame(30, 80) / 2.0).max() <= 1
    late = derain(script(Late(), tmp_path / "late.ts"), "torchscript")
    with pytest.raises(
        SpecError, match=r"late\.ts failed: RuntimeError: shape .*at 72x80"
    ) as caught:
        late(frame(80, 72))
    assert "\n" not in str(caught.value)


def nafnet(path):
    spandrel = pytest.importorskip("spandrel.architectures.NAFNet")
    network = spandrel.NAFNet(
        img_channel=3, width=8, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1]
    )
    torch.save(network.state_dict(), path)
    return path


def test_precision_that_spandrel_knows_not_to_work_is_refused(tmp_path):
    path = nafnet(tmp_path / "naf.pth")
    restorer = derain(path, "spandrel")._restorer
    with pytest.raises(SpecError, match=r"naf\.pth does not support fp16: use --precision fp32"):
        restorer.prepare(torch.device("cuda"), torch.float16)
    assert derain(path, "spandrel", precision="bf16")(frame(9, 9)).shape == (9, 9, 3)


def test_models_that_tile_by_themselves_get_whole_frames(tmp_path, monkeypatch):
    import spandrel

    path = nafnet(tmp_path / "naf.pth")
    tiled = derain(path, "spandrel", tile=40)
    load = spandrel.ModelLoader.load_from_state_dict

    def internal(self, weights):
        descriptor = load(self, weights)
        descriptor.tiling = spandrel.ModelTiling.INTERNAL
        return descriptor

    monkeypatch.setattr(spandrel.ModelLoader, "load_from_state_dict", internal)
    whole = derain(path, "spandrel", tile=40)
    assert (tiled._restorer.tileable, whole._restorer.tileable) == (True, False)
    assert tiled.fingerprint != whole.fingerprint


class Own:
    """A callable that says what it takes."""

    def __init__(self, **declared):
        self.seen = []
        for name, value in declared.items():
            setattr(self, name, value)

    def __call__(self, batch):
        self.seen.append(tuple(batch.shape))
        return batch * 0.5


@pytest.mark.parametrize(
    ("declared", "seen"),
    [
        ({}, {(2, 3, 50, 70)}),
        ({"size_multiple": 16}, {(2, 3, 64, 80)}),
        ({"fixed_size": (32, 40), "tileable": True}, {(8, 3, 32, 40)}),
        ({"fixed_size": (64, 96), "fixed_batch": 3}, {(3, 3, 64, 96)}),
    ],
)
def test_callables_may_say_what_they_take(declared, seen):
    own = Own(**declared)
    frames = [frame(50, 70), frame(50, 70, 1)]
    for image, restored in zip(frames, Derainer(own, device="cpu", overlap=8)(frames), strict=True):
        assert np.abs(restored - image / 2.0).max() <= 1
    assert set(own.seen) == seen


@pytest.mark.parametrize(
    ("declared", "options", "message"),
    [
        ({"size_multiple": 0}, {}, "Own: .* whole numbers from 1, not 0"),
        ({"fixed_size": 32}, {}, "Own: "),
        ({"fixed_size": (32, 32)}, {}, "takes 32x32 pixels only .* a frame of 70x50 is too large"),
        ({"supports_bfloat16": False}, {"precision": "bf16"}, "Own does not support bf16"),
    ],
)
def test_callables_that_cannot_be_served(declared, options, message):
    with pytest.raises(SpecError, match=message):
        Derainer(Own(**declared), device="cpu", **options)(frame(50, 70))


def test_a_declaration_changes_the_fingerprint():
    plain, multiple = (
        Derainer(Own(fingerprint="v1", **more), device="cpu").fingerprint
        for more in ({}, {"size_multiple": 8})
    )
    assert plain == Derainer(Own(fingerprint="v1"), device="cpu").fingerprint != multiple


def test_networks_of_our_own_pad_by_themselves():
    assert Derainer(build("efficientderain"), device="cpu")._restorer.rules.multiple == 1


def test_nothing_is_logged_for_files_that_take_anything(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        derain(write_onnx(tmp_path / "net.onnx", ["b", 3, "h", "w"]), tile=40)(frame(64, 64))
    assert not caplog.records
