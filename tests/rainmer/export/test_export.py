"""Files of a small network against PyTorch, and what cannot be exported."""

import numpy as np
import pytest
import torch

from rainmer import Derainer, models
from rainmer.errors import ConfigError, RainmerError, SpecError, WeightsError
from rainmer.export import ExportRequest, export
from rainmer.export.__main__ import main
from rainmer.export.kept import kept_export
from rainmer.export.samples import rainy_samples
from rainmer.models import Rainmer, RainmerConfig
from rainmer.stage.rules import InputRules
from tests.rainmer.export.test_graph import SMALL, steep

SIZE = (40, 56)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    models.save_weights(path, steep(Rainmer(RainmerConfig.from_mapping(SMALL))))
    return path


def gap(spec, weights, frames):
    ours = Derainer(spec, "cpu", "fp32")(frames)
    theirs = Derainer(f"rainmer:{weights}", "cpu", "fp32")(frames)
    return int(np.abs(np.asarray(ours).astype(int) - np.asarray(theirs)).max())


def test_onnx_gives_the_frames_of_the_stage(weights, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    request = ExportRequest(size_hw=SIZE, layout="nhwc")
    done = export(f"rainmer:{weights}", tmp_path / "small.onnx", request=request)
    assert done.difference.levels <= 1
    network = models.load(f"rainmer:{weights}")
    assert done.metadata["weights"] == models.weights_fingerprint(network)
    frames = rainy_samples(2, SIZE)
    assert gap(f"onnx:{done.path}", weights, frames) <= 1
    # Larger frames are tiled by the file's size, smaller ones padded to it.
    others = rainy_samples(1, (50, 90)) + rainy_samples(1, (24, 30))
    restored = Derainer(f"onnx:{done.path}", "cpu")(others)
    assert [frame.shape for frame in restored] == [frame.shape for frame in others]


def test_openvino_gives_the_frames_of_the_stage(weights, tmp_path, monkeypatch):
    """By `runtime`, which keeps a file for frames of any number and size."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plain = Derainer(f"rainmer:{weights}", "cpu", "fp32")
    by_runtime = Derainer(f"rainmer:{weights}", "cpu", "fp32", runtime="auto")
    assert by_runtime.fingerprint != plain.fingerprint
    frames = np.stack(rainy_samples(2, (33, 70)))
    assert np.abs(by_runtime(frames).astype(int) - plain(frames)).max() <= 1
    kept = sorted(path.suffix for path in (tmp_path / "rainmer" / "exports").iterdir())
    assert kept == [".bin", ".xml"]
    request = ExportRequest(format="openvino", size_hw=None, batch=None, frames="float32")
    network = models.load(f"rainmer:{weights}")
    path = kept_export(network, plain.name, request)  # not written again
    assert Derainer(f"openvino:{path}", "cpu")._restorer.rules == InputRules()


@pytest.mark.slow
def test_the_command_writes_torchscript(weights, tmp_path, capsys):
    path = tmp_path / "small.ts"
    words = ["--size", "24x33", "--frames", "float32", "--layout", "nhwc", "--out", str(path)]
    main([f"rainmer:{weights}", "--format", "torchscript", *words])
    printed = capsys.readouterr().out
    assert "levels at most" in printed
    assert "padded to multiples of 8" in printed
    assert gap(f"torchscript:{path}", weights, rainy_samples(2, (24, 33))) <= 1


def test_weights_that_forbid_half_name_the_layer_and_leave_no_file(tmp_path):
    torch.manual_seed(0)
    network = models.build("prenet", iterations=1)
    with torch.no_grad():
        next(iter(network.parameters())).mul_(1e7)
    models.save_weights(tmp_path / "steep.safetensors", network)
    request = ExportRequest(format="torchscript", size_hw=(16, 24), precision="fp16")
    with pytest.raises(RainmerError, match=r"not kept: .*first layer to differ is \w+"):
        export(f"prenet:{tmp_path}/steep.safetensors", tmp_path / "x.ts", request=request)
    assert [path.name for path in tmp_path.iterdir()] == ["steep.safetensors"]


def test_weights_that_give_nan_are_not_exported(tmp_path):
    network = models.build("prenet", iterations=1)
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    models.save_weights(tmp_path / "nan.safetensors", network)
    request = ExportRequest(format="torchscript", size_hw=(16, 24))
    with pytest.raises(RainmerError, match="not finite"):
        export(f"prenet:{tmp_path}/nan.safetensors", tmp_path / "x.ts", request=request)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"opset": 7}, "no opset 7", id="opset"),
        pytest.param({"precision": "bf16"}, "no bfloat16", id="onnx in bf16"),
        pytest.param({"format": "torchscript", "precision": "int8"}, "int8", id="torchscript"),
        pytest.param({"format": "tensorrt", "size_hw": None}, "one shape", id="dynamic engine"),
        pytest.param({"size_hw": (0, 640)}, "at least 1x1", id="no pixels"),
        pytest.param({"batch": 0}, "at least 1", id="no frames"),
        pytest.param({"layout": "hwc"}, "nchw or nhwc", id="layout"),
    ],
)
def test_what_a_format_cannot_do_is_one_line(options, message):
    with pytest.raises(ConfigError, match=message):
        ExportRequest(**options)


def test_what_is_no_network_and_what_is_no_derainer(tmp_path):
    with pytest.raises(SpecError, match="only networks with weights are exported"):
        export("median", tmp_path / "x.onnx")
    with pytest.raises(SpecError, match=r"ends in \.xml, unlike x\.onnx"):
        export("rainmer-s", tmp_path / "x.onnx", request=ExportRequest(format="openvino"))
    pytest.importorskip("openvino")
    (tmp_path / "x.xml").write_text("<net/>")
    with pytest.raises(WeightsError, match=r"x\.xml is not an OpenVINO model"):
        Derainer(f"openvino:{tmp_path}/x.xml", "cpu")


def test_a_package_that_is_missing_names_its_extra(tmp_path):
    path = tmp_path / "x.engine"
    path.write_bytes(b"none")
    with pytest.raises(SpecError, match=r"pip install 'rainmer\[tensorrt\]'"):
        Derainer(f"tensorrt:{path}", "cpu")


def test_runtimes_refuse_what_they_cannot_run():
    with pytest.raises(SpecError, match="not median"):
        Derainer("median", "cpu", runtime="openvino")
    with pytest.raises(RainmerError, match="runtime must be"):
        Derainer("rainmer-s", "cpu", runtime="fast")
    assert Derainer("median", "cpu", runtime="auto").name == "median"


@pytest.mark.parametrize("words", [["--size", "640"], ["--size", "0x64"], ["--batch", "-1"]])
def test_wrong_words_are_refused(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(["rainmer-s", "--format", "onnx", "--out", "x.onnx", *words])
    assert end.value.code == 2
    assert words[0] in capsys.readouterr().err
