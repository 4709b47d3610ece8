import dataclasses
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from eval.detect.figures import class_changes, gain_scatter, score_bars
from eval.detect.model import ClassRow, Cost, TableRow
from eval.detect.report import Report, render_report
from eval.detect.verdicts import control_warning, headline, judge, rain_sentence
from eval.report.facts import RunFacts
from eval.report.figures import to_svg
from eval.report.strips import Mark, Panel, Strip
from eval.scores.score import Score
from eval.scores.timing import Timing
from rainmer.figures import save_figure
from rainmer.frames.images import read_image
from tests.eval.pages import Page, check_self_contained


def row(kind, derainer="", condition="all", *, mean_ap=0.2, delta=None, half=0.02, **more):
    known = delta is not None and half is not None
    change = Score(delta, delta - half, delta + half) if known else Score(delta)
    values = {"image_set": "rain", "mean_ap": mean_ap, "change": change, "images": 20, "boxes": 80}
    return TableRow(condition=condition, input=kind, derainer=derainer, **values | more)


def full_rows(name="prenet", condition="all"):
    """Return the rows of a run with everything: 20.2 rainy, 38.9 derained, 55.6 clean."""
    quality = {"psnr": 13.7, "ssim": 0.37, "psnr_official": 13.7, "ssim_official": 0.38}
    better = {"psnr": 22.8, "ssim": 0.71, "psnr_official": 22.8, "ssim_official": 0.72}
    detect = Timing(4.0, 4.4, 20)
    cost = {"cost": Cost(derain=Timing(12.0, 13.0, 20, earlier=True), detect=detect)}
    counts = {"precision": 0.6, "recall": 0.4, "tp": 30, "fp": 20, "fn": 50}
    return [
        row(
            "rainy",
            condition=condition,
            mean_ap=0.202,
            cost=Cost(detect=detect),
            **quality,
            **counts,
        ),
        row(
            "derained",
            name,
            condition,
            mean_ap=0.389,
            delta=0.187,
            half=0.026,
            **better | cost | counts | {"recovered": 0.528},
        ),
        row("clean", condition=condition, mean_ap=0.556, delta=0.354),
        row("derained_clean", name, condition, mean_ap=0.522, delta=-0.034, half=0.015),
    ]


def class_rows(count=3, name="prenet", condition="all", class_name="class {}"):
    rows = []
    for index in range(count):
        change = (index - count / 2) / (2 * count)
        for kind, derainer, delta in (("rainy", "", None), ("derained", name, change)):
            rows.append(
                ClassRow(
                    condition=condition,
                    input=kind,
                    derainer=derainer,
                    class_name=class_name.format(index),
                    boxes=4 * index,
                    ap=0.5 + (delta or 0.0),
                    ap50=0.6,
                    change=Score(delta),
                )
            )
    return rows


def strips():
    frame = np.full((60, 80, 3), 90, np.uint8)
    panels = [
        Panel("rainy", frame, [Mark((5, 5, 40, 40), "missed", "car")]),
        Panel("prenet", frame, [Mark((5, 5, 40, 40), "found", "car", 0.8)]),
    ]
    return [
        Strip("lost.jpg", "night", "prenet", -2, panels),
        Strip("won.jpg", "all", "prenet", 1, panels),
        Strip("same.jpg", "all", "prenet", 0, panels),
    ]


FACTS = RunFacts(
    command="python -m eval.detect --derain prenet",
    date="2026-11-22",
    protocol={"imgsz": 640, "conf": 0.001, "confidence": 0.25},
    notes=["2 labels have no image"],
    environment={"torch": "2.15.0", "device": "cpu"},
    config={"seed": 0},
    elapsed_s={"derain": 12.5},
)


def full_report(facts=None, **more):
    values = {
        "set_name": "rain",
        "detector": "yolov8n.pt",
        "facts": dataclasses.replace(FACTS, **facts or {}),
        "rows": full_rows(),
        "per_class": class_rows(),
        "strips": strips(),
    }
    return Report(**values | more)


@pytest.fixture(scope="module")
def whole():
    """The text of a page with everything on it."""
    return render_report(full_report())


# Verdicts


def test_verdict_of_a_gain_with_harm_on_clean_images():
    (one,) = judge(full_rows())
    assert one.text == (
        "prenet raises mAP by 18.7 points [16.1, 21.3] over the rainy images (20.2 → 38.9) and "
        "recovers 53 % of what the rain took. On clean images it costs 3.4 points [1.9, 4.9]."
    )
    assert (one.effect, one.clean_effect) == ("helps", "harms")


def test_verdict_of_a_loss_turns_the_interval():
    rows = [row("rainy"), row("derained", "x", mean_ap=0.16, delta=-0.04, recovered=-0.2)]
    (one,) = judge(rows)
    assert one.effect == "harms"
    assert one.text == (
        "x lowers mAP by 4.0 points [2.0, 6.0] over the rainy images (20.0 → 16.0)."
    )
    assert headline(rows) == "x lowers mAP by 4.0 points [2.0, 6.0]"


@pytest.mark.parametrize("delta", [0.01, -0.01, 0.02, -0.02])
def test_an_interval_with_zero_is_no_measurable_change(delta):
    rows = [row("rainy"), row("derained", "x", delta=delta, recovered=0.4)]
    (one,) = judge(rows)
    assert one.effect == "unclear"
    assert "no measurable change" in one.sentence
    assert "recovers" not in one.sentence
    assert headline(rows) == "No measurable change of mAP with x"


def test_without_an_interval_nothing_is_claimed():
    (one,) = judge([row("rainy"), row("derained", "x", delta=0.1, half=None)])
    assert one.effect == "unclear"
    assert one.sentence == ("changes mAP by +10.0 points without an interval, so it may be chance.")


@pytest.mark.parametrize("delta", [None, math.nan])
def test_undefined_map_is_said(delta):
    rows = [row("rainy", mean_ap=None), row("derained", "x", mean_ap=None, delta=delta)]
    (one,) = judge(rows)
    assert one.effect == "undefined"
    assert "undefined" in one.sentence
    assert "undefined" in headline(rows)


@pytest.mark.parametrize(
    ("delta", "words"),
    [
        (-0.03, "it costs 3.0 points [1.0, 5.0]."),
        (0.03, "it adds 3.0 points [1.0, 5.0]."),
        (0.01, "it makes no measurable change (+1.0 points [-1.0, 3.0])."),
    ],
)
def test_clean_images_have_their_own_sentence(delta, words):
    rows = [row("rainy"), row("derained", "x", delta=0.1), row("derained_clean", "x", delta=delta)]
    (one,) = judge(rows)
    assert one.clean_sentence == f"On clean images {words}"


def test_headline_names_the_best_real_derainer_and_its_harm():
    rows = [*rivalled(0.1), row("derained", "weak", mean_ap=0.21, delta=0.05)]
    assert headline(rows) == (
        "prenet raises mAP by 18.7 points [16.1, 21.3], the best of 2 measured, "
        "but costs 3.4 points [1.9, 4.9] where there is no rain"
    )
    rows[1] = replace(rows[1], rival_change=Score(0.1, -0.01, 0.2))
    assert "the highest of 2 measured but not clearly above weak, but costs" in headline(rows)
    assert control_warning(judge(full_rows())) == ""
    assert headline([row("rainy")]) == "No derainer was measured"


def rivalled(lead, half=0.02):
    """Return the rows of a run in which two others have lower mAP by `lead`."""
    rows = full_rows()
    change = Score(lead, lead - half, lead + half)
    rivals = {"control": "median", "rival": "weak"}
    rows[1] = replace(rows[1], control_change=change, rival_change=change, **rivals)
    return rows


@pytest.mark.parametrize(
    ("lead", "effect", "banner", "words"),
    [
        (0.1, "helps", "", "It is 10.0 points [8.0, 12.0] above the control median."),
        (0.02, "unclear", "prenet is not clearly better than the control “median” (+2.0 points ",
         "Against the control median: +2.0 points [0.0, 4.0], no clear difference."),
        (0.0200004, "helps", "", "[0.00004, 4.0]"),
        (-0.1, "harms", "The control “median” does better than prenet (-10.0 points ",
         "It is 10.0 points [8.0, 12.0] below the control median."),
    ],
)  # fmt: skip
def test_banner_finding_and_mark_agree_on_the_control(lead, effect, banner, words):
    """All three follow from one paired interval, unrounded."""
    rows = rivalled(lead)
    (one,) = judge(rows)
    assert one.rival_effect == effect
    assert words in one.text
    warning = control_warning([one])
    assert warning.startswith(banner)
    assert bool(warning) == bool(banner)
    marked = '<tr class="best">' in render_report(full_report(rows=rows, per_class=(), strips=()))
    assert marked == (effect == "helps")


def test_few_images_claim_nothing():
    rows = [replace(one, images=8, boxes=31) for one in rivalled(0.1)]
    assert headline(rows).startswith("Too few images to tell: 8 images with 31 boxes, where at ")
    (one,) = judge(rows)
    assert (one.effect, one.rival_effect, one.clean_effect) == ("unclear",) * 3
    assert "on 8 images with 31 boxes: too few to tell" in one.text
    assert control_warning([one]) == ""
    assert "of mAP differs" not in rain_sentence(rows, "all")
    page = render_report(full_report(rows=rows, per_class=(), strips=()))
    assert 'class="tile' not in page
    assert "verdict helps" not in page
    boxes = [replace(one, boxes=31) for one in rows]
    boxes = [replace(one, images=90) for one in boxes]
    assert headline(boxes).startswith("Too few boxes to tell: 90 images with 31 boxes")


def test_a_part_of_a_set_is_never_called_all():
    page = Page(render_report(full_report(total=200))).text
    assert "20 of 200 images" in page
    assert "all images" not in page
    assert "all images" in Page(render_report(full_report(total=20))).text


def test_verdicts_come_by_condition_best_first_controls_last():
    rows = [
        row("derained", name, condition, delta=delta)
        for condition in ("night", "all")
        for name, delta in (("median", 0.3), ("a", 0.1), ("b", 0.2))
    ]
    order = [(one.condition, one.derainer) for one in judge(rows)]
    assert order[:4] == [("all", "b"), ("all", "a"), ("all", "median"), ("night", "b")]


@pytest.mark.parametrize(
    ("delta", "words"),
    [
        (0.354, "The rain takes 35.4 points [33.4, 37.4] of mAP"),
        (0.001, "nothing measurable for a derainer to recover"),
        (-0.1, "does better in the rain, by 10.0 points [8.0, 12.0]"),
    ],
)
def test_what_the_rain_takes(delta, words):
    rows = [row("rainy"), row("clean", delta=delta)]
    assert words in rain_sentence(rows, "all")
    assert rain_sentence(rows[:1], "all") == ""


# The page


def test_page_is_whole_and_self_contained(whole):
    check_self_contained(whole)


def test_ids_are_unique_and_references_resolve():
    text = render_report(full_report(per_class=class_rows() + class_rows(name="other")))
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    referred = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
    assert {one or other for one, other in referred} <= set(ids)
    assert text.count("<svg") == 6, "each chart once for a page and once for a phone"
    widths = [float(width) for width in re.findall(r'viewBox="0 0 ([\d.]+)', text)]
    assert sorted(width < 300 for width in widths) == [False] * 3 + [True] * 3


def test_page_is_accessible(whole):
    page = Page(whole)
    assert all(image.get("alt") for image in page.all("img"))
    assert all(svg.get("aria-label") for svg in page.all("svg"))
    assert all(head.get("scope") for head in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"
    assert not re.search(r"<th[^>]*>\s*</th>", whole), "a heading without words"


def test_page_tells_verdict_table_notes_and_method(whole):
    page = Page(whole)
    for words in (
        "prenet raises mAP by 18.7 points",
        "38.9",
        "+18.7 [16.1, 21.3]",
        "−3.4 [−4.9, −1.9]",
        "is against clean , not rainy",
        "2 labels have no image",
        "python -m eval.detect --derain prenet",
        '"torch": "2.15.0"',
        "Precision, recall and counts at one fixed confidence (0.25)",
    ):
        assert words in page.text, words


def test_gains_come_before_losses(whole):
    assert whole.index("won.jpg") < whole.index("lost.jpg") < whole.index("same.jpg")
    assert "+1 correct detection<" in whole
    assert "−2 correct detections<" in whole


HOSTILE = '<script>alert("x")</script>&$a_b$'


def test_boxes_lie_on_layers_that_can_be_switched_off(whole):
    page = Page(whole)
    layers = {attrs["id"] for attrs in page.all("input") if attrs["type"] == "checkbox"}
    assert layers == {"show-found", "show-missed", "show-false"}
    assert {attrs["for"] for attrs in page.all("label")} == layers
    boxes = [attrs for attrs in page.all("i") if attrs["class"].startswith("box")]
    assert {box["class"] for box in boxes} == {"box found", "box missed"}
    assert boxes[0]["style"].startswith("left:6.25%;top:8.33%;width:43.75%")
    assert page.all("img")[0]["width"] == "80", "in full resolution"


def test_hostile_names_are_escaped():
    frame = np.zeros((20, 20, 3), np.uint8)
    strip = Strip(HOSTILE, HOSTILE, HOSTILE, 1, [Panel(HOSTILE, frame)], unit=HOSTILE)
    report = full_report(
        set_name=HOSTILE,
        detector=HOSTILE,
        rows=full_rows(HOSTILE, HOSTILE) + full_rows("b", "c"),
        per_class=class_rows(3, HOSTILE, HOSTILE, HOSTILE),
        strips=[strip],
        facts={
            "command": HOSTILE,
            "notes": [HOSTILE],
            "protocol": {HOSTILE: HOSTILE},
            "config": {HOSTILE: HOSTILE},
            "environment": {"device": HOSTILE},
            "elapsed_s": {HOSTILE: 1.0},
        },
    )
    text = render_report(report)
    page = Page(text)
    assert text.count("<script") == 1
    assert page.text.count(HOSTILE) >= 10


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"strips": ()}, id="no strips"),
        pytest.param({"per_class": ()}, id="no classes"),
        pytest.param({"rows": ()}, id="no rows"),
        pytest.param({"rows": full_rows()[:1]}, id="only rainy"),
        pytest.param({"rows": full_rows()[:2]}, id="no clean images"),
        pytest.param({"rows": full_rows("n" * 200)}, id="long name"),
        pytest.param({"rows": full_rows(condition="night")}, id="one condition"),
        pytest.param({"rows": [row("rainy", mean_ap=None), row("derained", "x")]}, id="all None"),
        pytest.param(
            {"rows": [replace(one, mean_ap=math.nan, psnr=math.nan) for one in full_rows()]},
            id="NaN",
        ),
        pytest.param(
            {"rows": [replace(one, change=Score()) for one in full_rows()]}, id="no deltas"
        ),
        pytest.param(
            {"facts": {"notes": (), "protocol": {}, "config": {}, "environment": {}}}, id="bare"
        ),
    ],
)
def test_page_survives_what_is_missing(changes):
    text = render_report(full_report(**changes))
    page = Page(text)
    assert "None" not in page.text
    assert not re.search(r"\bnan\b", text)


def test_restoration_is_hidden_without_psnr(whole):
    quality = ("psnr", "ssim", "psnr_official", "ssim_official")
    rows = [replace(one, **dict.fromkeys(quality)) for one in full_rows()]
    assert 'id="restoration"' not in render_report(full_report(rows=rows))
    assert 'id="restoration"' in whole


def test_pseudo_labels_are_named_as_such(whole):
    assert "Agreement, not accuracy" in render_report(full_report(pseudo_labels=True))
    assert "Agreement, not accuracy" not in whole


# The figures


@pytest.mark.parametrize("count", [1, 2, 20])
def test_bars_draw_any_number_of_rows(count):
    rows = [row("rainy", mean_ap=0.3)]
    rows += [row("derained", f"d{i}", mean_ap=0.2, delta=-0.1) for i in range(count - 1)]
    svg = to_svg(score_bars(rows), "bars", "alt")
    assert svg.count("(−10.0)") == count - 1


def test_whisker_is_the_interval_around_its_reference():
    axes = score_bars(full_rows()).axes[0]
    whiskers = [line.get_xdata() for line in axes.lines if line.get_marker() == "|"]
    expected = [(20.2 + 16.1, 20.2 + 21.3), (20.2 + 33.4, 20.2 + 37.4), (55.6 - 4.9, 55.6 - 1.9)]
    assert np.allclose(whiskers, expected)


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (24, 24), (80, 24)])
def test_class_chart_shows_the_extremes(count, shown):
    chosen = [one for one in class_rows(count) if one.input == "derained"]
    figure = class_changes(chosen)
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert len(widths) == shown
    assert widths == sorted(widths, reverse=True)
    changes = [100 * one.change.value for one in chosen]
    assert np.isclose(widths[0], max(changes))
    assert np.isclose(widths[-1], min(changes))


def test_charts_without_data_are_left_out():
    assert class_changes([]) is None
    unchanged = ClassRow(condition="all", input="derained", derainer="x", class_name="x", boxes=0)
    assert class_changes([unchanged]) is None
    assert gain_scatter([row("rainy"), row("derained", "x", delta=0.1, psnr=3.0)]) is None


def test_scatter_shows_gains_against_rainy():
    figure = gain_scatter(full_rows())
    points = [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for axes in figure.axes
        for line in axes.lines
        if line.get_marker() == "o"
    ]
    assert np.allclose(points, [(9.1, 18.7), (0.34, 18.7)])


def test_svg_takes_the_page_s_ink_and_font():
    svg = to_svg(score_bars(full_rows()), "one", 'say "hi"')
    assert svg.startswith('<svg class="plot" role="img" aria-label="say &quot;hi&quot;"')
    assert "currentColor" in svg
    assert "DejaVu" not in svg
    assert "<style" not in svg
    assert "<?xml" not in svg
    ids = re.findall(r'\sid="([^"]+)"', svg)
    assert ids
    assert all(one.startswith("one-") for one in ids)


def test_png_is_written_on_white(tmp_path):
    path = tmp_path / "bars.png"
    save_figure(path, score_bars(full_rows()))
    image = read_image(path)
    assert (image[0, 0] == 255).all()
    assert (image != 255).any()
