import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detection.run.addresses import is_live, name_of, shown_address


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("0", "live-0"),
        ("rtsp://10.0.0.7/stream1", "live-stream1"),
        ("rtsp://user:secret@10.0.0.7", "live-10-0-0-7"),
        ("http://host:8080/video.mjpg?user=a&password=secret", "live-video"),
        ("http://host/", "live-host"),
        ("rtsp://user:se/cret@host/stream1", "live-stream"),
        ("rtsp://user:1/2@host/stream1", "live-stream"),
        ("rtsp://user:1?2@host/stream1", "live-stream"),
        ("rtsp://user:se@cret@[::1]:554/a/b.c", "live-b"),
    ],
)
def test_names(address, name):
    assert is_live(address)
    assert name_of(address) == name
    assert "cret" not in shown_address(address)


@given(
    st.sampled_from(["rtsp", "http", "rtmp"]),
    st.text("a1:/?#@[]%&= é", min_size=1),
    st.sampled_from(["host", "[::1]", "host:554"]),
    st.sampled_from(["", "/", "/stream1"]),
)
def test_passwords_are_never_shown(scheme, password, host, path):
    for address in (
        f"{scheme}://user:{password}@{host}{path}",
        f"{scheme}://{password}@{host}{path}",
        f"{scheme}://{host}{path}?token={password}",
    ):
        shown = shown_address(address)
        assert shown in (f"{scheme}://{host}{path}", f"{scheme}://...")
        assert re.fullmatch(r"live-[\w-]+", name_of(address))
