"""What every report and every metrics.json tells of its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["RunFacts"]


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """How numbers came about.

    Attributes:
        command: The command line, as it could be typed again.
        date: When the run ended, in words, to the minute.
        environment: Versions and hardware; see `eval.report.files.describe_environment`.
        config: The resolved configuration, plain values only.
        elapsed_s: Seconds of each stage, and `wall`.
        notes: What a reader must know about the data.
        protocol: How it was measured, such as input size and confidence: name to value.
    """

    command: str
    date: str
    environment: Mapping[str, object]
    config: Mapping[str, object]
    elapsed_s: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    protocol: Mapping[str, object] = field(default_factory=dict)
