import itertools
import os
import re
import signal
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from detection.pipeline import Pipeline
from detection.run.live import Live
from detection.run.options import LiveOptions
from detection.types import Detections
from rainmer.errors import ImageError
from tests.detection.run.servers import (
    FileServer,
    MjpegServer,
    RtspServer,
    Server,
    jpeg,
    number_of,
    part,
    pictures,
    rtp_frames,
    write_video,
)

FAST = LiveOptions(timeout=0.3, reconnect=2, first_pause=0.02, frozen=0)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    wait_for(lambda: not readers())


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("live ")]


def wait_for(condition, seconds: float = 2.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def read(live: Live, pause_s: float = 0.0) -> list[tuple[str, int]]:
    """Return the names and the numbers of the pictures that are to be processed."""
    found = []
    for frame in live:
        if live.admit(frame):
            found.append((frame.name, number_of(frame.image)))
            time.sleep(pause_s)
    return found


def numbered(*numbers: range) -> list[tuple[str, int]]:
    return [(f"{i:06d}", number) for i, number in enumerate(itertools.chain(*numbers))]


def test_stream_that_breaks_off_is_connected_again():
    with MjpegServer(lambda _: pictures(0, 20)) as server:
        live = Live(server.url, FAST, limit=50)
        assert read(live) == numbered(range(20), range(20), range(10))

    assert live.failures == []
    assert (live.counts.dropped, live.counts.damaged, live.counts.reconnects) == (0, 0, 2)
    assert 0.03 < live.counts.offline_s < 1
    assert server.connections == 3


def test_frames_have_times():
    before = time.time()
    with MjpegServer(lambda _: pictures(0, 5, 0.05)) as server:
        frames = list(Live(server.url, replace(FAST, reconnect=0)))

    assert [frame.number for frame in frames] == list(range(5))
    assert frames[0].time_s == 0.0
    assert frames[4].time_s == pytest.approx(0.2, abs=0.15)
    for frame in frames:
        assert before <= frame.captured <= time.time()
        assert frame.captured - frames[0].captured == pytest.approx(frame.time_s, abs=0.01)


def test_stream_that_is_gone_for_good_is_named_and_its_frames_are_kept():
    with MjpegServer(lambda n: pictures(0, 0 if n else 20)) as server:
        live = Live(server.url.replace("//", "//user:secret@"), FAST)
        assert read(live) == numbered(range(20))

    assert server.connections == 3
    assert live.failures == [
        f"live-video: the stream {server.url} has broken off after 20 frames: "
        "not reachable, or broken off at once; no picture in 2 more attempts (see --reconnect)"
    ]


def test_pauses_grow(caplog):
    with MjpegServer(lambda n: pictures(0, 0 if n else 3)) as server:
        read(Live(server.url, replace(FAST, reconnect=3)))

    assert re.findall(r"again in (\S+) s \((\d) of 3\)", caplog.text) == [
        ("0.02", "1"),
        ("0.04", "2"),
        ("0.08", "3"),
    ]


def test_stream_that_stalls_is_connected_again():
    def plan(_):
        yield from pictures(0, 5)
        yield 60.0

    with MjpegServer(plan) as server:
        live = Live(server.url, FAST, limit=8)
        assert read(live) == numbered(range(5), range(3))
        wait_for(lambda: server.connected == 0)

    assert live.counts.reconnects == 1
    assert 0.3 <= live.counts.offline_s < 1.5


def test_damaged_pictures_are_left_out_and_counted():
    rng = np.random.default_rng(0)
    half = jpeg(3, 480, 640)[:2000]

    def plan(_):
        yield from pictures(0, 3)
        yield part(half) + part(rng.bytes(500))
        yield from pictures(5, 8)
        yield part(jpeg(8))[:-200]

    with MjpegServer(plan) as server:
        live = Live(server.url, replace(FAST, reconnect=0))
        found = read(live)

    assert found == [(f"{i:06d}", i) for i in (0, 1, 2, 5, 6, 7)]
    assert live.counts.damaged == 3
    assert live.counts.received == 6


def test_stream_whose_pictures_are_all_damaged_is_connected_again():
    def plan(n):
        yield from pictures(0, 20)
        for _ in range(0 if n else 100):
            yield part(b"\xff\xd8rubbish")
            yield 0.01

    with MjpegServer(plan) as server:
        live = Live(server.url, FAST, limit=30)
        assert [number for _, number in read(live)] == [*range(20), *range(10)]

    assert live.counts.reconnects == 1
    assert live.counts.damaged >= 10


def test_rubbish_between_the_pictures_is_a_loss():
    def plan(_):
        yield from pictures(0, 5)
        yield b"rubbish\r\n" * 100
        yield from pictures(5, 60)

    with MjpegServer(plan) as server:
        live = Live(server.url, FAST, limit=8)
        assert [number for _, number in read(live)] == [*range(5), *range(3)]

    assert live.counts.reconnects == 1


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("200 OK", "what it sends is no video"),
        ("404 Not Found", "404 Not Found"),
        ("401 Unauthorized", "401 Unauthorized"),
    ],
)
def test_what_waiting_does_not_mend_fails_at_once(status, reason):
    rubbish = np.random.default_rng(0).bytes(100_000)
    with MjpegServer(lambda _: iter([rubbish]), status=status) as server:
        live = Live(server.url, FAST)
        assert read(live) == []

    assert server.connections == 1
    assert len(live.failures) == 1
    assert f"cannot open the stream {server.url}: " in live.failures[0]
    assert reason in live.failures[0]


def test_stream_that_refuses_first_and_comes_later():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    live = Live(f"http://127.0.0.1:{port}/video", replace(FAST, reconnect=20), limit=3)
    found = []
    thread = threading.Thread(target=lambda: found.extend(read(live)))
    thread.start()
    time.sleep(0.2)
    with MjpegServer(lambda _: pictures(0, 20), port):
        thread.join()

    assert found == numbered(range(3))
    assert live.counts.reconnects == 0


@pytest.mark.parametrize("scheme", ["http", "rtsp", "rtmp", "tcp"])
def test_nobody_there(scheme):
    live = Live(f"{scheme}://127.0.0.1:1/none", replace(FAST, reconnect=1))

    assert read(live) == []
    assert f"cannot open the stream {scheme}://127.0.0.1:1/none: Conn" in live.failures[0]


@pytest.mark.parametrize("address", ["9876", "nonsense://host/x", "file:///no/such/file.mp4"])
def test_what_does_not_exist_fails_at_once(address):
    live = Live(address)

    assert read(live) == []
    assert f"cannot open the {'camera' if address.isdecimal() else 'stream'}" in live.failures[0]


def test_size_that_changes():
    def plan(_):
        yield from pictures(0, 3)
        for number in range(3, 6):
            yield part(jpeg(number, 80, 96))

    with MjpegServer(plan) as server:
        frames = list(Live(server.url, replace(FAST, reconnect=0)))

    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 3 + [(80, 96, 3)] * 3


def test_frozen_picture_is_connected_again_ever_more_rarely():
    def plan(_):
        for _ in range(500):
            yield part(jpeg(1))
            yield 0.005

    with MjpegServer(plan) as server:
        live = Live(server.url, replace(FAST, frozen=0.1, reconnect=0), limit=150)
        assert len(read(live)) < 150  # lost at once: no attempt is allowed
        assert "has been the same for 0.1 s" in live.failures[0]

        live = Live(server.url, replace(FAST, frozen=0.1, reconnect=1), limit=100)
        assert len(read(live)) == 100

    assert live.failures == []
    assert 1 <= live.counts.reconnects <= 3  # after 0.1, 0.3 and 0.7 s


def test_slow_consumer_gets_new_frames_and_the_others_are_counted():
    started = time.monotonic()

    def plan(_):
        for number in itertools.count():  # its brightness tells the time
            yield part(jpeg(round((time.monotonic() - started) * 10)))
            yield 0.002 if number else 0.01

    with MjpegServer(plan) as server:
        live = Live(server.url, replace(FAST, max_latency=0.1), limit=6)
        ages = []
        for frame in live:
            assert len(live._waiting) <= 16
            if live.admit(frame):
                ages.append(time.monotonic() - started - number_of(frame.image) / 10)
                time.sleep(0.15)

    assert len(ages) == 6
    assert max(ages) < 0.5  # of 0.9 s
    assert live.counts.dropped > 50
    assert live.counts.dropped <= live.counts.received - 6


def test_video_on_a_web_server_is_read_in_full_and_ends_well(tmp_path):
    write_video(str(tmp_path / "a.mp4"), range(40), "mp4")
    with FileServer(tmp_path) as server:
        live = Live(f"{server.url}/a.mp4", replace(FAST, max_latency=0.001))
        assert read(live, pause_s=0.002) == numbered(range(40))
        again = Live(f"{server.url}/a.mp4", FAST)
        assert [frame.time_s for frame in again] == pytest.approx(np.arange(40) / 25)

    assert live.failures == []
    assert live.counts.dropped == live.counts.reconnects == 0
    assert live.fps == 25


def test_damaged_video_on_a_web_server(tmp_path):
    write_video(str(tmp_path / "a.avi"), range(10), "avi", codec="mjpeg")
    content = bytearray((tmp_path / "a.avi").read_bytes())
    start = [match.start() for match in re.finditer(b"\xff\xd8\xff", content)][4]
    content[start : start + 600] = bytes(600)  # all of it
    (tmp_path / "a.avi").write_bytes(content)

    with FileServer(tmp_path) as server:
        live = Live(f"{server.url}/a.avi", FAST)
        found = read(live)

    assert found == [(f"{i:06d}", i) for i in range(10) if i != 4]
    assert live.failures == ["live-a: damaged frames left out: 1"]


def test_video_on_a_web_server_that_breaks_off(tmp_path):
    write_video(str(tmp_path / "a.ts"), range(40), "mpegts")
    with FileServer(tmp_path, cut=4000) as server:
        live = Live(f"{server.url}/a.ts", FAST)
        found = read(live)

    assert 5 < len(found) < 40
    assert f"the stream {server.url}/a.ts ends early, after {len(found)} frames" in live.failures[0]


def make_playlist(folder, segments: int, *, ended: bool) -> None:
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXT-X-MEDIA-SEQUENCE:0"]
    for i in range(segments):
        if not (folder / f"{i}.ts").exists():
            write_video(str(folder / f"{i}.ts"), range(i * 5, i * 5 + 5), "mpegts")
        lines += ["#EXTINF:0.2,", f"{i}.ts"]
    text = "\n".join([*lines, *["#EXT-X-ENDLIST"] * ended])
    (folder / "new").write_text(text)
    (folder / "new").replace(folder / "live.m3u8")


def test_recorded_hls_ends_well(tmp_path):
    make_playlist(tmp_path, 3, ended=True)
    with FileServer(tmp_path) as server:
        live = Live(f"{server.url}/live.m3u8", FAST)
        assert [number for _, number in read(live)] == list(range(15))

    assert live.failures == []


def test_live_hls_comes_at_its_pace_and_is_lost_when_it_stands_still(tmp_path):
    make_playlist(tmp_path, 3, ended=False)
    started = time.monotonic()
    with FileServer(tmp_path) as server:
        live = Live(f"{server.url}/live.m3u8", replace(FAST, reconnect=1))
        found = []
        for frame in live:
            assert live.admit(frame)
            found.append((time.monotonic() - started, number_of(frame.image)))

    assert [number for _, number in found] == list(range(15))  # none again after a reconnect
    assert found[-1][0] - found[0][0] == pytest.approx(14 / 25, abs=0.3)
    assert "no picture in 1 more attempt" in live.failures[0]
    assert live.counts.dropped == 0


def test_live_hls_that_becomes_a_recording_has_ended_well(tmp_path):
    make_playlist(tmp_path, 3, ended=False)
    with FileServer(tmp_path) as server:
        live = Live(f"{server.url}/live.m3u8", replace(FAST, timeout=0.5))
        frames = iter(live)
        numbers = [number_of(next(frames).image)]
        make_playlist(tmp_path, 3, ended=True)
        numbers += [number_of(frame.image) for frame in frames]

    assert numbers == list(range(15))
    assert live.failures == []


def test_rtsp_by_tcp():
    def plan(n):
        yield from rtp_frames(30)
        yield 0.0 if n else 60.0

    with RtspServer(plan) as server:
        live = Live(server.url.replace("//", "//user:secret@"), FAST, limit=80)
        found = read(live)
        assert server.transports[0].startswith("RTP/AVP/TCP")

    assert len(found) == 80
    assert live.failures == []
    assert live.counts.reconnects >= 2
    assert live.counts.offline_s > 0.3
    assert 29 in [number for _, number in found]
    assert found == sorted(found)


def test_rtsp_that_answers_nothing():
    class Silent(Server):
        def __init__(self) -> None:
            super().__init__(lambda request, *_: self.send(request, iter([60.0])))

    with Silent() as server:
        live = Live(f"rtsp://{server.host}/stream1", replace(FAST, reconnect=1))
        started = time.monotonic()
        assert read(live) == []
        assert 0.6 < time.monotonic() - started < 2
        wait_for(lambda: server.connected == 0)

    assert "no answer for 0.3 s" in live.failures[0]


def nothing_found(frames):
    return [Detections() for _ in frames]


def test_slow_camera_does_not_delay_a_fast_one():
    open_both = threading.Event()

    def fast(_):
        first = 0
        while not open_both.is_set():  # a busy machine takes its time to open the slow one
            yield from pictures(first, first + 1, 0.05)
            first += 1
        yield from pictures(first, first + 1000, 0.005)

    def slow(_):
        return pictures(0, 1000, 0.15)

    with MjpegServer(fast) as one, MjpegServer(slow) as other:
        lives = {"fast": Live(one.url, FAST, limit=100), "slow": Live(other.url, FAST, limit=8)}
        pipeline = Pipeline(lambda frames: frames, nothing_found)
        closed = threading.Event()
        for live in lives.values():
            live.closed = closed
        order = []
        for stream, processed in pipeline.run_streams(
            lives, 4, live=True, admit=lambda s, f: lives[s].admit(f), closed=closed
        ):
            order += [stream] if processed is not None else []
            if stream == "slow":
                open_both.set()

    assert (order.count("fast"), order.count("slow")) == (100, 8)
    assert all(live.failures == [] for live in lives.values())
    # Within the time of slow frames tens of fast ones; the first slow ones may come at once.
    first, last = order.index("slow"), len(order) - 1 - order[::-1].index("slow")
    assert order[first:last].count("fast") > 10


@pytest.fixture
def interruptible():
    """Processes that a shell starts in the background ignore interruptions."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("answers", [True, False])
def test_interruption_ends_a_run_that_waits(answers, interruptible):
    def plan(_):
        yield from pictures(0, 2 if answers else 0)
        yield 60.0

    with MjpegServer(plan) as server:
        live = Live(server.url, replace(FAST, timeout=0.6))
        pipeline = Pipeline(lambda frames: frames, nothing_found)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            list(
                pipeline.run_streams(
                    {"a": live}, live=True, admit=lambda _, f: live.admit(f), closed=live.closed
                )
            )
        interrupted = time.monotonic()
        timer.join()
        # The sockets go when FFmpeg's time-out is over.
        wait_for(lambda: server.connected == 0 and not readers())
        assert time.monotonic() - interrupted < 1.5

    assert live.failures == []


def test_device_that_ignores_time_outs(monkeypatch):
    released = threading.Event()

    def hang(*_):
        released.wait()
        raise TimeoutError

    monkeypatch.setattr("detection.run.live.connect", hang)
    live = Live("0", replace(FAST, timeout=0.1))

    assert read(live) == []
    released.set()
    assert live.failures == [
        "live-0: the camera 0 does not answer, and no time-out ends it",
    ]


def test_null_byte_in_an_address():
    with pytest.raises(ImageError, match=r"^the stream rtsp://nul.*null byte"):
        Live("rtsp://nul\0")
