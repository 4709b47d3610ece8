"""Tables of scores as papers print them: methods by sets.

The best value of a column is bold, the second underlined. Only derainers of this run that were
measured on all images of the set compete: published rows may stand on other images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from eval.report.tables import UNDEFINED, Row, number
from eval.restore.published import Published, published_for
from eval.restore.scores import Measure, measures_of
from rainmer.metrics import Convention

__all__ = [
    "DIGITS",
    "RAINY",
    "Cell",
    "Line",
    "PaperTable",
    "Score",
    "format_change",
    "format_score",
    "metric_table",
    "paper_table",
    "paper_tables",
]

RAINY = "rainy input"
AVERAGE = "average"
DIGITS = {"psnr": 2, "ssim": 4}

Rank = Literal["best", "second", ""]


@dataclass(frozen=True)
class Score:
    """One number of a cell, as text, with its value and its rank in the column."""

    text: str
    value: float | None
    rank: Rank = ""


@dataclass(frozen=True)
class Cell:
    """The scores of a method on a set.

    Attributes:
        scores: PSNR and SSIM, or a metric of its own.
        mark: Sign of a footnote; empty for numbers that are measured on all images.
    """

    scores: Sequence[Score]
    mark: str = ""


@dataclass(frozen=True)
class Line:
    """A method's cells, None where there is no number."""

    name: str
    kind: Literal["rainy", "derained", "published"]
    cells: Sequence[Cell | None]


@dataclass(frozen=True)
class PaperTable:
    """Methods by sets: PSNR and SSIM in one convention, or one metric.

    Attributes:
        title: What is in it, in short.
        caption: What it shows, in words.
        columns: The sets, with the average last where there are several.
        lines: Rainy first, then published rows, then derainers.
        footnotes: Sign and sentence of each footnote.
    """

    title: str
    caption: str
    columns: Sequence[str]
    lines: Sequence[Line]
    footnotes: Sequence[tuple[str, str]]


def format_score(value: object, digits: int) -> str:
    """Format a score with a fixed number of decimals; infinity is the PSNR of equal images.

    Example:
        >>> format_score(29.456, 2), format_score(math.inf, 2), format_score(None, 2)
        ('29.46', '∞', '–')
    """
    if isinstance(value, float) and math.isinf(value):
        return "∞"
    found = number(value)
    return UNDEFINED if found is None else f"{found:.{digits}f}"


def format_change(row: Row, key: str, digits: int) -> str:
    """Format the difference of a score to the rainy images with its 95 % interval.

    Example:
        >>> row = {"delta_psnr": 1.234, "delta_psnr_low": -0.5, "delta_psnr_high": 2.0}
        >>> format_change(row, "psnr", 2)
        '+1.23 [-0.50, 2.00]'
    """
    change = number(row.get(f"delta_{key}"))
    if change is None:
        return UNDEFINED
    text = f"{change:+.{digits}f}" if round(change, digits) else f"{0:.{digits}f}"
    low, high = number(row.get(f"delta_{key}_low")), number(row.get(f"delta_{key}_high"))
    if low is None or high is None:
        return text
    # Adding zero takes the sign from a zero.
    return f"{text} [{round(low, digits) + 0.0:.{digits}f}, {round(high, digits) + 0.0:.{digits}f}]"


def paper_table(rows: Sequence[Row], convention: Convention) -> PaperTable | None:
    """Arrange rows of metrics.json as papers do: one line a method, one column a set.

    Args:
        rows: Rows of metrics.json.
        convention: Whose scores are shown.

    Returns:
        The table, or None when no set has clean images.
    """
    scored = [row for row in rows if row.get("reference")]
    if not scored:
        return None
    layouts = {str(row["set"]): str(row["layout"]) for row in scored}
    published = published_for(convention, [(layout, name) for name, layout in layouts.items()])
    caption = f"PSNR (dB) / SSIM, convention {convention}"
    return _table(f"Convention {convention}", caption, scored, measures_of(convention), published)


def metric_table(rows: Sequence[Row], metric: Measure) -> PaperTable | None:
    """Arrange the scores of one metric alike; None when no row has it.

    Args:
        rows: Rows of metrics.json.
        metric: Whose scores are shown.
    """
    sets = {row["set"] for row in rows if number(row.get(metric.key)) is not None}
    if not sets:
        return None
    title = f"{metric.title}, {'lower' if metric.lower_is_better else 'higher'} is better"
    return _table(title, title, [row for row in rows if row["set"] in sets], [metric], [])


def paper_tables(
    rows: Sequence[Row], conventions: Sequence[Convention], metrics: Sequence[Measure] = ()
) -> list[PaperTable]:
    """Return the tables of all conventions and metrics that have one."""
    tables = [paper_table(rows, convention) for convention in conventions]
    tables += [metric_table(rows, metric) for metric in metrics]
    return [table for table in tables if table is not None]


def _table(
    title: str,
    caption: str,
    scored: Sequence[Row],
    measures: Sequence[Measure],
    published: Sequence[Published],
) -> PaperTable:
    layouts = {str(row["set"]): str(row["layout"]) for row in scored}
    totals = {str(row["set"]): row["set_images"] for row in scored}
    sets = list(layouts)
    methods = list(dict.fromkeys(str(row["derainer"]) for row in scored if row["derainer"]))
    lines = [_measured(RAINY, "", scored, sets, measures)]
    lines += [_published(one, layouts, totals) for one in published]
    lines += [_measured(name, name, scored, sets, measures) for name in methods]
    columns = list(sets)
    if len(sets) > 1:
        columns.append(AVERAGE)
        lines = [_with_average(line, measures) for line in lines]
    ranked = _ranked(lines, len(columns), measures)
    return PaperTable(title, caption, columns, ranked, _footnotes(ranked, published))


def _measured(
    label: str, method: str, rows: Sequence[Row], sets: Sequence[str], measures: Sequence[Measure]
) -> Line:
    by_set = {row["set"]: row for row in rows if row["derainer"] == method}
    cells = [_cell(by_set[name], measures) if name in by_set else None for name in sets]
    return Line(label, "derained" if method else "rainy", cells)


def _cell(row: Row, measures: Sequence[Measure]) -> Cell:
    scores = [_score(row.get(measure.key), measure.digits) for measure in measures]
    return Cell(scores, "" if row["images"] == row["set_images"] else "†")


def _score(value: object, digits: int) -> Score:
    return Score(format_score(value, digits), value if isinstance(value, float) else None)


def _published(one: Published, layouts: dict[str, str], totals: dict[str, object]) -> Line:
    """Return a published row; on another number of images than measured here it has a mark."""
    cells: list[Cell | None] = []
    for name, layout in layouts.items():
        score = one.score(layout, name)
        if score is None:
            cells.append(None)
            continue
        mark = "" if score.images in (None, totals[name]) else "‡"
        cells.append(Cell([_score(score.psnr, 2), _score(score.ssim, score.digits)], mark))
    return Line(one.method, "published", cells)


def _with_average(line: Line, measures: Sequence[Measure]) -> Line:
    """Add the plain mean over the sets, where the method has a number for all of them."""
    cells = [cell for cell in line.cells if cell is not None]
    columns = [
        [value for cell in cells if (value := cell.scores[n].value) is not None]
        for n in range(len(measures))
    ]
    if any(len(values) < len(line.cells) for values in columns):
        return replace(line, cells=[*line.cells, None])
    mark = next((cell.mark for cell in cells if cell.mark), "")
    means = [
        _score(sum(values) / len(values), measure.digits)
        for values, measure in zip(columns, measures, strict=True)
    ]
    return replace(line, cells=[*line.cells, Cell(means, mark)])


def _ranked(lines: Sequence[Line], columns: int, measures: Sequence[Measure]) -> list[Line]:
    """Mark the best and the second of each column among what may be compared."""
    cells = [list(line.cells) for line in lines]
    for column in range(columns):
        rivals = {
            index: cell
            for index, line in enumerate(lines)
            if line.kind == "derained" and (cell := line.cells[column]) and not cell.mark
        }
        if len(rivals) < 2:
            continue
        ranked = [
            _ranks([cell.scores[n] for cell in rivals.values()], measure)
            for n, measure in enumerate(measures)
        ]
        for (index, cell), scores in zip(rivals.items(), zip(*ranked, strict=True), strict=True):
            cells[index][column] = Cell(scores, cell.mark)
    return [replace(line, cells=own) for line, own in zip(lines, cells, strict=True)]


def _ranks(scores: Sequence[Score], measure: Measure) -> list[Score]:
    """Rank by what is printed, so that equal texts have equal ranks."""
    printed = [_printed(score) for score in scores]
    known = {value for value in printed if value is not None}
    levels = sorted(known, reverse=not measure.lower_is_better)
    ranks: dict[float, Rank] = dict(zip(levels, ("best", "second"), strict=False))
    return [
        score if value is None else replace(score, rank=ranks.get(value, ""))
        for score, value in zip(scores, printed, strict=True)
    ]


def _printed(score: Score) -> float | None:
    if score.value is None or math.isnan(score.value):
        return None
    return score.value if math.isinf(score.value) else float(score.text)


def _footnotes(lines: Sequence[Line], published: Sequence[Published]) -> list[tuple[str, str]]:
    marks = {cell.mark for line in lines for cell in line.cells if cell}
    notes = []
    if "†" in marks:
        notes.append(("†", "on a part of the images only, not comparable with the other rows"))
    if "‡" in marks:
        notes.append(("‡", "published on another number of images than measured here"))
    notes += [("published", f"{one.method}: {one.note}") for one in published]
    return notes
