"""Direction of imports: rainmer <- detection <- eval, and light roots."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "rainmer": {"detection", "eval", "ultralytics", "pycocotools", "pandas", "matplotlib"},
    "detection": {"eval", "pycocotools", "pandas"},
    "eval": set(),
}
ALLOWED = {
    "rainmer/data/annotations/masks.py": {"pycocotools"},
    "rainmer/figures.py": {"matplotlib"},
    "rainmer/fonts.py": {"matplotlib"},
    "rainmer/align/figures.py": {"matplotlib"},
    "rainmer/meter/figures.py": {"matplotlib"},
    "rainmer/views/figures.py": {"matplotlib"},
    "rainmer/train/figures.py": {"matplotlib"},
}
"""Figures of commands, fonts, masks of COCO: imported inside the functions that need them."""


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


@pytest.mark.parametrize("package", FORBIDDEN)
def test_direction(package):
    wrong = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / package).rglob("*.py")
        for module in imported_modules(path)
        if module.split(".")[0]
        in (FORBIDDEN[package] | {"tests", "benchmarks"})
        - ALLOWED.get(path.relative_to(ROOT).as_posix(), set())
    ]
    assert wrong == []


def test_detection_speaks_to_ultralytics_in_one_place():
    speaking = {
        path.relative_to(ROOT / "detection").parts[0]
        for path in (ROOT / "detection").rglob("*.py")
        if any(module.split(".")[0] == "ultralytics" for module in imported_modules(path))
    }
    assert speaking == {"yolo"}


@pytest.mark.parametrize(
    ("package", "blocked"),
    [
        (
            "rainmer, rainmer.align, rainmer.train",
            [
                "ultralytics",
                "pandas",
                "matplotlib",
                "jinja2",
                "pycocotools",
                "torchvision",
                "triton",
            ],
        ),
        ("rainmer.views", ["ultralytics", "pandas", "matplotlib", "sklearn", "umap"]),
        ("detection", ["ultralytics", "pandas", "matplotlib", "jinja2", "pycocotools"]),
        ("eval", ["ultralytics", "matplotlib"]),
    ],
)
def test_roots_import_without_heavy_packages(package, blocked):
    """In a fresh process with these packages made unimportable."""
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); import {package}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", FORBIDDEN)
def test_public_names_exist(package):
    module = __import__(package)
    names = getattr(module, "__all__", [])
    assert len(names) <= 15
    for name in names:
        assert getattr(module, name) is not None
