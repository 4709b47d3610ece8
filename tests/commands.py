"""Commands in processes of their own, for tests of what ends a process or redirects its streams.

Each process is forked from one that has imported all commands, so that it starts at once.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

from rainmer.cli import run_command

COMMANDS = (
    "rainmer.align",
    "rainmer.data.layouts",
    "rainmer.derain",
    "rainmer.rain",
    "rainmer.train",
    "rainmer.views",
    "detection",
    "detection.serve",
    "eval.detect",
    "eval.footage",
    "eval.relation",
    "eval.restore",
    "eval.sets",
    "eval.street",
)

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        __name__,
        *(f"{name}.__main__" for name in COMMANDS),
        *(f"{'detection.run' if name == 'detection' else name}.command" for name in COMMANDS),
    ]
)
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Run:
    """A command that runs, and what it writes to its streams."""

    process: BaseProcess
    folder: Path

    def end(self) -> int:
        """Wait for the end and return the exit code; signals count below zero."""
        self.process.join(_PATIENCE_S)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"the command still runs after {_PATIENCE_S:.0f} s")
        return self.process.exitcode

    def send(self, number: int) -> int:
        """Send a signal, if the command still runs, and return the exit code."""
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)
        return self.end()

    def wait_for(self, *patterns: str) -> None:
        """Wait until files below the folder fit each pattern, or the command has ended."""
        while self.process.is_alive():
            if all(any(self.folder.glob(pattern)) for pattern in patterns):
                return
            time.sleep(0.002)

    def wait_for_text(self, text: str) -> None:
        """Wait until the command has printed a text, or has ended."""
        while self.process.is_alive() and text not in self.printed.decode():
            time.sleep(0.02)

    @property
    def printed(self) -> bytes:
        """What went to stdout."""
        return (self.folder / "stdout").read_bytes()

    @property
    def said(self) -> list[str]:
        """The lines on stderr."""
        return (self.folder / "stderr").read_text(encoding="utf-8", errors="replace").splitlines()


def start(
    folder: Path,
    command: str,
    *arguments: object,
    stdout: str | None = "stdout",
    stderr: str | None = "stderr",
    encoding: str = "utf-8",
) -> Run:
    """Start a command in a folder, and return when its `main` begins.

    Args:
        folder: The working directory.
        command: Name of a module with a `main`.
        arguments: The command line.
        stdout: File in the folder, or `|` for a pipe that nobody reads; None: closed.
        stderr: The same.
        encoding: Encoding of both.
    """
    texts, begun = [str(argument) for argument in arguments], _CONTEXT.Event()
    process = _CONTEXT.Process(
        target=_run, args=(folder, command, texts, (stdout, stderr), encoding, begun)
    )
    process.start()
    begun.wait(_PATIENCE_S)
    return Run(process, folder)


def _run(
    folder: Path,
    command: str,
    argv: list[str],
    targets: tuple[str | None, ...],
    encoding: str,
    begun: Event,
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server ignores it
    os.chdir(folder)
    for number, name, target in zip((1, 2), ("stdout", "stderr"), targets, strict=True):
        stream = None
        if target is None:
            os.close(number)
        else:
            os.dup2(_no_reader() if target == "|" else _opened(target), number)
            stream = open(number, "w", encoding=encoding, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.argv = [command, *argv]
    main = importlib.import_module(f"{command}.__main__").main

    def begin(argv: Sequence[str] | None) -> None:
        begun.set()
        main(argv)

    run_command(begin)


def _opened(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)


def _no_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer
