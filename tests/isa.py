"""Run the numerical tests with other instruction sets and numbers of threads.

python -m tests.isa [OPTIONS OF PYTEST] prints a table of the settings and ends with code 1 if a
test failed in one of them. Each value of each variable is used at least once; values that this
processor does not have are left out.
"""

import os
import subprocess
import sys
import time

import torch

# What ATen's kernels, oneDNN's kernels and the number of threads are set to.
SETTINGS = [
    {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "TEST_THREADS": "1"},
    {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "TEST_THREADS": "2"},
    {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "", "TEST_THREADS": "4"},
]
NUMERICAL = [
    "tests/rainmer/models",
    "tests/rainmer/stage",
    "tests/rainmer/train",
    "tests/rainmer/frames/test_resize.py",
    "tests/rainmer/frames/test_tiling.py",
    "tests/rainmer/test_metrics.py",
    "tests/rainmer/views/test_encode.py",
    "tests/rainmer/views/test_measure.py",
    "tests/rainmer/views/test_projection.py",
    "tests/rainmer/align/test_alignment.py",
    "tests/rainmer/rain/test_drops.py",
    "tests/rainmer/rain/test_renderer.py",
    "tests/detection/test_pipeline.py",
    "tests/detection/yolo",
    "tests/eval/detect/test_comparison.py",
    "tests/eval/relation/test_coefficients.py",
    "tests/eval/restore/test_comparison.py",
    "tests/eval/restore/test_metrics.py",
    "tests/eval/restore/test_scores.py",
    "tests/eval/rows",
    "tests/eval/scores",
    "tests/test_benchmarks.py",
]
HIGHEST = {"default": 0, "avx2": 1, "avx512": 2}


def main(options):
    capability = torch.backends.cpu.get_cpu_capability().lower()
    failed, table = False, []
    for setting in SETTINGS:
        named = ", ".join(f"{key}={value or 'unset'}" for key, value in setting.items())
        if HIGHEST[setting["ATEN_CPU_CAPABILITY"]] > HIGHEST.get(capability, 0):
            table.append(f"left out | {named} | this processor has {capability}")
            continue
        code, seconds, summary = run(setting, options)
        failed |= code != 0
        table.append(f"{'FAILED' if code else 'passed'} | {named} | {seconds:.0f} s | {summary}")
    print("\n".join(table))
    return int(failed)


def run(setting, options):
    """Return pytest's exit code, the seconds, and its last line. Its output goes to stderr."""
    # Threads that spin while they wait take the processor from those that work.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    environment |= {key: value for key, value in setting.items() if value}
    environment["OMP_NUM_THREADS"] = setting["TEST_THREADS"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *NUMERICAL, *options]
    started = time.perf_counter()
    lines = [""]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            lines.append(line.strip())
    return process.returncode, time.perf_counter() - started, lines[-1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
