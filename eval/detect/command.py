"""A run of the command: one detector or several, and what is printed."""

from __future__ import annotations

import logging
import time

from eval.cli import result_text
from eval.detect.matrix_run import measure_matrix
from eval.detect.options import DetectOptions
from eval.detect.run import end_with_defects, measure_bench, result_lines, set_up

__all__ = ["run"]


def run(options: DetectOptions, command: str) -> None:
    """Run the command; `command` is how it was typed.

    Raises:
        RainmerError: A mistake in the options or the data. At the end also when images could not
            be read; the results of all others are kept.
    """
    started = time.perf_counter()
    if options.quiet:
        logging.getLogger().setLevel(logging.WARNING)
    benches = set_up(options)
    if len(benches) > 1:
        matrix = measure_matrix(benches, command, started)
        folder, lines, data = matrix.folder, matrix.lines, matrix.data
    else:
        (bench,) = benches.values()
        measured = measure_bench(bench, command, started)
        folder, lines = bench.folder, list(result_lines(measured, bench.total))
        data = measured.comparison.data
    print(result_text(folder, lines, as_json=options.json))
    end_with_defects(data, folder)
