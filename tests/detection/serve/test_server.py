"""The real server on a port of this machine: slow clients, many clients, and its end."""

import contextlib
import http.client
import resource
import socket
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("uvicorn")
from detection.serve.__main__ import main
from detection.serve.app import make_app
from detection.serve.engine import Engine
from detection.serve.options import Limits, parse
from detection.serve.server import listen, make_server
from rainmer import Derainer
from rainmer.errors import RainmerError
from rainmer.frames.images import encode_image
from tests.detection.serve.conftest import lamps
from tests.detection.serve.test_requests import bomb

PNG = encode_image(lamps(), ".png")


@contextlib.contextmanager
def running(detector, seconds=20.0, derain="median"):
    """Run a server in a thread; yield its port and what stops it."""
    limits = Limits(seconds=seconds)
    app = make_app(Engine(Derainer(derain, device="cpu"), detector), limits)
    server = make_server(app, seconds)
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()

        def stop():
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()

        assert app.state.service.batcher.ready.wait(20)
        try:
            yield port, stop
        finally:
            detector.go.set()
            stop()


def ask(port, path="/v1/detect", body=PNG):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        connection.request("POST" if body else "GET", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()


def closed_after(client):
    """Return what a server sent until it closed the connection, and when that was."""
    begun, received = time.monotonic(), b""
    with contextlib.suppress(ConnectionError):
        while chunk := client.recv(1 << 16):
            received += chunk
    return received, time.monotonic() - begun


HEAD = b"POST /v1/derain HTTP/1.1\r\nHost: 127.0.0.1\r\n"
SLOW = {
    "says nothing": (b"", b""),
    "half a header": (HEAD[:20], b""),
    "half a body": (HEAD + b"Content-Length: 999\r\n\r\nabc", b"did not arrive within 0.4 s"),
    "half of what is refused": (HEAD + b"Content-Length: 99999999\r\n\r\nabc", b"at most 32 MB"),
}


@pytest.mark.parametrize("case", SLOW)
def test_slow_clients_are_cut_off(detector, case):
    sent, said = SLOW[case]
    with running(detector, seconds=0.4) as (port, _):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(sent)
            received, seconds = closed_after(client)
        assert seconds < 3
        assert said in received
        assert ask(port)[0] == 200


@pytest.mark.slow
def test_a_client_that_does_not_take_its_answer_is_cut_off(detector):
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    body = encode_image(noise, ".png")
    head = HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode()
    with running(detector, seconds=1.0, derain="none") as (port, _):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(head + body)
            time.sleep(3.5)
            client.settimeout(5)
            received, _ = closed_after(client)
        assert 0 < len(received) < len(body) // 2
        assert ask(port)[0] == 200


def test_requests_in_flight_are_answered_at_the_end_and_no_new_ones(detector):
    answers = []
    with running(detector) as (port, stop):
        detector.go.clear()
        threads = [threading.Thread(target=lambda: answers.append(ask(port))) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        ending = threading.Thread(target=stop)
        ending.start()
        time.sleep(0.3)
        with pytest.raises(ConnectionError):
            ask(port)
        detector.go.set()
        for thread in (*threads, ending):
            thread.join(20)
    assert [status for status, _ in answers] == [200] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of the peak differs")
def test_bombs_are_refused_at_once_and_take_no_memory(detector):
    content = bomb(30_000, 30_000)
    with running(detector) as (port, _):
        ask(port)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.monotonic()
        for _ in range(20):
            status, text = ask(port, "/v1/derain", content)
            assert status == 413
            assert b"900" in text
        assert time.monotonic() - begun < 5
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_two_servers_on_one_port():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(RainmerError) as error:
            main(["--detector", "none.pt", "--port", str(port)])
        assert str(error.value) == (
            f"port {port} of 127.0.0.1 is taken, perhaps by another server: choose another --port"
        )


def test_hosts_that_are_not_here():
    for host in ("203.0.113.7", "no such host", "x" * 300):
        with pytest.raises(RainmerError, match=r"cannot listen on|is no address"):
            listen(host, 0)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--host", "0.0.0.0"], "needs a token"),
        (["--host", "0.0.0.0", "--token-file", "none.txt"], "cannot read the token in none.txt"),
        (["--token-file", "short.txt"], "a token has 16 or more"),
        (["--token-file", "empty.txt"], "there is no token in empty.txt"),
        (["--memory", "10"], "one request may need 176 MB, but --memory is 10"),
        (["--queue", "4"], "a request of 16 images never fits into a queue of 4"),
    ],
)
def test_mistakes_in_options(argv, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAINMER_TOKEN", raising=False)
    (tmp_path / "short.txt").write_text("short\n")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(RainmerError, match=text):
        parse(["--detector", "x.pt", *argv])


def test_the_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("0123456789abcdef\n")
    monkeypatch.setenv("RAINMER_TOKEN", "fedcba9876543210")
    options = parse(["--detector", "x.pt", "--host", "0.0.0.0"])
    assert options.read_token() == "fedcba9876543210"
    options = parse(["--detector", "x.pt", "--token-file", str(tmp_path / "token")])
    assert options.read_token() == "0123456789abcdef"
    monkeypatch.delenv("RAINMER_TOKEN")
    assert parse(["--detector", "x.pt"]).read_token() is None
