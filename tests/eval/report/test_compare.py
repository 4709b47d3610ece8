"""`rainmer runs`: what runs have written, side by side."""

import json
import os

import pytest
import yaml

from eval.detect.model import TableRow
from eval.report.compare.__main__ import main
from eval.report.files import write_metrics
from eval.scores.score import Score
from rainmer.config import to_mapping
from rainmer.errors import ConfigError, DatasetError
from rainmer.train.config import OptimiserConfig, Stage, TrainConfig
from rainmer.train.record import Record


def train(folder, psnrs, *, when, lr=1e-3, minutes=None):
    """Write what a run of four steps leaves that has been stopped after its validations."""
    config = TrainConfig(
        name=folder.name,
        stages=(Stage(steps=3), Stage(steps=1)),
        optimiser=OptimiserConfig(lr=lr),
        minutes=minutes,
    )
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(to_mapping(config)))
    record = Record(folder)
    for step, psnr in enumerate(psnrs, 1):
        record.add(step, {"total": 1 / step, "lr": lr / step, "seconds": 30.0 * step})
        record.add(step, {"psnr/held": psnr, "ssim/held": psnr / 100})
    record.close()
    os.utime(folder / "log.jsonl", (when, when))


def detect(folder, *, when, detectors=()):
    rows = [
        TableRow(condition=condition, input=shown, derainer=derainer, image_set="wet", **scores)
        for condition in ("all", "night")
        for shown, derainer, scores in (
            ("rainy", "", {"mean_ap": 0.3, "tp": 5, "fp": 2}),
            ("derained", "median", {"mean_ap": 0.25, "change": Score(-0.05, -0.1, 0.01)}),
            ("derained_clean", "median", {"psnr": float("inf")}),
        )
    ]
    flat = [row.flat() for row in rows]
    if detectors:
        flat = [{"detector": name, **row} for name in detectors for row in flat]
    more = {"matrix": {}} if detectors else {}
    facts = {"rows": [], **more, "config": {"conf": 0.25, "detector": "nets/yolo.pt"}}
    write_metrics(folder, flat, facts)
    os.utime(folder / "metrics.json", (when, when))


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The default folder, with two runs of training and one of each kind of evaluation."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "runs"
    train(root / "train/old", [20.0, 22.0, 21.0], when=1e9)
    train(root / "train/new", [float("nan"), 23.0], when=1e9 + 60, lr=5e-4, minutes=2.0)
    detect(root / "detect/wet", when=1e9)
    row = {"set": "rain100h", "condition": "all", "input": "derained", "derainer": "r"}
    scores = {"psnr_official": 24.5, "ssim_official": 0.75}
    write_metrics(root / "restore/wet", [row | scores], {"rows": [], "config": {}})
    os.utime(root / "restore/wet/metrics.json", (1e9 + 60, 1e9 + 60))
    return root


def printed(capsys, *argv):
    """Run the command and return its lines, with single spaces."""
    main(argv)
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_runs_of_both_kinds_the_newest_first(runs, capsys, caplog):
    lines = printed(capsys)
    head, _, new, old, _, keys, _, *values = lines[:9]
    assert head == "training steps minutes loss PSNR held at step lr when (UTC)"
    assert new == "runs/train/new 2 1.0 of 2 0.5 23.00 2 0.00025 2001-09-09 01:47"
    assert old == "runs/train/old 3 of 4 1.5 0.3333 22.00 2 0.000333 2001-09-09 01:46"
    assert keys == "configuration minutes optimiser.lr"
    assert values == ["runs/train/new 2.0 0.0005", "runs/train/old none 0.001"]
    _, head, _, restored, rainy, derained, clean, _ = lines[9:]
    assert head.startswith("evaluation set detector row mAP Δ [95 %] found/false PSNR SSIM when")
    assert restored.startswith("runs/restore/wet rain100h r – – – 24.50 official 0.7500 2001")
    assert rainy.startswith("runs/detect/wet wet yolo rainy 30.0 – 5/2 at 0.25 – – 2001")
    assert derained.startswith("runs/detect/wet wet yolo median 25.0 -5.0 [-10.0, 1.0] – – – 2001")
    assert clean.startswith("runs/detect/wet wet yolo median on clean – – – inf – 2001")
    assert not caplog.messages


def test_json_and_the_keys_asked_for(runs, capsys):
    main(["--json", "runs", "runs/train", "--keys", "seed"])
    content = json.loads(capsys.readouterr().out)
    new, old = content["training"]
    assert new["config"] == {"seed": 100}
    assert (old["folder"], old["when"]) == ("runs/train/old", "2001-09-09T01:46:40+00:00")
    assert old["scores"] == {"psnr/held": 22.0, "ssim/held": 0.22}
    assert [len(run["rows"]) for run in content["evaluation"]] == [1, 3]
    assert content["evaluation"][0]["rows"][0]["convention"] == "official"
    with pytest.raises(ConfigError, match=r"has optimizer\.lr: did you mean optimiser\.lr"):
        main(["--keys", "optimizer.lr"])


def test_runs_of_several_detectors_appear_once(tmp_path, capsys):
    detect(tmp_path, when=1e9, detectors=("n", "s"))
    detect(tmp_path / "detectors" / "n", when=1e9)
    detect(tmp_path / "other", when=1e9 - 60)
    lines = printed(capsys, str(tmp_path))
    assert [line.split()[2] for line in lines[2:-1]] == [*"nnnsss", *["yolo"] * 3]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("log.jsonl", "", "log.jsonl has no step yet: unfinished"),
        ("log.jsonl", '{"step": 0, "psnr/held": 3.5}\n', "log.jsonl has no step yet: unfinished"),
        ("log.jsonl", "\0[", "log.jsonl is damaged"),
        ("log.jsonl", '{"step": 1, "total": 1}\n', "cannot read bad/config.yaml"),
        ("rows/median.jsonl", "{}", "bad has no metrics.json yet: unfinished"),
        ("rows/wet/median.jsonl", "{}", "bad has no metrics.json yet: unfinished"),
        ("metrics.json", '{"rows": [', "metrics.json is damaged: no JSON"),
        ("metrics.json", "[" * 100_000, "metrics.json is damaged: no JSON"),
        ("metrics.json", "[]", "metrics.json is of no evaluation"),
        ("metrics.json", '{"rows": [{"shot": "all"}]}', "metrics.json is of no eval.detect"),
    ],
)
def test_what_cannot_be_compared_is_named(tmp_path, monkeypatch, caplog, name, content, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad" / name).parent.mkdir(parents=True)
    (tmp_path / "bad" / name).write_text(content)
    with pytest.raises(DatasetError, match="no run to compare in bad"):
        main(["bad"])
    detect(tmp_path / "good", when=1e9)
    caplog.clear()
    main(["bad", "good"])
    assert len(caplog.messages) == 1
    assert said in caplog.text


def test_damaged_lines_and_a_missing_folder_are_named(runs, caplog, capsys):
    with (runs / "train/old/log.jsonl").open("a") as log:
        log.write('{"step": 9, "tot')
    (runs / "train/new/config.yaml").write_text("stages: 3")
    (runs / "train/gone").mkdir()
    (runs / "train/gone/log.jsonl").symlink_to("nowhere")
    lines = printed(capsys, "runs/train", "missing")
    assert lines[2].startswith("runs/train/old 3 of 4 ")
    assert sorted(message.removeprefix("left out: ") for message in caplog.messages) == [
        "cannot list the folder missing: No such file or directory",
        "cannot read runs/train/gone/log.jsonl: No such file or directory",
        "damaged lines of runs/train/old/log.jsonl: 1",
        "runs/train/new/config.yaml has no stages with steps",
    ]
