"""What the README and the pages in docs/ say must be true: files, options, imports, targets."""

import ast
import contextlib
import functools
import importlib
import io
import os
import re
import runpy
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES if page != "CONTRIBUTING.md"]

# Commands of which another test starts a process: their errors, exit codes, or closed pipes.
STARTED_ELSEWHERE = {"eval.detect", "eval.sets", "rainmer.derain", "rainmer.train", "rainmer.views"}


def blocks(language, *texts):
    pattern = rf"```{language}\n(.*?)```"
    return [block for text in texts for block in re.findall(pattern, text, flags=re.DOTALL)]


@functools.cache
def help_of(module, *subcommand):
    """What `python -m module --help` prints, run in this process, which has torch already."""
    printed = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        warnings.catch_warnings(),
    ):
        patch.setattr(sys, "argv", [module, *subcommand, "--help"])
        warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
        with pytest.raises(SystemExit) as end:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert end.value.code in (None, 0)
    # At its first import, ultralytics prints where it keeps its settings.
    return printed.getvalue()[printed.getvalue().index("usage:") :]


def commands(*texts):
    """The modules and arguments of all commands in the texts, in a fixed order."""
    found = set()
    for block in blocks("bash", *texts):
        for line in block.replace("\\\n", " ").splitlines():
            match = re.match(r"\s*(?:python|torchrun .*) -m ([\w.]+)(.*)", line)
            if match:
                found.add(match.groups())
    return sorted(found)


def modules_in(*texts):
    return {module for module, _ in commands(*texts)}


def test_there_are_commands_to_check():
    assert modules_in(*TEXTS) >= {"eval.detect", "rainmer.derain", "detection", "benchmarks.memory"}


@pytest.mark.parametrize(("module", "arguments"), commands(*TEXTS))
def test_options_exist(module, arguments):
    text = help_of(module)
    subcommand = next(iter(arguments.split()), "")
    if subcommand in re.findall(r"^    (\w+)\b", text, re.MULTILINE):
        text = help_of(module, subcommand)
    for option in re.findall(r"--[\w-]+", arguments.partition("#")[0]):
        assert option in text


# Each takes seconds to import torch. Two show how processes start; the others differ in parsers,
# which the tests above look at within this process.
PROCESSES = [
    module
    if module in ("detection", "rainmer.rain")
    else pytest.param(module, marks=pytest.mark.slow)
    for module in sorted(modules_in(README) - STARTED_ELSEWHERE)
]


@pytest.mark.parametrize("module", PROCESSES)
def test_a_process_of_its_own_shows_the_same_help(module):
    command = [sys.executable, "-m", module, "--help"]
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    # The first import of ultralytics by a user says so on stdout.
    shown = done.stdout[done.stdout.index("usage:") :]
    assert shown.split() == help_of(module).split()


@pytest.mark.parametrize("block", blocks("python", *TEXTS))
def test_imports_exist(block):
    for node in ast.walk(ast.parse(textwrap.dedent(block))):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", README, flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_specs_in_the_docs_are_those_that_resolve():
    from rainmer.stage.specs import SPEC_HELP

    page = (ROOT / "docs" / "derainers.md").read_text(encoding="utf-8")
    for spec in SPEC_HELP.split(", "):
        assert spec in page
