"""Ray: a cluster of this machine's processes or an existing one, and the pool of actors on it."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import torch

from detection.bulk.options import BulkOptions
from detection.bulk.units import Unit
from detection.bulk.worker import Settings, Worker
from rainmer.cpus import usable_cpus
from rainmer.errors import RainmerError, first_line
from rainmer.extras import import_extra

__all__ = ["Fleet", "fleet", "local_gpus", "plan_fleet"]

_MOST_ACTORS = 8  # without being told, on CPUs
_CLUSTER_CPUS = 4
_LEAST_STORE = 80_000_000  # bytes; Ray refuses less
_GB = 1e9
_PATIENCE_S = 10.0


def local_gpus(options: BulkOptions) -> int:
    """Return how many GPUs of this machine are to be used."""
    return 0 if options.device == "cpu" else torch.cuda.device_count()


def plan_fleet(options: BulkOptions, gpus: float) -> tuple[int, int]:
    """Return the number of actors and of each one's CPUs on this machine.

    Args:
        options: What the user wants.
        gpus: GPUs of this machine.
    """
    usable = usable_cpus()
    on_gpus = int(gpus / options.gpus)
    actors = options.actors or on_gpus or min(usable, _MOST_ACTORS)
    return actors, options.cpus or max(1, usable // actors)


class Fleet:
    """A pool of actors on a cluster that is up.

    Args:
        ray: The package.
        actors: Number of actors.
        cpus: CPUs of each.
        gpus: GPUs of each; 0: they compute on CPUs.
    """

    def __init__(self, ray: Any, actors: int, cpus: int, gpus: float) -> None:  # noqa: ANN401
        self.cpus = cpus
        self._ray, self._actors, self._gpus = ray, actors, gpus

    def reports(
        self, units: Sequence[Unit], settings: Settings
    ) -> Generator[dict[str, Any], None, None]:
        """Let the actors process units; yield their reports as they come, part by part.

        An actor that dies is replaced, and its unit done again.

        Raises:
            RainmerError: What an actor could not do, or the cluster is gone.
        """
        ray, data = self._ray, import_extra("ray.data", "bulk", "python -m detection.bulk")
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        # Reports are tiny, and each is to come at once: a block of its own.
        context.target_max_block_size = 1
        ledger = ray.remote(num_cpus=0)(_Ledger).remote()
        rows = [{"unit": unit.to_json()} for unit in units]
        with (
            _errors(ray),
            warnings.catch_warnings(),
            # Of dead actors Ray prints pages; `Tally.again` counts them.
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
        ):
            warnings.simplefilter("ignore")
            pool = data.ActorPoolStrategy(size=self._actors, max_tasks_in_flight_per_actor=2)
            done = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                Worker,
                batch_size=1,
                batch_format="numpy",
                fn_constructor_args=(settings, ledger),
                compute=pool,
                num_cpus=self.cpus,
                num_gpus=self._gpus or None,
            )
            _hush()  # again: Ray has set up its loggers meanwhile
            for report in done.iter_rows():
                if report["error"]:
                    raise RainmerError(report["error"])
                yield report


class _Ledger:
    """Counts how often each unit was begun; a unit that kills actors would never end."""

    def __init__(self) -> None:
        self._starts: dict[str, int] = {}

    def start(self, key: str) -> int:
        """Count a beginning and return the number so far."""
        self._starts[key] = self._starts.get(key, 0) + 1
        return self._starts[key]


@contextlib.contextmanager
def fleet(options: BulkOptions, wanted: int) -> Iterator[Fleet]:
    """Yield a pool on the cluster of `RAY_ADDRESS`, or on processes of this machine.

    Nothing is reported to Ray's makers, there is no dashboard, and the processes of this machine
    end with the block.

    Args:
        options: What the user wants.
        wanted: The most actors that there is work for.

    Raises:
        RainmerError: Ray is not installed, does not start, or no cluster is at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = import_extra("ray", "bulk", "python -m detection.bulk")
    import_extra("pyarrow", "bulk", "python -m detection.bulk")
    _hush()
    address = os.environ.get("RAY_ADDRESS", "")
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    folder = None if address else tempfile.mkdtemp(prefix="rainmer-ray-")
    try:
        with _errors(ray):
            _start(ray, options, address, folder)
        for number, handler in handlers.items():
            signal.signal(number, handler)  # Ray has its own, which end the process
        gpus = 0.0 if options.device == "cpu" else ray.cluster_resources().get("GPU", 0.0)
        actors, cpus = _on_cluster(ray, options, gpus) if address else plan_fleet(options, gpus)
        yield Fleet(ray, min(actors, wanted), cpus, options.gpus if gpus else 0.0)
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _hush() -> None:
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _start(ray: Any, options: BulkOptions, address: str, folder: str | None) -> None:  # noqa: ANN401
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": False}
    if address:
        _reach(address)
        ray.init(address=address, **quiet)
        return
    gpus = local_gpus(options)
    actors, cpus = plan_fleet(options, gpus)
    ray.init(
        address="local",
        num_cpus=actors * cpus + 1,
        num_gpus=gpus,
        include_dashboard=False,
        object_store_memory=max(_LEAST_STORE, int(options.memory * _GB)),
        _temp_dir=folder,
        **quiet,
    )


def _on_cluster(ray: Any, options: BulkOptions, gpus: float) -> tuple[int, int]:  # noqa: ANN401
    """Return actors and CPUs as `plan_fleet` does, of a cluster. Raises RainmerError."""
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    largest = int(max(nodes, default=0))
    cpus = options.cpus or max(1, min(_CLUSTER_CPUS, largest))
    if cpus > largest:
        raise RainmerError(f"--cpus {cpus}: the largest node of the cluster has {largest} CPUs")
    return options.actors or int(gpus / options.gpus) or max(1, int(sum(nodes)) // cpus), cpus


def _reach(address: str) -> None:
    """Look if anything answers at an address: Ray itself tries for minutes. Raises RainmerError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # `auto`
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()
    except OSError as error:
        reason = error.strerror or error
        raise RainmerError(f"no Ray cluster at RAY_ADDRESS={address}: {reason}") from error


@contextlib.contextmanager
def _errors(ray: Any) -> Iterator[None]:  # noqa: ANN401
    """Turn what Ray raises into one line."""
    try:
        yield
    except RainmerError:
        raise
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise RainmerError(
            f"Ray: {_reason(error)}; results so far are kept, the same command goes on"
        ) from error


def _reason(error: BaseException) -> str:
    """Return the last line of what Ray says of an actor: the error itself, after the traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if len(lines) > 1 else first_line(error)
