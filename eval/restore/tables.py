"""Tables of scores as papers print them: methods by sets, for reports, Markdown and LaTeX.

The best value of a column is bold, the second best underlined. Only derainers of this run that were
measured on all images of the set are ranked, because published rows may come from other images.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from eval.report.tables import (
    UNDEFINED,
    align_table,
    format_count,
    format_with_interval,
    number,
    shorten,
)
from eval.report.timing import EARLIER, TimedOn, format_timing
from eval.restore.comparison import TableRow
from eval.restore.published import Published, published_for
from eval.restore.scores import Measure, measures_of
from eval.scores.score import Score
from rainmer.metrics import Convention

__all__ = [
    "RAINY",
    "CellScore",
    "PaperCell",
    "PaperLine",
    "PaperTable",
    "format_change",
    "format_images",
    "format_score",
    "format_text",
    "metric_table",
    "paper_table",
    "paper_tables",
    "to_latex",
    "to_markdown",
]

RAINY = "rainy input"
"""Title of the row of rainy images."""

_AVERAGE = "average"
_PARTIAL = "†"
_OTHER_COUNT = "‡"
_INFINITY = "∞"
_LONGEST_NAME = 30
_LATEX_SPECIAL = re.compile(r"[&%$#_{}~^\\<>|\"]")
_LATEX_NAMED = {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}

Rank = Literal["best", "second", ""]


@dataclass(frozen=True)
class _Markup:
    """How an output format writes ranks, infinity, and footnote marks."""

    best: str
    second: str
    infinity: str
    undefined: str
    marks: Mapping[str, str]


_MARKDOWN = _Markup("**{}**", "<u>{}</u>", _INFINITY, UNDEFINED, {_PARTIAL: "†", _OTHER_COUNT: "‡"})
_LATEX = _Markup(
    r"\textbf{{{}}}",
    r"\underline{{{}}}",
    r"$\infty$",
    "--",
    {_PARTIAL: r"$^{\dagger}$", _OTHER_COUNT: r"$^{\ddagger}$"},
)


@dataclass(frozen=True)
class CellScore:
    """A number in a cell: its text, its value, and its rank in the column."""

    text: str
    value: float | None
    rank: Rank = ""


@dataclass(frozen=True)
class PaperCell:
    """The cell of a method and a set.

    Attributes:
        scores: PSNR and SSIM, or the score of another metric.
        mark: Footnote sign; empty for scores measured on all images of the set.
    """

    scores: Sequence[CellScore]
    mark: str = ""


@dataclass(frozen=True)
class PaperLine:
    """The cells of a method; None where it has no score."""

    name: str
    kind: Literal["rainy", "derained", "published"]
    cells: Sequence[PaperCell | None]


@dataclass(frozen=True)
class PaperTable:
    """Methods by sets: PSNR and SSIM in one convention, or another metric.

    Attributes:
        title: A short heading.
        caption: Describes what the table shows.
        columns: The sets, then the average if there are several.
        lines: Rainy first, then published rows, then derainers.
        footnotes: Sign and text of each footnote.
    """

    title: str
    caption: str
    columns: Sequence[str]
    lines: Sequence[PaperLine]
    footnotes: Sequence[tuple[str, str]]


def format_score(value: float | None, digits: int) -> str:
    """Format a score with a fixed number of decimals; the PSNR of equal images is infinite.

    Example:
        >>> format_score(29.456, 2), format_score(math.inf, 2), format_score(None, 2)
        ('29.46', '∞', '–')
    """
    if value is None or math.isnan(value):
        return UNDEFINED
    return _INFINITY if math.isinf(value) else f"{value:.{digits}f}"


def format_change(change: Score, digits: int) -> str:
    """Format the change of a score against the rainy images with its 95 % interval.

    Example:
        >>> format_change(Score(1.234, -0.5, 2.0), 2)
        '+1.23 [-0.50, 2.00]'
    """
    return format_with_interval(change, digits, sign="+")


def format_images(row: TableRow) -> str:
    """Format the number of images of a row, and the total if some are missing."""
    images = format_count(row.images)
    if row.images == row.set_images:
        return images
    return f"{images} of {format_count(row.set_images)}"


def paper_table(rows: Sequence[TableRow], convention: Convention) -> PaperTable | None:
    """Arrange rows as papers do: a line for each method, a column for each set.

    Args:
        rows: The rows of a comparison.
        convention: Convention of the scores to show.

    Returns:
        The table; None if no set has clean images.
    """
    scored = [row for row in rows if row.has_reference]
    if not scored:
        return None
    published = published_for(convention, [(layout, name) for name, layout in _layouts(scored)])
    caption = f"PSNR (dB) / SSIM, convention {convention}"
    return _table(f"Convention {convention}", caption, scored, measures_of(convention), published)


def metric_table(rows: Sequence[TableRow], metric: Measure) -> PaperTable | None:
    """Arrange the scores of a metric in the same way.

    Args:
        rows: The rows of a comparison.
        metric: The metric to show.

    Returns:
        The table; None if no row has a score.
    """
    sets = {row.set for row in rows if number(row.scores[metric.key].mean) is not None}
    if not sets:
        return None
    title = f"{metric.title}, {'lower' if metric.lower_is_better else 'higher'} is better"
    return _table(title, title, [row for row in rows if row.set in sets], [metric], [])


def paper_tables(
    rows: Sequence[TableRow], conventions: Sequence[Convention], metrics: Sequence[Measure] = ()
) -> list[PaperTable]:
    """Return the tables of all conventions and metrics, without empty ones."""
    tables = [paper_table(rows, convention) for convention in conventions]
    tables += [metric_table(rows, metric) for metric in metrics]
    return [table for table in tables if table is not None]


def _layouts(rows: Sequence[TableRow]) -> Sequence[tuple[str, str]]:
    """Return label and layout of each set, in the order of the rows."""
    return list(dict.fromkeys((row.set, row.layout) for row in rows))


def _table(
    title: str,
    caption: str,
    rows: Sequence[TableRow],
    measures: Sequence[Measure],
    published: Sequence[Published],
) -> PaperTable:
    columns = [name for name, _ in _layouts(rows)]
    methods = list(dict.fromkeys(row.derainer for row in rows if row.derainer))
    lines = [_measured(RAINY, "", rows, columns, measures)]
    lines += [_published(numbers, rows) for numbers in published]
    lines += [_measured(name, name, rows, columns, measures) for name in methods]
    if len(columns) > 1:
        columns.append(_AVERAGE)
        lines = [_with_average(line, measures) for line in lines]
    ranked = _ranked(lines, len(columns), measures)
    return PaperTable(title, caption, columns, ranked, _footnotes(ranked, published))


def _measured(
    label: str,
    method: str,
    rows: Sequence[TableRow],
    sets: Sequence[str],
    measures: Sequence[Measure],
) -> PaperLine:
    by_set = {row.set: row for row in rows if row.derainer == method}
    cells = [_cell(by_set[name], measures) if name in by_set else None for name in sets]
    return PaperLine(label, "derained" if method else "rainy", cells)


def _cell(row: TableRow, measures: Sequence[Measure]) -> PaperCell:
    scores = [_cell_score(row.scores[measure.key].mean, measure.digits) for measure in measures]
    return PaperCell(scores, "" if row.images == row.set_images else _PARTIAL)


def _cell_score(value: float | None, digits: int) -> CellScore:
    return CellScore(format_score(value, digits), value)


def _published(published: Published, rows: Sequence[TableRow]) -> PaperLine:
    """Return a published row, marked where its number of images differs from this run's."""
    totals = {row.set: row.set_images for row in rows}
    cells: list[PaperCell | None] = []
    for name, layout in _layouts(rows):
        score = published.score(layout, name)
        if score is None:
            cells.append(None)
            continue
        mark = "" if score.images in (None, totals[name]) else _OTHER_COUNT
        scores = [_cell_score(score.psnr, 2), _cell_score(score.ssim, score.digits)]
        cells.append(PaperCell(scores, mark))
    return PaperLine(published.method, "published", cells)


def _with_average(line: PaperLine, measures: Sequence[Measure]) -> PaperLine:
    """Add the plain mean over the sets to a method that has scores on all of them."""
    cells = [cell for cell in line.cells if cell is not None]
    columns = [
        [value for cell in cells if (value := cell.scores[n].value) is not None]
        for n in range(len(measures))
    ]
    if any(len(values) < len(line.cells) for values in columns):
        return replace(line, cells=[*line.cells, None])
    mark = next((cell.mark for cell in cells if cell.mark), "")
    means = [
        _cell_score(sum(values) / len(values), measure.digits)
        for values, measure in zip(columns, measures, strict=True)
    ]
    return replace(line, cells=[*line.cells, PaperCell(means, mark)])


def _ranked(
    lines: Sequence[PaperLine], columns: int, measures: Sequence[Measure]
) -> list[PaperLine]:
    """Mark the best and the second-best score of each column among comparable cells."""
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
            cells[index][column] = PaperCell(scores, cell.mark)
    return [replace(line, cells=row) for line, row in zip(lines, cells, strict=True)]


def _ranks(scores: Sequence[CellScore], measure: Measure) -> list[CellScore]:
    """Rank by the printed values, so that equal texts have equal ranks."""
    printed = [_printed(score) for score in scores]
    known = {value for value in printed if value is not None}
    levels = sorted(known, reverse=not measure.lower_is_better)
    ranks: dict[float, Rank] = dict(zip(levels, ("best", "second"), strict=False))
    return [
        score if value is None else replace(score, rank=ranks.get(value, ""))
        for score, value in zip(scores, printed, strict=True)
    ]


def _printed(score: CellScore) -> float | None:
    """Return the value rounded as printed; None where it is undefined."""
    if score.value is None or math.isnan(score.value):
        return None
    return score.value if math.isinf(score.value) else float(score.text)


def _footnotes(lines: Sequence[PaperLine], published: Sequence[Published]) -> list[tuple[str, str]]:
    marks = {cell.mark for line in lines for cell in line.cells if cell}
    notes = []
    if _PARTIAL in marks:
        notes.append((_PARTIAL, "on a part of the images only, not comparable with the other rows"))
    if _OTHER_COUNT in marks:
        notes.append((_OTHER_COUNT, "published on another number of images than measured here"))
    notes += [("published", f"{numbers.method}: {numbers.note}") for numbers in published]
    return notes


def to_markdown(table: PaperTable) -> str:
    """Return a table as Markdown, ending with a newline."""
    head = ["method", *map(_escape_markdown, table.columns)]
    lines = [f"**{table.caption}**", "", _pipes(head), _pipes(["---", *["---:"] * len(head[1:])])]
    for line in table.lines:
        name = _escape_markdown(line.name) + (" (published)" if line.kind == "published" else "")
        lines.append(_pipes([name, *(_cell_text(cell, _MARKDOWN) for cell in line.cells)]))
    notes = [f"{sign}: {_escape_markdown(text)}" for sign, text in table.footnotes]
    notes.insert(0, "Best in bold, second best underlined, among the derainers of this run.")
    return "\n".join([*lines, "", *(f"{note}  " for note in notes)]).rstrip() + "\n"


def to_latex(table: PaperTable) -> str:
    """Return a table as LaTeX for the package `booktabs`, ending with a newline."""
    head = ["Method", *map(_escape_latex, table.columns)]
    lines = [f"% {table.caption}; needs \\usepackage{{booktabs}}"]
    lines += [f"% {_ascii(sign)}: {text}" for sign, text in table.footnotes]
    lines += [rf"\begin{{tabular}}{{l{'c' * len(table.columns)}}}", r"\toprule"]
    lines += [" & ".join(head) + r" \\", r"\midrule"]
    kind = "rainy"
    for line in table.lines:
        if line.kind != kind:
            lines.append(r"\midrule")
            kind = line.kind
        name = _escape_latex(line.name) + (" (published)" if line.kind == "published" else "")
        cells = [_cell_text(cell, _LATEX) for cell in line.cells]
        lines.append(" & ".join([name, *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _cell_text(cell: PaperCell | None, markup: _Markup) -> str:
    if cell is None:
        return markup.undefined
    texts = [_score_text(score, markup) for score in cell.scores]
    return " / ".join(texts) + (markup.marks[cell.mark] if cell.mark else "")


def _score_text(score: CellScore, markup: _Markup) -> str:
    text = score.text
    if score.value is None or math.isnan(score.value):
        text = markup.undefined
    elif math.isinf(score.value):
        text = markup.infinity
    pattern = {"best": markup.best, "second": markup.second, "": "{}"}[score.rank]
    return pattern.format(text)


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _escape_latex(text: str) -> str:
    line = " ".join(text.split())  # an empty line would end the table
    return _LATEX_SPECIAL.sub(lambda m: _LATEX_NAMED.get(m[0], f"\\{m[0]}"), line)


def _ascii(sign: str) -> str:
    """Spell a footnote sign in ASCII, for a comment."""
    return sign.replace(_PARTIAL, "dagger").replace(_OTHER_COUNT, "ddagger")


def format_text(
    rows: Sequence[TableRow],
    convention: Convention,
    metrics: Sequence[Measure] = (),
    timed_on: TimedOn | None = None,
) -> str:
    """Format rows as a plain text table for a terminal, in a single convention.

    Args:
        rows: The rows of a comparison.
        convention: Convention of the scores to show.
        metrics: Other metrics to show.
        timed_on: What the times hold for.
    """
    measures = [*measures_of(convention), *metrics]
    titles = [measure.heading for measure in measures]
    changes = [f"Δ {measure.title} [95 %]" for measure in measures]
    head = ["set", "input", *titles, *changes, "images", "ms"]
    lines = []
    for row in rows:
        scores = [(row.scores[measure.key], measure.digits) for measure in measures]
        lines.append(
            [
                shorten(row.set, _LONGEST_NAME),
                shorten(row.derainer or RAINY, _LONGEST_NAME),
                *(format_score(score.mean, digits) for score, digits in scores),
                *(format_change(score.change, digits) for score, digits in scores),
                format_images(row),
                format_timing(row.timing),
            ]
        )
    note = f"PSNR in dB, convention {convention}; Δ against the rainy input"
    if any(measure.lower_is_better for measure in measures):
        note += "; ↓ lower is better"
    notes = [note, *([f"ms: {time_note(rows, timed_on)}"] if timed_on else [])]
    return "\n".join([align_table(head, lines, texts=2), *notes])


def time_note(rows: Sequence[TableRow], timed_on: TimedOn) -> str:
    """Say what the times of a table hold for."""
    note = f"median for an image on {timed_on.text}"
    return f"{note}; {EARLIER}" if any(row.timing.earlier for row in rows) else note
