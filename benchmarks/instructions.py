"""Instructions of the kernels of `rainmer.kernels`, counted in their machine code without a GPU.

python -m benchmarks.instructions --networks published rainmer-s --sizes 1280x720

The fused network runs in bfloat16 on torch's device "meta". Its kernels are compiled for a GPU as
they would be launched, and the code of those that are bound by arithmetic, filters and mixtures, is
taken apart with Triton's own tools. The times are what the instructions would take if every
scheduler of the GPU issued one in each clock: a bound, which kernels come near to (or not).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from benchmarks.measuring import add_network_options, build
from rainmer.cli import make_parser, positive_int, positive_number, run_command
from rainmer.errors import RainmerError
from rainmer.files import write_text
from rainmer.kernels import dispatch

__all__ = ["Code", "Launch", "compile_only", "count_instructions", "registers_and_spilled"]

_WARP = 32
_LEAST_FMAS = 8  # in a loop over the rows of a filter
_BRANCH = re.compile(r"\bBRA\b.*?0x([0-9a-f]+)")
_LINE = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?(.*?);")
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")
_SIDES = {"_first_pass": (3, 5, 7), "_second_pass": (3, 3, 5, 5, 7, 7, 3)}
"""Sides of the filters of the mixture's kernels, in their order."""


@dataclass(frozen=True)
class Launch:
    """A kernel that was compiled where it would have been launched.

    Attributes:
        name: Name of the kernel.
        programs: Number of programs.
        kernel: What Triton compiled.
        constants: Its compile-time constants.
    """

    name: str
    programs: int
    kernel: Any
    constants: Mapping[str, Any]

    @property
    def threads(self) -> int:
        """Number of threads of all programs."""
        return self.programs * _WARP * int(self.kernel.metadata.num_warps)

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the filters that it runs; none if it is not bound by arithmetic."""
        if self.name in ("_filter_kernel", "_spread_kernel"):
            return (self.constants["SIDE"],) * (2 if self.constants.get("SECOND") else 1)
        return _SIDES.get(self.name, ())

    @property
    def rounds(self) -> int:
        """How often it goes through its filters, each time for other channels."""
        chunk = self.constants.get("CHUNK")
        return -(-self.constants["COUNT"] // chunk) if chunk else 1


@dataclass(frozen=True)
class Code:
    """What a thread of a kernel executes and holds.

    Attributes:
        instructions: Loops count as often as they run: those of filters for each row, others for
            each group of channels.
        multiply_adds: Those of them that multiply and add.
        registers: Registers.
        spilled: Bytes beyond them.
    """

    instructions: int
    multiply_adds: int
    registers: int
    spilled: int


@contextlib.contextmanager
def compile_only(capability: int = 90) -> Iterator[list[Launch]]:
    """Compile kernels instead of launching them, for a GPU that need not be there.

    Args:
        capability: Compute capability times 10; 90 is an H100.

    Yields:
        The launches so far.
    """
    import triton
    from triton.backends.compiler import GPUTarget

    launches: list[Launch] = []
    run = triton.runtime.jit.JITFunction.run

    def compile_it(self: Any, *args: Any, grid: tuple[int, ...], **options: Any) -> None:  # noqa: ANN401
        compiled = run(self, *args, grid=grid, **options | {"warmup": True})
        constants = {name: value for name, value in options.items() if name.isupper()}
        programs = int(torch.tensor(grid).prod())
        launches.append(Launch(self.__name__, programs, compiled, constants))

    target = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", capability, _WARP),
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
    )
    with (
        mock.patch.object(triton.runtime.driver, "_active", target),
        mock.patch.object(triton.runtime.jit.JITFunction, "run", compile_it),
        mock.patch.object(dispatch, "_on_device", return_value=True),
    ):
        yield launches


def registers_and_spilled(launch: Launch) -> tuple[int, int]:
    """Return the registers of a thread, and the bytes that do not fit into them."""
    found = _USAGE.search(_taken_apart(launch, "-res-usage"))
    assert found
    return int(found[1]), int(found[2])


def _taken_apart(launch: Launch, flag: str) -> str:
    """Return what a tool that comes with Triton tells of a kernel."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(launch.kernel.asm["cubin"])
        done = subprocess.run([tool, flag, file], capture_output=True, text=True, check=True)
    return done.stdout


def count_instructions(launch: Launch) -> Code:
    """Count what a thread of a kernel executes in its machine code."""
    code = _taken_apart(launch, "-sass")
    lines = [(int(place, 16), text) for place, text in _LINE.findall(code)]
    loops = sorted(
        (int(branch[1], 16), place)
        for place, text in lines
        if (branch := _BRANCH.search(text)) and int(branch[1], 16) < place
    )
    sides = dict(zip(_filter_loops(loops, lines), launch.sides, strict=True))
    executed: Counter[str] = Counter()
    for place, text in lines:
        times = 1
        for loop in loops:
            if loop[0] <= place <= loop[1]:
                times *= sides.get(loop, launch.rounds)
        executed[re.split(r"[ .]", text)[0]] += times
    instructions = executed.total() - executed["NOP"]
    return Code(instructions, executed["FFMA"], *registers_and_spilled(launch))


def _filter_loops(
    loops: list[tuple[int, int]], lines: list[tuple[int, str]]
) -> list[tuple[int, int]]:
    """Return the innermost loops that multiply and add."""

    def fmas(loop: tuple[int, int]) -> int:
        inside = (text for place, text in lines if loop[0] <= place <= loop[1])
        return sum(text.startswith("FFMA") for text in inside)

    return [
        loop
        for loop in loops
        if not any(loop[0] <= inner[0] and inner[1] < loop[1] for inner in loops)
        and fmas(loop) >= _LEAST_FMAS
    ]


def main() -> None:
    """Count the instructions and print them."""
    options = _parse()
    rows = []
    for name in options.networks:
        for size_hw in options.sizes:
            rows += _rows(name, size_hw, options)
    if options.out:
        write_text(options.out, json.dumps({"rows": rows}, indent=2) + "\n")


def _parse() -> argparse.Namespace:
    parser = make_parser(
        "python -m benchmarks.instructions",
        "Count what the kernels execute.",
        "  python -m benchmarks.instructions --networks rainmer-s --batch 8",
    )
    add_network_options(parser, [(720, 1280)])
    parser.add_argument("--batch", type=positive_int, default=1, metavar="N")
    parser.add_argument("--capability", type=positive_int, default=90, help="times 10; 90: H100")
    parser.add_argument("--sms", type=positive_int, default=132, help="multiprocessors of the GPU")
    parser.add_argument("--ghz", type=positive_number, default=1.755, help="their clock")
    return parser.parse_args()


def _rows(
    name: str, size_hw: tuple[int, int], options: argparse.Namespace
) -> list[dict[str, object]]:
    network = build(name).requires_grad_(False).fuse().to("meta", torch.bfloat16)
    frames = torch.empty(options.batch, 3, *size_hw, dtype=torch.bfloat16, device="meta")
    try:
        with compile_only(options.capability) as launches, torch.inference_mode():
            network(frames)
    except ImportError as error:
        raise RainmerError(f"kernels need Triton: {error}") from None
    size = f"{size_hw[1]}x{size_hw[0]}"
    print(
        f"{name}, {options.batch} x {size}: {len(launches)} launches of "
        f"{len({id(launch.kernel) for launch in launches})} kernels"
    )
    per_second = options.sms * 128 * options.ghz * 1e9  # instructions of threads
    rows = []
    for kind in ("_filter_kernel", *_SIDES):
        row = _total([launch for launch in launches if launch.name == kind], per_second)
        rows.append({"network": name, "size": size, "batch": options.batch, "kernel": kind} | row)
        print("  " + ", ".join(f"{key} {value}" for key, value in {"kernel": kind, **row}.items()))
    return rows


def _total(launches: list[Launch], per_second: float) -> dict[str, object]:
    """Add up the launches of one kernel."""
    codes = {id(launch.kernel): count_instructions(launch) for launch in launches}
    executed, multiplied = (
        sum(getattr(codes[id(launch.kernel)], kind) * launch.threads for launch in launches)
        for kind in ("instructions", "multiply_adds")
    )
    return {
        "launches": len(launches),
        "compiled": len(codes),
        "registers": max((code.registers for code in codes.values()), default=0),
        "spilled_bytes": max((code.spilled for code in codes.values()), default=0),
        "gigainstructions": round(executed / 1e9, 2),
        "per_multiply_add": round(executed / max(multiplied, 1), 2),
        "ms_at_full_issue": round(1e3 * executed / per_second, 2),
    }


if __name__ == "__main__":
    run_command(lambda argv: main())
