"""`rainmer VERB`: fast to answer, and no file of the working folder gets in its way."""

import contextlib
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from rainmer.commands import VERBS, main

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"cv2", "matplotlib", "pandas", "pycocotools", "scipy", "torch", "torchvision"}
HEAVY |= {"ultralytics", "jinja2", "skimage"}
# What pip installs: its folder, not the working folder, is where Python looks first.
SCRIPT = "from rainmer.commands import main\nmain()\n"
HELP_OF_ALL = f"""
import contextlib, io, sys
from rainmer.commands import VERBS, dispatch
for verb in VERBS:
    for option in ("--help", "--no-such-option"):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            with contextlib.suppress(SystemExit):
                dispatch([verb, option])
        assert f"rainmer {{verb}}" in printed.getvalue(), printed.getvalue()
    print(verb, *sorted({HEAVY} & set(sys.modules)))
"""


@pytest.fixture
def run(tmp_path):
    """Run a script as pip installs it, in a folder whose files have the names of modules."""
    for name in ("eval", "detection", "rainmer", "torch", "numpy", "argparse"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong file')")
    (tmp_path / "bin").mkdir()

    def start(script, *arguments):
        (tmp_path / "bin" / "script").write_text(script)
        return subprocess.run(
            [sys.executable, "bin/script", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            check=False,
        )

    return start


def test_no_help_and_no_wrong_option_loads_what_is_heavy(run):
    done = run(HELP_OF_ALL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == list(VERBS)


def test_files_of_the_working_folder_do_no_harm(run):
    done = run(SCRIPT, "align", "plot")
    assert done.returncode == 2
    assert done.stderr == "error: nothing to plot: name measured sets, or add --published\n"


def test_the_entry_point_is_declared_and_each_verb_has_a_module():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.scripts]\nrainmer = "rainmer.commands:main"\n' in project
    for module, about in VERBS.values():
        assert callable(importlib.import_module(f"{module}.__main__").main)
        assert len(about) < 66


@pytest.mark.parametrize(
    ("words", "code", "printed"),
    [
        ([], None, "\n  derain  "),
        (["--help"], None, "\n  footage  "),
        (["--version"], None, "rainmer "),
        (["evl", "x"], 2, "error: there is no rainmer evl: did you mean 'eval'?"),
    ],
)
def test_what_is_no_verb(words, code, printed, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["rainmer", *words])
    with pytest.raises(SystemExit) if code else contextlib.nullcontext() as end:
        main()
    assert end is None or end.value.code == code
    assert printed in "".join(capsys.readouterr())
