"""What the pipeline's loop costs beside its networks on a GPU, told without one.

python -m benchmarks.waiting --rounds 5

The loop of a pipeline that decodes, copies frames to memory from which they go up, and launches two
networks, which here only wait as long as an H100 took for eight frames of 1280x720: 31 ms to derain
and 3 ms to detect. What Python launches one by one are small operators of torch, as many as the
detector has. Decoding is real, of a smaller video, which takes about as long a frame as 1280x720
there; copies have their real size. So it shows how the threads of a process get in each other's
way: by Python's lock, by torch's threads (OMP_NUM_THREADS, of which a GPU's machine has many), and
for cores. Cases take turns; medians.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.pipeline import write_rainy_video
from rainmer.background import End, interleave
from rainmer.cli import make_parser, positive_int, run_command
from rainmer.frames.arrays import Frame
from rainmer.frames.video import VideoWriter, open_video

_BATCH = 8
_DERAIN_S, _DETECT_S, _SEND_S = 31e-3, 3e-3, 1e-3
_SIZE_HW = (720, 1280)
_DECODED_HW = (360, 640)
_WAIT_S = 20e-6  # of the CPU for a GPU that has finished already


@dataclass(frozen=True)
class _Case:
    """A way to get a batch through.

    Attributes:
        by_torch: Whether torch's threads copy frames, rather than numpy.
        launches: Operators of the detector's network; 1: a graph.
        choosing: Operators that choose among its boxes.
        waits: How often these wait for the GPU.
    """

    by_torch: bool
    launches: int
    choosing: int
    waits: int

    def copy(self, rows: Tensor, frames: list[Frame]) -> None:
        """Copy frames to where they go up from."""
        for row, frame in zip(rows, frames, strict=True):
            if self.by_torch:
                row.copy_(torch.from_numpy(frame))
            else:
                np.copyto(row.numpy(), frame)


_CASES = {
    "before": _Case(by_torch=True, launches=230, choosing=329, waits=48),
    "graph": _Case(by_torch=True, launches=1, choosing=30, waits=11),
    "copies": _Case(by_torch=False, launches=230, choosing=329, waits=48),
    "both": _Case(by_torch=False, launches=1, choosing=30, waits=11),
}


class _Gpu:
    """Work that is over at a time, whatever the CPU does meanwhile."""

    def __init__(self) -> None:
        self._end_s = 0.0
        self._tiny = torch.zeros(8, 16)

    def launch(self, operators: int, taken_s: float = 0.0) -> None:
        """Launch operators, which take so long in all."""
        for _ in range(operators):
            torch.add(self._tiny, 1)
            torch.mul(self._tiny, 2)
        self._end_s = max(self._end_s, time.perf_counter()) + taken_s

    def wait(self) -> None:
        """Wait without Python's lock until all is done."""
        time.sleep(max(self._end_s - time.perf_counter(), _WAIT_S))


def main() -> None:
    """Run the benchmark."""
    parser = make_parser(
        "python -m benchmarks.waiting",
        "Time the loop around networks that only wait.",
        "  OMP_NUM_THREADS=2 python -m benchmarks.waiting --rounds 5",
    )
    parser.add_argument("--limit", type=positive_int, default=64, metavar="N", help="frames")
    parser.add_argument("--rounds", type=positive_int, default=5)
    options = parser.parse_args()
    print(f"{'streams':>7} {'beside':>9}", *(f"{name:>12}" for name in _CASES))
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "rainy.mp4"
        write_rainy_video(video, _DECODED_HW, options.limit)
        for streams, is_encoding in ((1, False), (4, False), (1, True)):
            rates: dict[str, list[float]] = {name: [] for name in _CASES}
            for _, (name, case) in itertools.product(range(options.rounds), _CASES.items()):
                with _encoding(video) if is_encoding else contextlib.nullcontext():
                    rates[name].append(_rate(case, video, streams))
            cells = (f"{statistics.median(values):8.0f} /s " for values in rates.values())
            print(f"{streams:>7} {'encoding' if is_encoding else '':>9}", *cells, flush=True)


def _rate(case: _Case, video: Path, streams: int) -> float:
    """Return frames per second, counted from the first batch on."""
    gpu = _Gpu()
    rows = torch.zeros(_BATCH, *_SIZE_HW, 3, dtype=torch.uint8)
    frames = [np.ones((*_SIZE_HW, 3), np.uint8) for _ in range(_BATCH)]
    count, start_s = 0, 0.0
    with contextlib.ExitStack() as stack:
        sources = {str(i): stack.enter_context(open_video(video)) for i in range(streams)}
        chunks = stack.enter_context(
            contextlib.closing(interleave(sources, _BATCH, ahead=2 * _BATCH))
        )
        for chunk in chunks:
            start_s = start_s or time.perf_counter()
            if sum(not isinstance(item, End) for _, item in chunk) < _BATCH:
                continue
            case.copy(rows, frames)
            gpu.launch(1, _SEND_S + _DERAIN_S)
            gpu.launch(case.launches, _DETECT_S)
            gpu.wait()
            for _ in range(case.waits):
                gpu.launch(case.choosing // case.waits)
                gpu.wait()
            count += _BATCH
    return count / (time.perf_counter() - start_s)


@contextlib.contextmanager
def _encoding(video: Path) -> Iterator[None]:
    """Encode videos in a thread meanwhile."""
    closed = threading.Event()
    with open_video(video) as reader:
        frames = [frame.image for frame in reader]
    thread = threading.Thread(target=_encode, args=(video.with_name("found.mp4"), frames, closed))
    thread.start()
    try:
        yield
    finally:
        closed.set()
        thread.join()


def _encode(target: Path, frames: list[Frame], closed: threading.Event) -> None:
    with VideoWriter(target, fps=25, size_hw=_DECODED_HW) as writer:
        for frame in itertools.cycle(frames):
            writer.write(frame)
            if closed.is_set():
                return


if __name__ == "__main__":
    run_command(lambda _: main())
