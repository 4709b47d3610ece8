"""One module lists folders: others would treat links, hidden files and errors in their own way."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("rainmer", "detection", "eval", "benchmarks")
ALLOWED = {Path("rainmer/folders.py"), Path("rainmer/files.py")}
"""The walker, and what removes the temporary files of killed processes."""
LISTING = {"fwalk", "glob", "iglob", "iterdir", "listdir", "rglob", "scandir", "walk"}
"""Functions of os, glob and pathlib that list folders."""


def listings(source):
    """Yield the line of each call of such a function, and of each import of it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in LISTING:
            # `ast.walk` and methods of our own objects are none.
            if node.attr != "walk" or ast.unparse(node.value) == "os":
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module in ("os", "glob"):
            if LISTING & {alias.name for alias in node.names}:
                yield node.lineno
        elif isinstance(node, ast.Import) and any(alias.name == "glob" for alias in node.names):
            yield node.lineno


def test_folders_are_listed_in_one_place():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: use rainmer.folders"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.relative_to(ROOT) not in ALLOWED
        for line in listings(path.read_text(encoding="utf-8"))
    ]
    assert wrong == []


def test_the_check_sees_every_way():
    lines = (
        "import glob",
        "from os import scandir, path",
        "Path('a').rglob('*')",
        "Path('a').iterdir()",
        "os.walk('a')",
        "os.listdir()",
        "ast.walk(tree)",
        "os.path.join('a')",
    )
    assert sorted(listings("\n".join(lines))) == [1, 2, 3, 4, 5, 6]
