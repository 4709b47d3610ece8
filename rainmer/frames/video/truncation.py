"""Whether a file is shorter than it says, which FFmpeg does not tell for some containers."""

from __future__ import annotations

import contextlib
from pathlib import Path

__all__ = ["is_cut_off"]

_HEAD = 4096
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # Matroska, WebM
_TS_PACKETS = (188, 192, 204)  # bytes: plain, with time codes, with error correction


def is_cut_off(path: Path, container: str) -> bool:
    """Return whether a file certainly lacks its end.

    Only sizes in bytes are proof; counts of frames and durations are estimates of the writer.

    Args:
        path: The file.
        container: FFmpeg's name of its format.
    """
    with contextlib.suppress(OSError), path.open("rb") as file:
        head, size = file.read(_HEAD), path.stat().st_size
        if container == "mpegts":
            return all(size % packet for packet in _TS_PACKETS)
        return (_end_of_avi(head) or _end_of_matroska(head) or 0) > size
    return False


def _end_of_avi(head: bytes) -> int | None:
    if head[:4] != b"RIFF" or head[8:12] != b"AVI ":
        return None
    return int.from_bytes(head[4:8], "little") + 8


def _end_of_matroska(head: bytes) -> int | None:
    if head[:4] != _EBML:
        return None
    length, at = _length(head, 4)
    if length is None or head[(at := at + length) : at + 4] != _SEGMENT:
        return None
    length, at = _length(head, at + 4)
    return None if length is None else at + length


def _length(content: bytes, at: int) -> tuple[int | None, int]:
    """Return the length of an EBML element (None: unknown), and where its content starts."""
    first = content[at : at + 1]
    if not first or not first[0]:
        return None, at
    count = 9 - first[0].bit_length()  # leading zeros tell how many bytes follow
    value = int.from_bytes(content[at : at + count], "big")
    bits = 7 * count
    value &= (1 << bits) - 1
    return None if value == (1 << bits) - 1 else value, at + count
