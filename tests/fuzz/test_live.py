"""Whatever a camera sends: whole frames or a line that says what is wrong, never a traceback."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detection.run.live import Live
from detection.run.options import LiveOptions
from tests.detection.run.servers import MjpegServer, jpeg, part

STREAM = b"".join(part(jpeg(number, 16, 16)) for number in range(4))
OPTIONS = LiveOptions(timeout=0.3, reconnect=0)


@pytest.fixture(scope="module")
def server():
    with MjpegServer(lambda _: iter([server.content])) as server:
        yield server


@st.composite
def spoiled(draw) -> bytes:
    """A stream with bytes replaced, left out or put in, anywhere."""
    content = STREAM
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 200)))
        content = content[:start] + draw(st.binary(max_size=50)) + content[end:]
    return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content


@given(spoiled() | st.binary(max_size=2000))
def test_spoiled_streams(server, content):
    server.content = content
    live = Live(server.url, OPTIONS)

    frames = list(live)

    assert len(frames) == live.counts.received <= 16
    assert all(frame.image.ndim == 3 and frame.image.shape[2] == 3 for frame in frames)
    assert len(live.failures) == 1
    assert live.failures[0].startswith("live-video: ")
    assert "\n" not in live.failures[0]
