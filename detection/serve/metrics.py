"""What the server counts, in the form of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_STAGE_SECONDS = (0.0005, 0.001, 0.002, *_SECONDS)
_BATCHES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Counters of one server; several servers in a process do not share them.

    Attributes:
        requests: Answers by path and status.
        seconds: Time from a request's headers until it is answered, by path.
        batch: Frames in a batch, by kind.
        queue: Frames that wait for the networks.
        stages: Time of a frame in each stage.
        frames: Frames of live sources.
        dropped: Frames of live sources that gave way to newer ones.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rainmer_requests", "Answers", ("path", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "rainmer_request_seconds",
            "Time of a request",
            ("path",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch = Histogram(
            "rainmer_batch_frames",
            "Frames in a batch",
            ("kind",),
            buckets=_BATCHES,
            registry=self.registry,
        )
        self.queue = Gauge(
            "rainmer_queue_frames", "Frames that wait for the networks", registry=self.registry
        )
        self.stages = Histogram(
            "rainmer_stage_seconds",
            "Time of a frame in a stage",
            ("stage",),
            buckets=_STAGE_SECONDS,
            registry=self.registry,
        )
        self.frames = Counter(
            "rainmer_live_frames", "Frames of sources", ("source",), registry=self.registry
        )
        self.dropped = Gauge(
            "rainmer_live_dropped_frames",
            "Frames of sources that gave way to newer ones",
            ("source",),
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def stage(self, name: str, elapsed_ms: float) -> None:
        """Count a frame's time in a stage, in ms."""
        self.stages.labels(name).observe(elapsed_ms / 1e3)

    def text(self) -> bytes:
        """Return all numbers in the text format."""
        return generate_latest(self.registry)
