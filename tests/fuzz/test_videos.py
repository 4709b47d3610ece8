"""Damaged videos: never a traceback, never a silent drop."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainmer.errors import ImageError
from rainmer.frames.video import open_video
from tests.videos import record

TIMES_S = [i / 30 for i in range(8)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    kinds = {".mp4": "libx264", ".mkv": "libx264", ".webm": "libvpx", ".avi": "mpeg4"}
    files = [record(folder / f"a{s}", TIMES_S, codec=c, ticks=30) for s, c in kinds.items()]
    return folder, {path.suffix: path.read_bytes() for path in files}


@given(data=st.data())
def test_damage_anywhere_is_no_traceback(small, data):
    """Bytes changed or cut off: frames in order and a line, or an error of one line."""
    folder, contents = small
    suffix = data.draw(st.sampled_from(sorted(contents)))
    content = bytearray(contents[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        length = data.draw(st.integers(1, 40))
        content[at : at + length] = data.draw(st.binary(min_size=length, max_size=length))
    path = folder / f"damaged{suffix}"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        with open_video(path) as video:
            frames, failure = list(video), video.failure
    except ImageError as error:
        frames, failure = [], str(error)
    assert failure is None or failure.count(str(path)) == 1
    assert all(a.time_s < b.time_s for a, b in itertools.pairwise(frames))
    assert all(a.number < b.number for a, b in itertools.pairwise(frames))
    assert failure is None or "\n" not in failure
