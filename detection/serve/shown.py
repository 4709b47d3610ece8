"""A frame as the page shows it: its record, and both pictures."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Mapping
from typing import Any

import cv2

from detection.run.records import boxes_record, record_of
from detection.serve.changes import Changes, compare
from detection.serve.engine import Answer
from rainmer.frames.arrays import Frame
from rainmer.frames.images import encode_image

__all__ = ["Shown"]

_LONGEST_SIDE = 1280
_QUALITY = 85


class Shown:
    """One compared frame. The pictures are encoded for the first who looks at them.

    Args:
        answer: Of a comparison.
        names: Class names by label.
        number: Its number among those of its source.
        extra: Further entries of the record.

    Attributes:
        changes: Boxes found and lost; None: nothing was detected in the rainy frame.
        stage_ms: Time in each stage, in ms.
        record: As of `RunFolder`, its boxes each with `found`; and `rainy_boxes`, each with `lost`.
    """

    def __init__(
        self,
        answer: Answer,
        names: Mapping[int, str],
        number: int = 0,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        processed, in_rainy = answer.processed, answer.in_rainy
        self.changes: Changes | None = None
        self.number = number
        self.stage_ms = {**(extra or {}).get("stage_ms", {}), **processed.stage_ms}
        self.record = {**record_of(processed, names), **(extra or {}), "number": number}
        if in_rainy is not None:
            self.stage_ms["compare"] = answer.rainy_ms
            self.changes = compare(in_rainy, processed.detections)
            rainy_boxes = boxes_record(in_rainy, names)
            for box, found in zip(self.record["boxes"], self.changes.found, strict=True):
                box["found"] = bool(found)
            for box, lost in zip(rainy_boxes, self.changes.lost, strict=True):
                box["lost"] = bool(lost)
            self.record["rainy_boxes"] = rainy_boxes
        self.record["stage_ms"] = {name: round(ms, 3) for name, ms in self.stage_ms.items()}
        self._processed = processed
        self._lock = threading.Lock()
        self._form: tuple[bytes, str] | None = None

    def form(self) -> tuple[bytes, str]:
        """Return a form with `record` (JSON), `rainy` and `derained` (JPEG), and its media type.

        Pictures have at most 1280 pixels a side; boxes are in pixels of the frame.
        """
        with self._lock:
            if self._form is None:
                parts = [
                    ("record", "application/json", json.dumps(self.record).encode()),
                    ("rainy", "image/jpeg", _jpeg(self._processed.frame)),
                    ("derained", "image/jpeg", _jpeg(self._processed.derained)),
                ]
                self._form = _multipart(parts)
            return self._form


def _jpeg(frame: Frame) -> bytes:
    height, width = frame.shape[:2]
    scale = _LONGEST_SIDE / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(frame.dtype)
    return encode_image(frame, ".jpg", _QUALITY)


def _multipart(parts: list[tuple[str, str, bytes]]) -> tuple[bytes, str]:
    boundary = secrets.token_hex(16)  # not to be found in a picture
    chunks = []
    for name, kind, content in parts:
        disposition = f'form-data; name="{name}"; filename="{name}"'
        head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: {kind}\r\n\r\n"
        chunks += [head.encode(), content, b"\r\n"]
    chunks.append(f"--{boundary}--\r\n".encode())
    return b"".join(chunks), f"multipart/form-data; boundary={boundary}"
