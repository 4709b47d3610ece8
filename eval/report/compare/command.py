"""What the command prints."""

from __future__ import annotations

import json
import logging

from eval.report.compare.finding import find_runs
from eval.report.compare.options import RunsOptions
from eval.report.compare.training import check_keys
from eval.report.compare.words import to_json, to_lines
from rainmer.errors import DatasetError

__all__ = ["run"]

_log = logging.getLogger(__name__)


def run(options: RunsOptions) -> None:
    """Run the command; what is left out goes to the log.

    Raises:
        ConfigError: No configuration has one of the keys.
        DatasetError: There is no run that can be read.
    """
    found = find_runs(options.folders)
    for line in found.left_out:
        _log.warning("left out: %s", line)
    if not found.training and not found.evaluation:
        where = ", ".join(map(str, options.folders))
        raise DatasetError(f"no run to compare in {where}: name the folders that runs lie in")
    check_keys(found.training, options.keys)
    if options.json:
        print(json.dumps(to_json(found, options.keys), indent=2, default=str))
    else:
        print("\n".join(to_lines(found, options.keys)))
