from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from detection.yolo import DerainValidator, attach
from rainmer.errors import RainmerError
from tests.detection.conftest import Blur, make_frame, make_yolo

SIZES = [(90, 120), (120, 90), (64, 128), (77, 101), (50, 50)]
OPTIONS = {
    "imgsz": 128,
    "batch": 2,
    "conf": 0.15,
    "plots": False,
    "verbose": False,
    "exist_ok": True,
}
BOX = "0.5 0.5 0.4 0.6"
LABELS = {
    "detect": f"3 {BOX}",
    "segment": "3 0.3 0.2 0.7 0.2 0.7 0.8 0.3 0.8",
    "pose": f"0 {BOX} " + " ".join(["0.5 0.5 2"] * 17),
    "obb": "3 0.3 0.2 0.7 0.2 0.7 0.8 0.3 0.8",
}


def write_set(folder: Path, task: str, derain=None) -> Path:
    """Write five images of different shapes with labels in ultralytics' layout."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for i, size_hw in enumerate(SIZES):
        frame = make_frame(*size_hw, seed=i)
        frame = derain([frame])[0] if derain else frame
        cv2.imwrite(str(folder / "images" / f"{i}.png"), frame[..., ::-1])
        (folder / "labels" / f"{i}.txt").write_text(LABELS[task] + "\n")
    content = {"path": str(folder), "train": "images", "val": "images"}
    content["names"] = make_yolo(task).names
    if task == "pose":
        content["kpt_shape"] = [17, 3]
    (folder / "set.yaml").write_text(yaml.safe_dump(content))
    return folder / "set.yaml"


def found_by_val(yolo, data: Path, project: Path, **options) -> dict[str, str]:
    yolo.val(
        data=data,
        project=str(project),
        name="v",
        save_txt=True,
        save_conf=True,
        **{**OPTIONS, **options},
    )
    texts = {path.name: path.read_text() for path in (project / "v" / "labels").glob("*.txt")}
    assert sum(text.count("\n") for text in texts.values()) > 5
    return texts


@pytest.mark.parametrize("rect", [True, False])
@pytest.mark.parametrize("task", LABELS)
def test_equals_stock_val_on_derained_images(task, rect, tmp_path):
    blur = Blur()
    rainy = write_set(tmp_path / "rainy", task)
    derained = write_set(tmp_path / "derained", task, derain=blur)
    yolo = make_yolo(task)
    theirs = found_by_val(yolo, derained, tmp_path / "b", rect=rect)

    attach(yolo, blur)
    ours = found_by_val(yolo, rainy, tmp_path / "c", rect=rect)

    assert ours == theirs
    assert blur.calls == 5 + 3  # to write the set, then one call per batch
    assert sorted(p.name for p in (tmp_path / "rainy").rglob("*.*")) == sorted(
        p.name for p in (tmp_path / "derained").rglob("*.*")
    )


def test_batches_are_derained_together_and_timed(tmp_path):
    blur, yolo = Blur(), make_yolo()

    metrics = yolo.val(
        data=write_set(tmp_path / "set", "detect"),
        validator=DerainValidator.bind(blur),
        project=str(tmp_path),
        workers=2,
        cache="ram",
        **OPTIONS,
    )

    assert blur.calls == 3
    assert metrics.speed["derain"] > 0


def captured(bound: type) -> type:
    class Captured(bound):
        images: list[torch.Tensor] = []  # noqa: RUF012

        def preprocess(self, batch):
            batch = super().preprocess(batch)
            self.images.extend(batch["img"].clone())
            return batch

    return Captured


@pytest.mark.parametrize("rect", [True, False])
def test_network_mode_derains_the_content_and_not_the_padding(rect, tmp_path):
    blur, yolo = Blur(), make_yolo()
    data = write_set(tmp_path / "set", "detect")
    stock = captured(yolo.task_map["detect"]["validator"])
    network = captured(DerainValidator.bind(blur, where="network"))

    for validator in (stock, network):
        yolo.val(data=data, validator=validator, project=str(tmp_path), rect=rect, **OPTIONS)

    assert len(stock.images) == len(network.images) == len(SIZES)
    for rainy, derained in zip(stock.images, network.images, strict=True):
        drawn = (rainy - 114 / 255).abs().amax(0) > 1e-6
        rows, columns = drawn.any(1).nonzero(), drawn.any(0).nonzero()
        rows, columns = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        expected = rainy.clone()
        expected[:, rows, columns] = blur(rainy[None, :, rows, columns])[0]
        assert not torch.equal(expected, rainy)
        assert torch.equal(derained, expected)


def test_network_mode_of_val_times_the_derainer(tmp_path, blur):
    bound = DerainValidator.bind(blur, where="network")

    metrics = make_yolo().val(
        data=write_set(tmp_path / "set", "detect"),
        validator=bound,
        project=str(tmp_path),
        **OPTIONS,
    )

    assert metrics.speed["derain"] > 0


def test_names_are_those_of_the_files(tmp_path):
    class Precomputed:
        needs_names = True
        names: list[str] = []  # noqa: RUF012

        def __call__(self, frames, names):
            self.names.extend(names)
            return frames

    derainer = Precomputed()
    make_yolo().val(
        data=write_set(tmp_path / "set", "detect"),
        validator=DerainValidator.bind(derainer),
        project=str(tmp_path),
        **OPTIONS,
    )

    assert sorted(derainer.names) == [f"{i}.png" for i in range(len(SIZES))]


def test_classification_is_refused_with_the_way_out(blur):
    yolo = attach(make_yolo("classify"), blur)

    with pytest.raises(RainmerError, match=r"rainmer\.derain"):
        yolo.val(data="imagenet10")
    with pytest.raises(RainmerError, match="no task 'classify'"):
        DerainValidator.bind(blur, "classify")


def test_own_loader_needs_network_mode(blur):
    with pytest.raises(RainmerError, match="where='network'"):
        DerainValidator.bind(blur)(dataloader=[np.zeros(1)])
