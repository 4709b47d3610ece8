"""The report of a restoration run: one page with the paper's tables, gains, and the worst cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from eval.report.figures import to_svg
from eval.report.page import as_text, render_page, strip_group
from eval.report.strips import Strip, StripGroup
from eval.report.tables import CONTROLS, UNDEFINED, Row, format_count, format_ms, number
from eval.restore.comparison import RowResult
from eval.restore.metrics import Metric
from eval.restore.plots import MOST_POINTS, image_scatter
from eval.restore.scores import Measure, key_of, measures_of
from eval.restore.strips import Strips
from eval.restore.tables import DIGITS, RAINY, format_change, format_score, paper_tables
from rainmer.metrics import Convention

__all__ = ["Report", "render_report"]

_STRIP_TITLES = {
    "worst": "The images that gain least",
    "lowest": "The lowest PSNR after deraining",
    "best": "The images that gain most",
    "unscored": "Without clean images to compare with",
}
_MOST_SCENE_LINES = 400


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a report shows.

    Attributes:
        rows: Rows of metrics.json.
        scenes: Rows of scenes.csv.
        results: The rows with the scores of each image, for the scatter; may be empty.
        conventions: How images were scored; the first is the main one.
        metrics: What was measured beside PSNR and SSIM.
        strips: Pictures to show.
        command: The command line that made this.
        date: When, in words.
        protocol: Facts of the measurement.
        notes: Sentences on the data.
        environment: Versions and devices.
        config: The resolved configuration.
        elapsed: Seconds of each part of the run.
    """

    rows: Sequence[Row]
    conventions: Sequence[Convention]
    metrics: Sequence[Metric] = ()
    scenes: Sequence[Row] = ()
    results: Sequence[RowResult] = ()
    strips: Strips = field(default_factory=lambda: Strips([], [], [], []))
    command: str = ""
    date: str = ""
    protocol: Mapping[str, object] = field(default_factory=dict)
    notes: Sequence[str] = ()
    environment: Mapping[str, object] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    elapsed: Mapping[str, float] = field(default_factory=dict)


def render_report(report: Report) -> str:
    """Render a report as one self-contained HTML page: no other file, no network, no script.

    Args:
        report: What to show. Names may hold any characters; they are escaped.

    Returns:
        The page's text, to be written as UTF-8.
    """
    main = report.conventions[0]
    sets = list(dict.fromkeys(str(row["set"]) for row in report.rows))
    return render_page(
        "restoration.html",
        report=report,
        headline=headline(report.rows, main, report.metrics),
        sets=sets,
        main=main,
        tiles=_tiles(report.rows, main),
        tables=paper_tables(report.rows, report.conventions, report.metrics),
        gains=[
            _gain_table(report.rows, f"Convention {c}", measures_of(c)) for c in report.conventions
        ],
        others=_gain_table(report.rows, "Other metrics", report.metrics),
        scenes=_scene_table(report.scenes, [*measures_of(main), *report.metrics]),
        scatter=_scatter(report.results, main),
        most_points=MOST_POINTS,
        strips=_strip_groups(report.strips),
        config=as_text(report.config),
        environment=as_text(report.environment),
    )


def headline(rows: Sequence[Row], convention: Convention, metrics: Sequence[Metric] = ()) -> str:
    """Say the main result in one line: the method with the largest mean gain of PSNR.

    Args:
        rows: Rows of metrics.json.
        convention: Whose PSNR decides.
        metrics: What was measured beside.
    """
    key = key_of("psnr", convention)
    best = _best_method(rows, key)
    if best is None:
        derained = any(row["derainer"] for row in rows)
        lonely = [
            m.title for m in metrics if any(number(row.get(m.key)) is not None for row in rows)
        ]
        if derained and lonely:
            return f"No PSNR could be given; {', '.join(lonely)} below"
        return "No score could be given" if derained else "No derainer was measured"
    name, gains = best
    if len(gains) > 1:
        mean = sum(number(row[f"delta_{key}"]) or 0.0 for row in gains) / len(gains)
        verb = "gains" if mean >= 0 else "loses"
        return f"{name} {verb} {abs(mean):.2f} dB of PSNR on average over {len(gains)} sets"
    change = number(gains[0][f"delta_{key}"]) or 0.0
    text = format_change(gains[0], key, DIGITS["psnr"]).lstrip("+-")
    verb = "gains" if change >= 0 else "loses"
    size, _, interval = text.partition(" ")
    if change < 0 and interval:
        low, high = (-(number(gains[0][f"delta_{key}_{end}"]) or 0.0) for end in ("high", "low"))
        interval = f"[{low:.2f}, {high:.2f}]"
    return f"{name} {verb} {size} dB of PSNR {interval} on {gains[0]['set']}".replace("  ", " ")


def _best_method(rows: Sequence[Row], key: str) -> tuple[str, list[Row]] | None:
    """Return the derainer with the largest mean gain over its sets; controls come last."""
    gains: dict[str, list[Row]] = {}
    for row in rows:
        if row["derainer"] and number(row[f"delta_{key}"]) is not None:
            gains.setdefault(str(row["derainer"]), []).append(row)
    if not gains:
        return None

    def order(name: str) -> tuple[bool, int, float]:
        values = [number(row[f"delta_{key}"]) or 0.0 for row in gains[name]]
        return name not in CONTROLS, len(values), sum(values) / len(values)

    name = max(gains, key=order)
    return name, gains[name]


def _tiles(rows: Sequence[Row], convention: Convention) -> list[dict[str, str]]:
    """Return the large numbers at the top, of the best method on the first set it has."""
    psnr, ssim = key_of("psnr", convention), key_of("ssim", convention)
    best = _best_method(rows, psnr)
    if best is None:
        return []
    row = best[1][0]
    rainy = next(one for one in rows if one["set"] == row["set"] and not one["derainer"])
    change = format_change(row, psnr, DIGITS["psnr"])
    tiles = [
        ("rainy", format_score(rainy[psnr], 2), f"dB of the rainy images of {row['set']}"),
        ("derained", format_score(row[psnr], 2), f"dB with {best[0]}: {change}"),
        ("rainy", format_score(rainy[ssim], 4), "SSIM of the rainy images"),
        ("derained", format_score(row[ssim], 4), "SSIM derained"),
        ("", format_ms(row["ms_per_image"]), "ms to derain an image"),
    ]
    return [
        {"kind": kind, "value": value, "about": about}
        for kind, value, about in tiles
        if value != UNDEFINED
    ]


def _gain_table(rows: Sequence[Row], title: str, measures: Sequence[Measure]) -> dict[str, Any]:
    """Return the lines of each set: scores and changes with intervals."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row["set"]), []).append(_gain_line(row, measures))
    scenes = any(row["scenes"] is not None for row in rows)
    return {
        "title": title,
        "measures": measures,
        "groups": list(groups.items()),
        "scenes": scenes,
    }


def _gain_line(row: Row, measures: Sequence[Measure]) -> dict[str, Any]:
    images = format_count(row["images"])
    if row["images"] != row["set_images"]:
        images += f" of {format_count(row['set_images'])}"
    return {
        "label": row["derainer"] or RAINY,
        "kind": row["input"],
        "control": row["derainer"] in CONTROLS,
        "scores": [format_score(row[m.key], m.digits) for m in measures],
        "equal": next((equal for m in measures if (equal := _equal(row, m.key))), ""),
        "changes": [
            {"text": format_change(row, m.key, m.digits), "effect": _effect(row, m)}
            for m in measures
        ],
        "images": images,
        "scenes": format_count(row["scenes"]),
        "ms": format_ms(row["ms_per_image"]),
    }


def _equal(row: Row, key: str) -> str:
    """Say how many images equal the clean ones, and the mean PSNR of the others."""
    infinite = format_count(row.get(f"{key}_infinite"))
    if infinite in ("0", UNDEFINED):
        return ""
    others = number(row[f"{key}_of_others"])
    return f"{infinite} equal" + ("" if others is None else f", the others {others:.2f}")


def _effect(row: Row, measure: Measure) -> str:
    """Judge a change by its interval: `helps`, `harms`, or `unclear`."""
    low, high = (number(row[f"delta_{measure.key}_{end}"]) for end in ("low", "high"))
    if low is None or high is None or low <= 0 <= high:
        return "unclear"
    return "helps" if (low > 0) != measure.lower_is_better else "harms"


def _scene_table(scenes: Sequence[Row], measures: Sequence[Measure]) -> dict[str, Any] | None:
    """Return the mean scores of each scene, of not too many scenes."""
    if not scenes or len(scenes) > _MOST_SCENE_LINES:
        return None
    lines = [
        (
            f"{row['set']}: {row['scene']}",
            row["derainer"] or RAINY,
            [format_score(row[m.key], m.digits) for m in measures] + [format_count(row["images"])],
        )
        for row in sorted(scenes, key=lambda row: (str(row["set"]), str(row["scene"])))
    ]
    return {"titles": [*(m.heading for m in measures), "images"], "lines": lines}


def _scatter(results: Sequence[RowResult], convention: Convention) -> Markup | None:
    figure = image_scatter(results, key_of("psnr", convention))
    alt = "Gain of PSNR of each image against the PSNR of the rainy image"
    return None if figure is None else Markup(to_svg(figure, "scatter", alt))


def _strip_groups(strips: Strips) -> list[StripGroup]:
    groups: dict[str, list[Strip]] = strips._asdict()
    return [strip_group("", _STRIP_TITLES[name], group) for name, group in groups.items() if group]
