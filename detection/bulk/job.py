"""What a folder of results says about itself: which job it belongs to, and how far that is."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from detection.bulk.parts import BOXES
from detection.bulk.places import Place
from rainmer.errors import OutputError

__all__ = ["JOB", "SUMMARY", "Tally", "open_job"]

JOB, SUMMARY = "job.json", "summary.json"
_SHOWN_REASONS = 5


def open_job(out: Place, settings: Mapping[str, Any], part: int) -> int:
    """Write what the job is, or check that it is the one of an earlier run.

    Args:
        out: Folder of the results.
        settings: All that results depend on, as JSON has it.
        part: How many images share a part, if this is the first run.

    Returns:
        How many images share a part: parts must be cut as before to be known again.

    Raises:
        OutputError: The folder belongs to another job, or cannot be written or read.
    """
    content = out.read(JOB)
    if content is None:
        if out.names(BOXES):
            raise OutputError(f"{out}/{BOXES} holds files of something else; give another --out")
        out.make()
        out.write(JOB, _text({"settings": settings, "part": part}))
        return part
    try:
        job = json.loads(content)
        before, part = job["settings"], int(job["part"])
    except (ValueError, LookupError, TypeError) as error:
        raise OutputError(f"{out}/{JOB} is damaged or not ours; give another --out") from error
    for key in sorted({*before, *settings}):
        if before.get(key) != settings.get(key):
            raise OutputError(
                f"{out} belongs to another job: its {key} is {before.get(key)!r}, here it is "
                f"{settings.get(key)!r}; give another --out"
            )
    return part


@dataclass
class _Actor:
    """What an actor has done.

    Attributes:
        images: Images so far.
        busy_s: Seconds in which it worked on them.
        cpu_s: CPU time of its threads meanwhile.
    """

    images: int = 0
    busy_s: float = 0.0
    cpu_s: float = 0.0


@dataclass
class Tally:
    """What the reports of a run add up to.

    Args:
        earlier: Images that earlier runs have done.
    """

    earlier: int
    started: float = field(default_factory=time.time)
    counts: Counter[str] = field(default_factory=Counter)
    actors: dict[str, _Actor] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    again: set[str] = field(default_factory=set)
    began: float | None = None
    ended: float | None = None

    def add(self, report: Mapping[str, Any]) -> None:
        """Count a part; see `detection.bulk.worker.Worker`."""
        for key in ("images", "known", "failed", "boxes", "derained"):
            self.counts[key] += int(report[key])
        actor = self.actors.setdefault(str(report["actor"]), _Actor())
        actor.images += int(report["images"])
        actor.busy_s += float(report["ended"]) - float(report["began"])
        actor.cpu_s += float(report["cpu_s"])
        self.began = min(self.began or float(report["began"]), float(report["began"]))
        self.ended = max(self.ended or 0.0, float(report["ended"]))
        self.again |= {report["again"]} - {""}
        room = _SHOWN_REASONS - len(self.reasons)
        self.reasons += [line for line in str(report["reasons"]).split("\n") if line][:room]

    @property
    def rate(self) -> float:
        """Images per second from the first part's beginning to the last one's end; 0: none."""
        seconds = (self.ended or 0.0) - (self.began or 0.0)
        return self.counts["images"] / seconds if seconds else 0.0

    def summary(self, *, complete: bool) -> dict[str, Any]:
        """Return the numbers of this run, and how many images are done in all."""
        return {
            "complete": complete,
            "images": self.earlier + self.counts["images"],
            "earlier": self.earlier,
            "this_run": {
                **{key: self.counts[key] for key in ("images", "failed", "boxes", "derained")},
                "begun_again": len(self.again),
                "wall_s": round(time.time() - self.started, 3),
                "images_per_s": round(self.rate, 3),
                "actors": {
                    name: {
                        "images": actor.images,
                        "busy_s": round(actor.busy_s, 3),
                        "cpu_s": round(actor.cpu_s, 3),
                        "images_per_s": round(actor.images / max(actor.busy_s, 1e-9), 3),
                    }
                    for name, actor in sorted(self.actors.items())
                },
                "reasons": self.reasons,
            },
        }

    def save(self, out: Place, *, complete: bool) -> dict[str, Any]:
        """Write and return the summary. Raises OutputError."""
        summary = self.summary(complete=complete)
        out.write(SUMMARY, _text(summary))
        return summary


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
