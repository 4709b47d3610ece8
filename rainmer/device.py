"""Choice of the device, what it computes in, and the number of CPU threads."""

from __future__ import annotations

import functools
import os
import re
import threading

import cv2
import torch

from rainmer.cpus import cpus_by_affinity, usable_cpus
from rainmer.errors import RainmerError

__all__ = [
    "frames_at_once",
    "has_native_bf16",
    "resolve_device",
    "survive_forks",
    "usable_cpus",
    "use_threads",
]

_DEVICE_TYPES = ("cpu", "cuda", "mps", "xpu")
_NARROW_CPUS = ("NO AVX", "DEFAULT", "AVX2")  # or told to be, by ATEN_CPU_CAPABILITY
_PARALLEL_SIZE = 1 << 20  # elements from which torch uses all threads
_LARGE_FRAME = 640 * 360  # pixels


def resolve_device(name: str | torch.device | None) -> torch.device:
    """Turn an option into a device; None chooses cuda, then mps, then cpu. `gpu` means cuda.

    Raises:
        RainmerError: The device does not exist on this machine.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        text = re.sub(r"^gpu\b", "cuda", str(name))
        device = torch.device(f"cuda:{text}" if text.isdecimal() else text)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise RainmerError(f"no device {name!r} here: {reason}; use --device cpu") from error
    if device.type not in _DEVICE_TYPES:
        raise RainmerError(f"no device {name!r} here: use {', '.join(_DEVICE_TYPES)}")
    return device


def has_native_bf16(device: torch.device) -> bool:
    """Tell whether a device has instructions for bfloat16, so that networks run faster in it.

    GPUs of NVIDIA from Ampere on and those of AMD have them, and CPUs with AVX512-BF16 or AMX.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or torch.backends.cpu.get_cpu_capability() in _NARROW_CPUS:
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def frames_at_once(batch: int, size_hw: tuple[int, int], device: object) -> int:
    """Return how many frames a command computes in one go, at most `batch`.

    On the CPU large frames take long and gain nothing from company: one by one, results come with
    every frame.

    Args:
        batch: The most.
        size_hw: (height, width) of the frames.
        device: Where the network is; None for what has none.
    """
    on_cpu = isinstance(device, torch.device) and device.type == "cpu"
    return 1 if on_cpu and size_hw[0] * size_hw[1] >= _LARGE_FRAME else batch


def use_threads(count: int | None = None) -> None:
    """Set how many CPU threads torch and OpenCV compute with, for the whole process.

    From then on, idle threads sleep. By default OpenMP lets them spin for milliseconds, which takes
    CPU time from other processes: two derainers with two threads each then hardly progress on two
    CPUs. For commands only: a library leaves the number of threads to its user.

    Args:
        count: Number of threads; None: torch's own number, which is `OMP_NUM_THREADS` if the user
            or torchrun has set it; otherwise at most `usable_cpus()`.
    """
    if count is None:
        count = torch.get_num_threads()
        # Where torch has another number, ultralytics has set the variable after torch was loaded.
        if os.environ.get("OMP_NUM_THREADS") != str(count):
            count = min(count, usable_cpus())
    if count > 1:
        _let_idle_threads_sleep()
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


@functools.cache
def survive_forks() -> None:
    """Let torch compute with one thread in processes that are forked from this one from now on.

    A fork copies none of the threads that OpenMP keeps for the next operation, and the child would
    wait for them for ever. torch's own workers that load data do the same.
    """
    if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
        os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))


@functools.cache
def _let_idle_threads_sleep() -> None:
    """Keep an idle team of more threads than there are CPUs, in a thread that does nothing else.

    GNU's OpenMP, which torch is built with on Linux, decides by `OMP_WAIT_POLICY` whether waiting
    threads spin. It reads that when torch is loaded, which is before any command runs, and has no
    function to change it. But while a process has more OpenMP threads than CPUs, with work or
    without, it lets them spin for a microsecond only. Other OpenMP libraries take no notice.
    """
    ready = threading.Event()
    before = torch.get_num_threads()

    def hold() -> None:
        try:
            torch.set_num_threads(cpus_by_affinity() + 1)
            torch.zeros(_PARALLEL_SIZE).add_(1.0)
        finally:
            ready.set()
        threading.Event().wait()

    threading.Thread(target=hold, name="idle OpenMP threads", daemon=True).start()
    ready.wait()
    torch.set_num_threads(before)
