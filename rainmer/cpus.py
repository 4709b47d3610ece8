"""How many CPUs a process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cpus_by_affinity", "usable_cpus"]

_CGROUPS = Path("/sys/fs/cgroup")
_PROCESS_CGROUPS = Path("/proc/self/cgroup")


def usable_cpus(cgroups: Path = _CGROUPS, process_cgroups: Path = _PROCESS_CGROUPS) -> int:
    """Return how many CPUs this process may use, by its affinity and the quotas of its cgroups.

    Args:
        cgroups: Where cgroups (version 1 or 2) are mounted.
        process_cgroups: The file that lists the cgroups of this process.
    """
    cpus = cpus_by_affinity()
    return max(1, int(min([cpus, *_quotas(cgroups, process_cgroups)])))


def cpus_by_affinity() -> int:
    """Return how many CPUs this process may use, as far as its affinity tells."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(cgroups: Path, process_cgroups: Path) -> Iterator[float]:
    """Yield the CPU quotas of the cgroups of a process and of those above them, in CPUs."""
    try:
        lines = process_cgroups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / "cpu" if controllers else cgroups
        folder = root / path.lstrip("/")
        # Inside a container, the path may be one of the host, and the root is the container's.
        for level in (folder, *folder.parents):
            if level.is_relative_to(root) and (quota := _quota(level)):
                yield quota


def _quota(folder: Path) -> float | None:
    """Return the quota of one cgroup in CPUs; None if it has none."""
    try:
        if (folder / "cpu.max").is_file():  # version 2: "200000 100000" or "max 100000"
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):
        return None
