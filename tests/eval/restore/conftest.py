import sys

import pytest

from eval.restore.__main__ import main
from rainmer.cli import run_command


@pytest.fixture
def type_in(monkeypatch, capsys):
    """Run the command as its module does; return its exit code, stdout, and lines on stderr."""

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["eval.restore", *map(str, options)])
        capsys.readouterr()
        code = 0
        try:
            run_command(main)
        except SystemExit as end:
            code = end.code
        output = capsys.readouterr()
        return code, output.out, output.err.strip().splitlines()

    return run
