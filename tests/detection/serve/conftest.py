"""A server around a median filter and a detector of bright patches, asked without a network."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
from fastapi.testclient import TestClient

from detection.serve.app import make_app
from detection.serve.engine import Engine
from detection.serve.options import Limits
from detection.types import Detections
from rainmer import Derainer

URL = "http://127.0.0.1"


class Bright:
    """Finds bright patches; `go` lets it work, so that tests can make it slow."""

    name = "bright"
    names = {0: "lamp"}  # noqa: RUF012 (as of detectors)

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.batches: list[int] = []

    def __call__(self, frames):
        assert self.go.wait(20)
        self.batches.append(len(frames))
        if any((frame == 7).all() for frame in frames):
            raise RuntimeError("cannot bear sevens in /secret/place")
        return [self.detect(frame) for frame in frames]

    @staticmethod
    def detect(frame):
        _, _, stats, _ = cv2.connectedComponentsWithStats(
            (frame.min(axis=2) > 180).astype(np.uint8)
        )
        boxes = [[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:]]
        return Detections(boxes, [0.9] * len(boxes), [0] * len(boxes))


def lamps(size_hw=(48, 64), *, rain=True, seed=0):
    """Two lamps in the dark, and bright specks that a median filter removes."""
    frame = np.full((*size_hw, 3), 40, np.uint8)
    frame[8:20, 8:20] = frame[24:40, 30:50] = 230
    rng = np.random.default_rng(seed)
    for _ in range(4 if rain else 0):
        frame[rng.integers(0, 7), rng.integers(22, size_hw[1])] = 255
    return frame


@pytest.fixture
def detector():
    return Bright()


@pytest.fixture
def serve(detector):
    """Start applications; each is asked by a client of its own."""
    clients = []

    def start(derain="median", headers=None, **options):
        engine = Engine(Derainer(derain, device="cpu"), detector)
        client = TestClient(make_app(engine, **options), base_url=URL, headers=headers)
        clients.append(client.__enter__())
        assert client.app.state.service.batcher.ready.wait(20)
        detector.batches.clear()
        return client

    yield start
    detector.go.set()
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serve):
    return serve()


SMALL = Limits(body=200_000, pixels=100_000, images=3, queue=4, seconds=2.0, memory=2_000_000)
