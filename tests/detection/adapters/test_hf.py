"""Detectors of transformers: what its own pipeline gives, and folders that do not fit."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from detection.specs import load_detector, load_measured
from rainmer.errors import RainmerError
from tests.detection.adapters.conftest import FRAMES, SIZES, assert_same

transformers = pytest.importorskip("transformers")


def test_boxes_are_those_of_the_pipeline(detr):
    """Its boxes are whole pixels; `detect_fitted` gives what the pipeline rounds."""
    pipeline = transformers.pipeline("object-detection", model=str(detr), device="cpu")
    detector = load_detector(f"hf:{detr}", "cpu", conf=0.01)
    harness = load_measured(f"hf:{detr}", "cpu")
    assert (detector.name, detector.names[1]) == ("tiny-detr", "person")
    labels = {f"LABEL_{label}": label for label in range(91)}
    assert [batch.indices for batch in harness.plan(SIZES)] == [(0, 2), (1,)]
    for frame, found, size_hw in zip(FRAMES, detector(FRAMES), SIZES, strict=True):
        theirs = pipeline(Image.fromarray(frame), threshold=0.01)
        theirs = [one for one in theirs if labels[one["label"]] in detector.names]
        theirs.sort(key=lambda one: -one["score"])
        boxes = [[one["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")] for one in theirs]
        scores = [one["score"] for one in theirs]
        assert_same(found, (boxes, scores, [labels[one["label"]] for one in theirs]), atol=1.01)
        (batch,) = harness.plan([size_hw])
        fitted = harness.fit([frame], batch.input_hw)
        (measured,) = harness.detect_fitted(fitted, [size_hw], batch.input_hw)
        assert_same(measured.select(measured.scores >= 0.01),
                    (found.boxes_xyxy, found.scores, found.labels))  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no config", r"it has no config\.json"),
        ("no processor", r"it has no preprocessor_config\.json"),
        ("pickle", r"pytorch_model\.bin is a pickle"),
        ("classifier", "a network that is no detector"),
        ("width", "not those of its config.json"),
        ("classes", "does not name its 7 classes"),
        ("nan", r"not finite \(NaN\)"),
        ("damaged", "cannot load the detector"),
    ],
)
def test_folders_that_do_not_fit_are_named(detr, tmp_path, change, message):
    folder = shutil.copytree(detr, tmp_path / "net")
    config = json.loads((folder / "config.json").read_text())
    weights = folder / "model.safetensors"
    if change in ("no config", "no processor"):
        (folder / ("config.json" if "config" in change else "preprocessor_config.json")).unlink()
    elif change == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif change == "damaged":
        weights.write_bytes(b"no tensors")
    elif change == "nan":
        from safetensors.torch import load_file, save_file

        state = load_file(weights)
        state["class_labels_classifier.weight"][:] = float("nan")
        save_file(state, weights, {"format": "pt"})
    else:
        config |= {
            "classifier": {"model_type": "resnet", "architectures": ["ResNetModel"]},
            "width": {"d_model": 16},
            "classes": {"id2label": {str(n): f"LABEL_{n}" for n in range(7)}},
        }[change]
        (folder / "config.json").write_text(json.dumps(config))
        if change == "classes":
            network = transformers.DetrForObjectDetection(
                transformers.DetrConfig.from_pretrained(folder)
            )
            network.save_pretrained(folder)
    with pytest.raises(RainmerError, match=message) as raised:
        load_detector(f"hf:{folder}", "cpu", conf=0.0)([np.zeros((32, 32, 3), np.uint8)])
    assert "\n" not in str(raised.value)


def test_what_is_not_there_is_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RainmerError, match="hf:hub:ORG/NAME with --allow-download"):
        load_detector(f"hf:{tmp_path / 'none'}", "cpu")
    with pytest.raises(RainmerError, match="only fetched with --allow-download"):
        load_detector("hf:hub:nobody/nothing", "cpu")
