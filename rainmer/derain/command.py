"""A run of the command, from its options to its results."""

from __future__ import annotations

from rainmer.cli import stage_options
from rainmer.derain.jobs import due_jobs, find_jobs
from rainmer.derain.options import DerainOptions
from rainmer.derain.run import Run
from rainmer.frames.inputs import raise_failures
from rainmer.stage.results import make_derainer

__all__ = ["run"]


def run(options: DerainOptions) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the arguments, or a result that cannot be written. At the end
            also when some inputs could not be read to their end; all other results are kept.
    """
    jobs = find_jobs(options.input, options.out, options.suffix)[: options.limit]
    derainer = make_derainer(options.derain, gate=options.gate, **stage_options(options))
    due = due_jobs(
        jobs,
        options.out,
        derainer,
        side_by_side=options.side_by_side,
        stretch=options.stretch,
        overwrite=options.overwrite,
    )
    work = Run(derainer, options, side_by_side=options.side_by_side, quiet=options.quiet)
    work.process(due, options.stretch)
    print(work.summary(options.out, unchanged=len(jobs) - len(due)))
    raise_failures(work.failures, len(due))
