"""The folder of a run: one JSON line per frame, and a summary."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from detection.pipeline import Processed
from detection.types import Detections, IntArray
from rainmer.errors import OutputError
from rainmer.files import make_folder, write_text

__all__ = ["RECORD_NAME", "RunFolder", "boxes_record", "record_of"]

RECORD_NAME = "run.json"
"""File in the folder that holds the settings and the summary."""

_log = logging.getLogger(__name__)


class RunFolder:
    """The results of a run, written as they arrive. Use it as a context manager.

    `detections.jsonl` holds one record per frame: `source`, `name`, `width`, `height`,
    `derain_ms`, `detect_ms` and `boxes`, each with `xyxy` in pixels, `score`, `label` and `class`.
    Frames of videos and streams also have their number, `frame`, and `time_s`, in seconds from the
    start; those of cameras `captured`, in seconds of Unix time. With `--track` boxes have `track`,
    the number of their object, if it is followed. Behind a gate frames have `derained`, whether
    they were, and `meter`, the readings that decided it.
    `run.json` holds the settings and, once the run is complete, the summary and a line for each
    file that could not be read to its end. The summary's `timing` covers the last run only. An
    interrupted run continues where it stopped if it is started again with the same settings.

    Args:
        folder: Where to write.
        settings: Everything that the results depend on.
        names: Class names by label.
        resumable: Name of the source that can resume after any frame; videos start again.

    Attributes:
        done: Names of the frames of that source that an interrupted run has processed.

    Raises:
        OutputError: The folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        names: dict[int, str],
        resumable: str | None = None,
    ) -> None:
        self.folder = make_folder(folder)
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.names = names
        self._frames = 0
        self._classes: Counter[str] = Counter()
        self._total_ms = {"derain_ms": 0.0, "detect_ms": 0.0}
        kept = [r for r in self._records_of_interrupted_run() if r["source"] == resumable]
        self.done = {record["name"] for record in kept}
        for record in kept:
            self._count(record)
        # Rewritten, because a killed run may have left an incomplete last line.
        write_text(self._lines, "".join(json.dumps(record) + "\n" for record in kept))
        write_text(self.folder / RECORD_NAME, json.dumps({"settings": self.settings}, indent=1))
        if kept:
            _log.info("going on after %d frames in %s", len(kept), self.folder)

    @property
    def _lines(self) -> Path:
        return self.folder / "detections.jsonl"

    def __enter__(self) -> RunFolder:
        self._file: TextIO = self._lines.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._file.close()

    def add(self, source: str, processed: Processed) -> None:
        """Append one frame's record."""
        record = {"source": source, **record_of(processed, self.names)}
        self._count(record)
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def finish(
        self, failures: Sequence[str] = (), timing: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Write and return the summary with the number of failures and the times.

        Args:
            failures: One line for each file that could not be read to its end.
            timing: Times of the stages of this run.
        """
        summary = {**self.summary(), "failures": len(failures), "timing": dict(timing or {})}
        content = {"settings": self.settings, "summary": summary, "failures": list(failures)}
        write_text(self.folder / RECORD_NAME, json.dumps(content, indent=1))
        return summary

    def summary(self) -> dict[str, Any]:
        """Summarize the frames so far; the means of no frames are None."""
        means = {
            key: round(total / self._frames, 3) if self._frames else None
            for key, total in self._total_ms.items()
        }
        classes = dict(self._classes.most_common())
        return {"frames": self._frames, "boxes": sum(classes.values()), "classes": classes, **means}

    def _count(self, record: dict[str, Any]) -> None:
        self._frames += 1
        self._classes.update(box["class"] for box in record["boxes"])
        for key in self._total_ms:
            self._total_ms[key] += record[key]

    def _records_of_interrupted_run(self) -> list[dict[str, Any]]:
        """Return the records of an incomplete run with the same settings."""
        try:
            before = json.loads((self.folder / RECORD_NAME).read_text("utf-8"))
            if before.get("settings") != self.settings or "summary" in before:
                return []
            lines = self._lines.read_text("utf-8").splitlines(keepends=True)
            return [json.loads(line) for line in lines if line.endswith("\n")]
        except (FileNotFoundError, json.JSONDecodeError):
            return []
        except OSError as error:
            raise OutputError(f"cannot read {error.filename}: {error.strerror}") from error


def record_of(processed: Processed, names: Mapping[int, str]) -> dict[str, Any]:
    """Return a frame's record but for its source; see `RunFolder`.

    Args:
        processed: The frame.
        names: Class names by label.
    """
    times = {
        "frame": processed.number,
        "time_s": None if processed.time_s is None else round(processed.time_s, 6),
        "captured": None if processed.captured is None else round(processed.captured, 3),
    }
    return {
        "name": processed.name,
        **{key: value for key, value in times.items() if value is not None},
        "width": processed.size_hw[1],
        "height": processed.size_hw[0],
        "derain_ms": round(processed.derain_ms, 3),
        "detect_ms": round(processed.detect_ms, 3),
        **_gate_record(processed),
        "boxes": boxes_record(processed.detections, names, processed.tracks),
    }


def boxes_record(
    detections: Detections, names: Mapping[int, str], tracks: IntArray | None = None
) -> list[dict[str, Any]]:
    """Return the boxes of a frame's record; `tracks` (N,) as of `Processed`."""
    return [
        {
            "xyxy": [round(float(v), 2) for v in box],
            "score": round(float(score), 5),
            "label": int(label),
            "class": names.get(int(label), str(int(label))),
            **({} if tracks is None or tracks[i] < 0 else {"track": int(tracks[i])}),
        }
        for i, (box, score, label) in enumerate(
            zip(detections.boxes_xyxy, detections.scores, detections.labels, strict=True)
        )
    ]


def _gate_record(processed: Processed) -> dict[str, Any]:
    decision = processed.decision
    if decision is None:
        return {}
    return {"derained": decision.derain, "meter": decision.reading.as_mapping()}
