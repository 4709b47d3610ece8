"""What stands beside every time: the device, its threads, the precision and the size of frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from eval.report.tables import UNDEFINED, format_ms
from eval.scores.timing import Timing

__all__ = ["EARLIER", "TimedOn", "format_rate", "format_timing"]

EARLIER = "* timed earlier, perhaps on another device: results and frames that were kept"
"""The footnote of a time that this run did not measure."""


@dataclass(frozen=True, kw_only=True)
class TimedOn:
    """What the times of a run hold for.

    Attributes:
        device: `cpu`, or the GPU's name.
        processor: The CPU's name.
        threads: Threads of the CPU.
        precision: Of the derainers; several are joined by commas.
        sizes: (height, width) of every frame in pixels.
    """

    device: str
    processor: str
    threads: int
    precision: str
    sizes: Sequence[tuple[int, int]]

    @classmethod
    def of(
        cls,
        environment: Mapping[str, object],
        precisions: Iterable[str],
        sizes: Iterable[tuple[int, int]],
    ) -> TimedOn:
        """Take device and threads from `eval.report.files.describe_environment`."""
        threads = environment["cpu_threads"]
        assert isinstance(threads, int)
        return cls(
            device=str(environment["device"]),
            processor=str(environment["cpu"]),
            threads=threads,
            precision=", ".join(sorted({name for name in precisions if name})),
            sizes=list(sizes),
        )

    @property
    def frame_size(self) -> str:
        """The size of all frames as width x height, or the smallest and the largest one."""
        sizes = sorted(set(self.sizes), key=lambda size: (size[0] * size[1], size))
        texts = [f"{width}x{height}" for height, width in sizes]
        if len(texts) < 2:
            return "".join(texts)
        return f"{len(texts)} sizes from {texts[0]} to {texts[-1]}"

    @property
    def short(self) -> str:
        """All of it in a few words: `CPU, 4 threads, fp32, 640x360`."""
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        place = f"CPU, {threads}" if self.device == "cpu" else f"{self.device}, {threads} of CPU"
        return ", ".join(part for part in (place, self.precision, self.frame_size) if part)

    @property
    def text(self) -> str:
        """All of it, with the CPU's name."""
        return self.short.replace("CPU", f"CPU ({self.processor})", 1)

    def flat(self) -> dict[str, object]:
        """Return it as columns of a row."""
        return {"device": self.device, "threads": self.threads, "frame_size": self.frame_size}


def format_timing(timing: Timing) -> str:
    """Format a median in milliseconds; a star marks one that an earlier run measured.

    >>> format_timing(Timing(286.2, earlier=True)), format_timing(Timing(9.31))
    ('286*', '9.3')
    """
    return _starred(timing.ms, timing)


def format_rate(timing: Timing) -> str:
    """Format images a second, with the same star.

    >>> format_rate(Timing(375.1, earlier=True)), format_rate(Timing(1.56)), format_rate(Timing())
    ('2.7*', '641', '–')
    """
    return _starred(timing.rate, timing)


def _starred(value: float | None, timing: Timing) -> str:
    text = format_ms(value)
    return text if text == UNDEFINED or not timing.earlier else f"{text}*"
