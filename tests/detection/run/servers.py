"""Servers on the loopback that send video as cameras do, and fail as cameras do."""

from __future__ import annotations

import functools
import http.server
import io
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

Plan = Callable[[int], Iterator["bytes | float"]]
"""What to send on the n-th connection: bytes, and pauses in seconds; then it is closed."""


def picture(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture that tells its number by its brightness; neighbours differ."""
    return np.full((height, width, 3), number * 5 % 250, np.uint8)


def number_of(frame: np.ndarray) -> int:
    return round(float(frame.mean()) / 5)


def jpeg(number: int, height: int = 48, width: int = 64) -> bytes:
    return cv2.imencode(".jpg", picture(number, height, width))[1].tobytes()


def part(content: bytes) -> bytes:
    """A part of a multipart stream."""
    header = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
    return header.encode() + content + b"\r\n"


def pictures(first: int, last: int, pause_s: float = 0.005) -> Iterator[bytes | float]:
    for number in range(first, last):
        yield part(jpeg(number))
        yield pause_s


class Server(socketserver.ThreadingTCPServer):
    """A server on a free port of the loopback, in a thread. Use it as a context manager.

    Attributes:
        connected: Connections open now.
        connections: Connections so far.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, handler: type, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.stopping = threading.Event()
        self.connections = 0
        self.connected = 0
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __exit__(self, *_exception: object) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, *_request: object) -> None:
        """The client has gone."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def send(self, connection, plan: Iterator[bytes | float]) -> None:
        """Send what a plan says; notice at once when the client leaves or the server stops."""
        self.connected += 1
        connection.settimeout(0)
        try:
            for item in plan:
                if isinstance(item, bytes):
                    connection.settimeout(2)
                    connection.sendall(item)
                    continue
                end = time.monotonic() + item
                while (left_s := end - time.monotonic()) > 0 and not self.stopping.is_set():
                    connection.settimeout(min(left_s, 0.02))
                    try:
                        if not connection.recv(4096):
                            return
                    except TimeoutError:
                        pass
        finally:
            self.connected -= 1


class MjpegServer(Server):
    """Multipart JPEG over HTTP, by a plan."""

    def __init__(self, plan: Plan, port: int = 0, status: str = "200 OK") -> None:
        class Handler(socketserver.BaseRequestHandler):
            server: MjpegServer

            def handle(self) -> None:
                request = self.request.recv(65536)
                assert request.startswith(b"GET")
                number = self.server.connections
                self.server.connections += 1
                self.request.sendall(
                    f"HTTP/1.0 {status}\r\n"
                    "Content-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n".encode()
                )
                self.server.send(self.request, plan(number))

        super().__init__(Handler, port)

    @property
    def url(self) -> str:
        return f"http://{self.host}/video"


class FileServer(Server):
    """The files of a folder over HTTP; `cut` leaves out that many bytes at each file's end."""

    def __init__(self, folder: Path, cut: int = 0) -> None:
        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_arguments: object) -> None:
                pass

            def copyfile(self, source, outputfile) -> None:
                content = source.read()
                outputfile.write(content[: len(content) - cut])

        super().__init__(functools.partial(Handler, directory=str(folder)))  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        return f"http://{self.host}"


def write_video(
    target, numbers: range, form: str, *, codec: str = "libx264", packetsize: int = 0
) -> None:
    """Encode pictures; each is a key frame or depends on its predecessor only."""
    options = {"packetsize": str(packetsize)} if packetsize else {}
    with av.open(target, "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "5"}
        stream.height, stream.width = 48, 64
        stream.pix_fmt = "yuv420p" if codec == "libx264" else "yuvj420p"
        for number in numbers:
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


class _RtpPackets(io.RawIOBase):
    """What FFmpeg writes, one packet a call."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, packet) -> int:
        self.packets.append(bytes(packet))
        return len(packet)


@functools.cache
def _rtp_packets(frames: int) -> list[bytes]:
    sink = _RtpPackets()
    write_video(sink, range(frames), "rtp", packetsize=1200)
    return sink.packets


def rtp_frames(frames: int, pause_s: float = 0.005) -> Iterator[bytes | float]:
    """H.264 in RTP in RTSP: after each packet that ends a frame (marker bit) a pause."""
    for packet in _rtp_packets(frames):
        is_rtcp = 192 <= packet[1] <= 223
        yield b"$" + bytes([is_rtcp]) + len(packet).to_bytes(2, "big") + packet
        if not is_rtcp and packet[1] & 0x80:
            yield pause_s


class RtspServer(Server):
    """H.264 over RTSP on TCP, by a plan that starts with PLAY."""

    def __init__(self, plan: Plan, port: int = 0) -> None:
        class Handler(socketserver.StreamRequestHandler):
            server: RtspServer

            def handle(self) -> None:
                while (method := self._answer()) != "PLAY":
                    if not method:
                        return
                number = self.server.connections
                self.server.connections += 1
                self.server.send(self.request, plan(number))

            def _answer(self) -> str:
                lines = []
                while line := self.rfile.readline().decode().strip():
                    lines.append(line)
                if not lines:
                    return ""
                method = lines[0].split()[0]
                header = dict(line.split(": ", 1) for line in lines[1:])
                extra, body = "", ""
                if method == "OPTIONS":
                    extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                elif method == "DESCRIBE":
                    body = (
                        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n"
                        "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
                    )
                    extra = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
                elif method == "SETUP":
                    self.server.transports.append(header["Transport"])
                    extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                answer = f"RTSP/1.0 200 OK\r\nCSeq: {header['CSeq']}\r\nSession: 1\r\n{extra}\r\n"
                self.wfile.write((answer + body).encode())
                return method

        self.transports: list[str] = []
        super().__init__(Handler, port)

    @property
    def url(self) -> str:
        return f"rtsp://{self.host}/stream1"
