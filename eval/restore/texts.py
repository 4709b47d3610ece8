"""Tables as text: Markdown, LaTeX, and the terminal's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from eval.report.tables import UNDEFINED, Row, format_count, format_ms, shorten
from eval.restore.scores import Measure, measures_of
from eval.restore.tables import RAINY, Cell, PaperTable, Score, format_change, format_score
from rainmer.metrics import Convention

__all__ = ["format_text", "to_latex", "to_markdown"]

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
    lines += [f"% {_ascii_mark(sign)}: {text}" for sign, text in table.footnotes]
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


@dataclass(frozen=True)
class _Markup:
    """How a format writes ranks, infinity, and footnote marks."""

    best: str
    second: str
    infinity: str
    undefined: str
    marks: dict[str, str]


_MARKDOWN = _Markup("**{}**", "<u>{}</u>", "∞", UNDEFINED, {"†": "†", "‡": "‡"})
_LATEX = _Markup(
    r"\textbf{{{}}}",
    r"\underline{{{}}}",
    r"$\infty$",
    "--",
    {"†": r"$^{\dagger}$", "‡": r"$^{\ddagger}$"},
)


def _cell_text(cell: Cell | None, markup: _Markup) -> str:
    if cell is None:
        return markup.undefined
    texts = [_score_text(score, markup) for score in cell.scores]
    return " / ".join(texts) + (markup.marks[cell.mark] if cell.mark else "")


def _score_text(score: Score, markup: _Markup) -> str:
    text = {"∞": markup.infinity, UNDEFINED: markup.undefined}.get(score.text, score.text)
    pattern = {"best": markup.best, "second": markup.second, "": "{}"}[score.rank]
    return pattern.format(text)


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", text)


def _escape_latex(text: str) -> str:
    return _LATEX_SPECIAL.sub(lambda m: _LATEX_NAMED.get(m[0], f"\\{m[0]}"), text)


def _ascii_mark(sign: str) -> str:
    return {"†": "dagger", "‡": "ddagger"}.get(sign, sign)


def format_text(
    rows: Sequence[Row], convention: Convention, metrics: Sequence[Measure] = ()
) -> str:
    """Format rows as a plain text table for a terminal, in one convention.

    Args:
        rows: Rows of metrics.json.
        convention: Whose scores are shown.
        metrics: What else is.
    """
    measures = [*measures_of(convention), *metrics]
    titles = [measure.heading for measure in measures]
    changes = [f"Δ {measure.title} [95 %]" for measure in measures]
    cells = [["set", "input", *titles, *changes, "images", "ms"]]
    for row in rows:
        images = format_count(row["images"])
        if row["images"] != row["set_images"]:
            images += f" of {format_count(row['set_images'])}"
        cells.append(
            [
                shorten(str(row["set"]), _LONGEST_NAME),
                shorten(str(row["derainer"] or RAINY), _LONGEST_NAME),
                *(format_score(row[measure.key], measure.digits) for measure in measures),
                *(format_change(row, measure.key, measure.digits) for measure in measures),
                images,
                format_ms(row["ms_per_image"]),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            text.ljust(wide) if index < 2 else text.rjust(wide)
            for index, (text, wide) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    note = f"PSNR in dB, convention {convention}; Δ against the rainy input"
    if any(measure.lower_is_better for measure in measures):
        note += "; ↓ lower is better"
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], note])
