"""The facts about a run that every report and every metrics.json states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eval.report.parts import Cell, Line, Table, flat_table
from eval.report.tables import format_count
from eval.report.timing import TimedOn
from rainmer.data.defects import Defects, examples

__all__ = ["RunFacts"]


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """How the numbers of a run were obtained.

    Attributes:
        command: The command line, as it could be typed again.
        date: When the run ended, to the minute.
        environment: Versions and hardware; see `eval.report.files.describe_environment`.
        config: The resolved configuration, plain values only.
        elapsed_s: Seconds of each stage, and `wall`.
        notes: What a reader must know about the data.
        defects: What was wrong with the labels of each set, by its name.
        protocol: Settings of the measurement, such as input size and confidence: name to value.
        timed_on: What the times hold for; None where nothing was timed.
    """

    command: str
    date: str
    environment: Mapping[str, object]
    config: Mapping[str, object]
    elapsed_s: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    defects: Mapping[str, Defects] = field(default_factory=dict)
    protocol: Mapping[str, object] = field(default_factory=dict)
    timed_on: TimedOn | None = None

    @property
    def timed_on_columns(self) -> dict[str, object]:
        """What the times hold for, as columns of every row."""
        return self.timed_on.flat() if self.timed_on else {}

    @property
    def repairs(self) -> Table | None:
        """What was repaired in the labels of each set; None where nothing was."""
        lines = [
            Line([name, kind], [Cell(format_count(len(subjects)))], note=examples(subjects))
            for name, defects in self.defects.items()
            for kind, subjects in defects.repairs.items()
        ]
        about = "Labels that were repaired, with the first of each kind"
        return flat_table(about, ["set", "repair"], ["count"], lines) if lines else None
