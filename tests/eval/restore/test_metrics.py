"""Metrics of the optional package piq: what they measure, and where their weights come from."""

import http.server
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import correlate

from eval.restore.__main__ import main
from eval.restore.methods import Method
from eval.restore.metrics import EXTRA, METRICS, load_metrics
from eval.restore.report import headline, render_report
from eval.restore.rows import RowRunner
from eval.restore.scores import score_image
from eval.restore.sets import load_sets
from eval.restore.tables import format_text, metric_table, paper_tables, to_latex, to_markdown
from rainmer import Derainer
from rainmer.errors import RainmerError, WeightsError
from rainmer.frames.images import write_image
from tests.eval.pages import Page, check_self_contained
from tests.eval.restore.test_report import full_report
from tests.eval.restore.test_restore_command import arguments
from tests.eval.restore.test_tables import entry, line
from tests.eval.restore.trees import Counting, grey, pair, write_pairs
from tests.eval.trees import rain

CPU = torch.device("cpu")
SIZE = (48, 64)
FREE = ("vif", "fsim", "gmsd")  # without weights


@pytest.fixture
def piq():
    return pytest.importorskip("piq", reason=f"needs the extra: rainmer[{EXTRA}]")


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """The folder where torch keeps weights: an empty one."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def write_brisque(file):
    """Write weights of BRISQUE's form: coefficients (N, 1) and N support vectors of 36 features."""
    rng = torch.Generator().manual_seed(0)
    vectors = torch.rand(20, 36, generator=rng) * 2 - 1
    torch.save((torch.rand(20, 1, generator=rng) * 40, vectors), file)


def gmsd_by_hand(one, other):
    """GMSD as its paper has it: Prewitt gradients of the halved luma, 170 of 255 levels squared."""
    gradients = []
    for frame in (one, other):
        luma = frame.astype(np.float64) @ [0.299, 0.587, 0.114]
        halved = luma.reshape(luma.shape[0] // 2, 2, luma.shape[1] // 2, 2).mean(axis=(1, 3))
        prewitt = np.array([[1, 0, -1]] * 3) / 3
        parts = [correlate(halved, kernel, mode="constant") for kernel in (prewitt, prewitt.T)]
        gradients.append(np.hypot(*parts))
    a, b = gradients
    return np.std((2 * a * b + 170) / (a**2 + b**2 + 170))


def test_gmsd_is_that_of_its_paper(piq):
    wet, dry = pair(3, SIZE)
    scores = load_metrics(["gmsd"])(wet, dry, CPU)
    assert scores == {"gmsd": pytest.approx(gmsd_by_hand(wet, dry), abs=1e-4)}
    assert scores["gmsd"] > 0.05


@pytest.mark.parametrize("name", FREE)
def test_more_rain_is_worse_by_the_direction_that_is_told(piq, name):
    dry = pair(3, SIZE)[1]
    extra = load_metrics([name])
    values = [extra(rain(dry, 3, share), dry, CPU)[name] for share in (0.0, 0.002, 0.008)]
    assert values[0] == pytest.approx(0.0 if METRICS[name].lower_is_better else 1.0, abs=1e-5)
    assert sorted(values, reverse=not METRICS[name].lower_is_better) == values
    assert len(set(values)) == 3


def test_images_that_are_not_rounded_are_measured_as_they_are(piq):
    wet, dry = pair(3, SIZE)
    extra = load_metrics(["gmsd", "vif"])
    floats = wet.astype(np.float32) / 255
    assert extra(floats, dry, CPU) == pytest.approx(extra(wet, dry, CPU), abs=1e-5)
    assert extra(floats * np.float32(0.999), dry, CPU) != extra(wet, dry, CPU)


def test_small_images_lack_what_they_are_too_small_for(piq):
    wet, dry = pair(3, (24, 32))
    assert load_metrics(FREE)(wet, dry, CPU).keys() == {"fsim", "gmsd"}
    assert load_metrics(FREE)(wet[:15], dry[:15], CPU) == {}
    assert load_metrics(FREE)(wet, None, CPU) == {}


def test_brisque_needs_no_clean_image_but_some_statistics(piq, checkpoints):
    write_brisque(checkpoints / "brisque_svm_weights.pt")
    extra = load_metrics(["brisque", "gmsd"])
    wet, dry = pair(3, SIZE)
    scores = extra(wet, None, CPU)
    assert scores.keys() == {"brisque"}
    assert extra(wet, dry, CPU)["brisque"] == scores["brisque"] != extra(dry, None, CPU)["brisque"]
    stripes = grey(0)
    stripes[:, ::2] = 255
    assert extra(grey(), None, CPU) == extra(grey(0), None, CPU) == extra(stripes, None, CPU) == {}


def test_lpips_weights_normalised_differences_of_features(piq, checkpoints, monkeypatch):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = torchvision.models.vgg16(weights=None, num_classes=2).eval()
    monkeypatch.setattr("piq.perceptual.vgg16", lambda **options: network)
    weights = [torch.rand(1, width, 1, 1) for width in (64, 128, 256, 512, 512)]
    torch.save(weights, checkpoints / "lpips_weights.pt")
    torch.save({}, checkpoints / "vgg16-397923af.pth")
    wet, dry = pair(3, SIZE)
    expected, features = 0.0, []
    for frame in (wet, dry):
        x = torch.from_numpy(frame).permute(2, 0, 1)[None] / 255
        mean, std = (
            torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        x, taken = (x - mean) / std, []
        for number, layer in enumerate(network.features):
            x = layer(x)
            if number in (3, 8, 15, 22, 29):
                taken.append(torch.nn.functional.normalize(x, dim=1).detach().clone())
        features.append(taken)
    for one, other, weight in zip(*features, weights, strict=True):
        expected += float((weight * (one - other) ** 2).sum(dim=1).mean())
    extra = load_metrics(["lpips"])
    assert extra(wet, dry, CPU)["lpips"] == pytest.approx(expected, rel=1e-3)
    assert extra(dry, dry, CPU)["lpips"] == 0.0
    assert extra.digests.keys() == {"lpips_weights.pt", "vgg16-397923af.pth"}


def test_weights_are_those_that_the_package_asks_for(piq):
    torchvision = pytest.importorskip("torchvision")
    names = [Path(address).name for address in METRICS["lpips"].weights]
    assert names[0] == Path(piq.LPIPS._weights_url).name
    assert Path(METRICS["dists"].weights[0]).name == Path(piq.DISTS._weights_url).name
    assert METRICS["lpips"].weights[1] == torchvision.models.VGG16_Weights.IMAGENET1K_V1.url


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch, tmp_path, type_in):
    monkeypatch.setitem(sys.modules, "piq", None)
    root, out = write_pairs(tmp_path / "set"), tmp_path / "run"
    code, _, lines = type_in(*arguments(out, [f"folders:{root}"], "--metrics", "gmsd"))
    assert code == 2
    assert lines == ["error: --metrics needs the package piq: pip install 'rainmer[metrics]'"]
    assert not out.exists()


def test_missing_weights_are_named_before_anything_is_done(piq, checkpoints, tmp_path, type_in):
    root, out = write_pairs(tmp_path / "set"), tmp_path / "run"
    (checkpoints / "lpips_weights.pt").touch()
    command = arguments(out, [f"folders:{root}"], "--metrics", "gmsd", "lpips", "brisque")
    code, _, lines = type_in(*command)
    assert code == 2
    (message,) = lines
    assert message.startswith("error: --metrics lpips brisque: weights are missing in ")
    assert str(checkpoints) in message
    assert "--allow-download" in message
    assert message.endswith("brisque_svm_weights.pt")
    assert "lpips_weights.pt" not in message, "it is there"
    assert not out.exists()


@pytest.fixture
def server(tmp_path):
    """A server of files on this machine: its folder and address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def serve(monkeypatch, address, name="brisque_svm_weights.pt"):
    monkeypatch.setitem(
        METRICS, "brisque", replace(METRICS["brisque"], weights=(f"{address}/{name}",))
    )


def test_weights_are_fetched_once_when_allowed(piq, checkpoints, server, monkeypatch):
    folder, address = server
    serve(monkeypatch, address)
    write_brisque(folder / "brisque_svm_weights.pt")
    with pytest.raises(RainmerError, match="say --allow-download: http://127"):
        load_metrics(["brisque"])
    extra = load_metrics(["brisque"], allow_download=True)
    assert [path.name for path in checkpoints.iterdir()] == ["brisque_svm_weights.pt"]
    (folder / "brisque_svm_weights.pt").unlink()
    wet = pair(3, SIZE)[0]
    assert load_metrics(["brisque"])(wet, None, CPU) == extra(wet, None, CPU) != {}


def test_what_cannot_be_fetched_is_said(piq, checkpoints, server, monkeypatch):
    folder, address = server
    serve(monkeypatch, address, "absent.pt")
    with pytest.raises(WeightsError, match=r"cannot fetch .*absent.pt: HTTP Error 404"):
        load_metrics(["brisque"], allow_download=True)
    serve(monkeypatch, address, "named-0123abcd.pt")
    write_brisque(folder / "named-0123abcd.pt")
    with pytest.raises(WeightsError, match=r"cannot fetch .*invalid hash value"):
        load_metrics(["brisque"], allow_download=True)
    assert not list(checkpoints.iterdir())


class Intruder:
    def __reduce__(self):
        return Path.touch, (Path(self.file),)


@pytest.mark.parametrize("content", ["code", "damaged"])
def test_weights_that_are_more_than_data_are_refused(piq, checkpoints, tmp_path, content):
    file = checkpoints / "brisque_svm_weights.pt"
    intruder = Intruder()
    intruder.file = str(tmp_path / "was-here")
    if content == "code":
        torch.save([intruder], file)
    else:
        file.write_bytes(b"\x00" * 100)
    with pytest.raises(WeightsError, match="or no weights alone") as caught:
        load_metrics(["brisque"])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "was-here").exists()


def test_a_run_with_metrics(piq, checkpoints, tmp_path, capsys):
    write_brisque(checkpoints / "brisque_svm_weights.pt")
    root = write_pairs(tmp_path / "set", 4, size=SIZE)
    real = write_pairs(tmp_path / "real", 3, rainy="Real_Internet/{}.png", clean=None, size=SIZE)
    out = tmp_path / "run"
    more = ["--metrics", "gmsd", "brisque", "vif"]
    main(
        arguments(
            out, [f"mine=folders:{root}", f"realint:{real}"], *more, derain=("none", "median")
        )
    )
    printed = capsys.readouterr().out
    assert "GMSD ↓" in printed
    assert "VIF " in printed
    assert (
        "realint: no clean images, so no PSNR and SSIM: BRISQUE, images and times only" in printed
    )
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["metrics"] == ["gmsd", "brisque", "vif"]
    assert metrics["config"]["metrics_weights"].keys() == {"brisque_svm_weights.pt"}
    rows = {(r["set"], r["derainer"]): r for r in metrics["rows"]}
    for (name, derainer), one in rows.items():
        assert (one["gmsd"] is None) == (name == "realint")
        assert (one["delta_brisque"] is None) == (derainer == "")
        assert one["brisque"] is not None
    rainy, median = rows["mine", ""], rows["mine", "median"]
    assert median["delta_gmsd"] == pytest.approx(median["gmsd"] - rainy["gmsd"])
    assert median["delta_gmsd_low"] <= median["delta_gmsd"] <= median["delta_gmsd_high"]
    images = pd.read_csv(out / "images.csv")
    chosen = images[(images["set"] == "mine") & (images["derainer"] == "median")]
    assert chosen["gmsd"].mean() == pytest.approx(median["gmsd"])
    assert "delta_vif_low" in pd.read_csv(out / "metrics.csv")
    tables = (out / "table.md").read_text()
    assert "**GMSD, lower is better**" in tables
    assert "**BRISQUE, lower is better**\n\n| method | mine | realint | average |" in tables
    assert "% VIF, higher is better; needs" in (out / "table.tex").read_text()
    text = (out / "report.html").read_text()
    check_self_contained(text)
    page = Page(text)
    for words in ("Other metrics", "Δ BRISQUE [95 %]", "piq 0.8", "Mittal et al."):
        assert words in page.text, words


def test_an_interrupted_row_resumes_with_its_metrics(piq, tmp_path):
    (one,) = load_sets([f"folders:{write_pairs(tmp_path / 'set', 5, size=SIZE)}"])

    def start(folder, stop_at=None, names=("gmsd",)):
        derainer = Counting(stop_at)
        stage = Derainer(derainer, device="cpu", batch=1)
        extra = load_metrics(names) if names else None
        runner = RowRunner(folder, ["matlab"], metrics=extra)
        scores = runner.run(one, Method("counting", {one.label: stage}, {}))
        return derainer.seen, {name: score.scores for name, score in scores.items()}

    _, whole = start(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "cut", stop_at=4)
    seen, resumed = start(tmp_path / "cut")
    assert seen == 2
    assert resumed == whole
    assert all(scores.keys() == {"psnr", "ssim", "gmsd"} for scores in whole.values())
    assert start(tmp_path / "cut", names=())[0] == 5, "another row"


def test_images_without_a_metric_are_counted(piq, tmp_path, capsys):
    root = write_pairs(tmp_path / "set", 3, size=SIZE)
    for folder in ("input", "target"):
        write_image(root / folder / "9.png", pair(9, (24, 32))[folder == "target"])
    main(arguments(tmp_path / "run", [f"mine=folders:{root}"], "--metrics", "vif"))
    printed = capsys.readouterr().out
    assert "mine: rainy: no VIF of 1 of 4 images: a side below 41 pixels, or too plain" in printed


# What follows needs no package: rows are plain data.


def metric_rows(**more):
    rows = []
    for derainer, gmsd, vif in (("", 0.3, 0.2), ("a", 0.1, 0.5), ("b", 0.2, 0.6)):
        fields = {"gmsd": gmsd, "vif": vif}
        for key, change in (("gmsd", -0.1), ("vif", 0.2)):
            names = (f"delta_{key}", f"delta_{key}_low", f"delta_{key}_high")
            values = (change, change - 0.05, change + 0.05) if derainer else (None,) * 3
            fields |= dict(zip(names, values, strict=True))
        rows.append(entry("x", derainer, **fields | more))
    return rows


def test_the_lowest_is_best_where_lower_is_better():
    ranks = {
        name: [
            line(metric_table(metric_rows(), METRICS[name]), who).cells[0].scores[0].rank
            for who in "ab"
        ]
        for name in ("gmsd", "vif")
    }
    assert ranks == {"gmsd": ["best", "second"], "vif": ["second", "best"]}
    assert metric_table(metric_rows(), METRICS["brisque"]) is None
    tables = paper_tables(metric_rows(), ["matlab"], [METRICS["gmsd"], METRICS["dists"]])
    assert [table.title for table in tables] == ["Convention matlab", "GMSD, lower is better"]


def test_metrics_as_text():
    table = metric_table(metric_rows(), METRICS["gmsd"])
    assert "| a | **0.1000** |" in to_markdown(table)
    assert "| b | <u>0.2000</u> |" in to_markdown(table)
    assert r"a & \textbf{0.1000} \\" in to_latex(table)
    lines = format_text(metric_rows(), "matlab", [METRICS["gmsd"]]).splitlines()
    assert len({len(one) for one in lines[:-1]}) == 1
    assert "-0.1000 [-0.1500, -0.0500]" in lines[3]
    assert lines[-1].endswith("↓ lower is better")


def test_a_report_colours_changes_by_their_direction():
    metrics = [METRICS["gmsd"], METRICS["vif"]]
    text = render_report(full_report(metric_rows(), ["matlab"], metrics))
    check_self_contained(text)
    assert '<td class="number helps-text">−0.1000 [−0.1500, −0.0500]</td>' in text
    assert "<b>0.1000</b>" in text
    worse = metric_rows(delta_gmsd_low=0.05, delta_gmsd_high=0.1)
    assert "harms-text" in render_report(full_report(worse, ["matlab"], metrics))
    assert "Other metrics" not in render_report(full_report(metric_rows(), ["matlab"]))


def test_the_headline_without_clean_images_names_what_there_is():
    fields = {"reference": False, "brisque": 30.0, "delta_psnr": None}
    rows = [entry("x", who, None, None, **fields) for who in ("", "a")]
    assert headline(rows, "matlab", [METRICS["brisque"]]) == "No PSNR could be given; BRISQUE below"
    assert headline(rows, "matlab") == "No score could be given"


def test_without_metrics_scores_are_as_ever():
    wet, dry = pair(3, SIZE)
    assert score_image(wet, dry, ["matlab"], CPU).keys() == {"psnr", "ssim"}
