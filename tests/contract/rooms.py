"""The rooms of the house: which folder imports which, and how long things are.

python -m tests.contract.rooms [ROOT] prints the numbers of the packages below ROOT.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("rainmer", "detection", "eval")
REPOSITORY = Path(__file__).resolve().parents[2]

Graph = Mapping[str, frozenset[str]]
"""Names to the names that they import."""


@dataclass(frozen=True)
class Function:
    """A function with its length in lines, from `def` to its last line."""

    name: str
    place: str
    lines: int


@dataclass(frozen=True)
class Module:
    """A file of Python code."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        """Whether this is the `__init__.py` of a folder."""
        return self.path.name == "__init__.py"

    @property
    def lines(self) -> int:
        """Number of lines."""
        return self.text.count("\n")


class House:
    """The modules of the packages below a folder, and what they import from each other."""

    def __init__(self, root: Path = REPOSITORY, packages: Iterable[str] = PACKAGES) -> None:
        self.root = root
        self.modules = {
            module.name: module
            for package in packages
            for path in sorted((root / package).rglob("*.py"))
            for module in [read_module(root, path)]
        }

    @functools.cached_property
    def imports(self) -> Graph:
        """The modules that each module imports, at any place in its code.

        A name that a package passes on counts as an import of the module that defines it.
        """
        return {
            name: frozenset(self._imports_of(module)) - {name}
            for name, module in self.modules.items()
        }

    @property
    def circles(self) -> list[list[str]]:
        """Groups of modules of which each imports, by way of others, every other."""
        return circles(self.imports)

    def folders(self, package: str) -> list[Path]:
        """The folders directly below a package that hold code."""
        found = {
            self.root.joinpath(*name.split(".")[:2])
            for name, module in self.modules.items()
            if name.startswith(f"{package}.") and module.path.parent != self.root / package
        }
        return sorted(found)

    def loose_files(self, package: str) -> list[str]:
        """Names of the files directly below a package."""
        return sorted(path.name for path in (self.root / package).glob("*.py"))

    def rooms(self, package: str) -> Graph:
        """The folders and loose files of a package and the arrows between them."""
        inside = [name for name in self.modules if name.startswith(f"{package}.")]
        return {
            room: frozenset(
                _room(target)
                for name in inside
                if _room(name) == room
                for target in self.imports[name]
                if target.startswith(f"{package}.")
            )
            - {room}
            for room in sorted({_room(name) for name in inside})
        }

    def functions(self) -> list[Function]:
        """All functions and methods, the longest first."""
        found = [
            Function(node.name, f"{self._relative(module)}:{node.lineno}", _length(node))
            for module in self.modules.values()
            for node in ast.walk(module.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        return sorted(found, key=lambda function: -function.lines)

    def files(self) -> list[tuple[str, int]]:
        """All files with their numbers of lines, the longest first."""
        files = [(self._relative(module), module.lines) for module in self.modules.values()]
        return sorted(files, key=lambda file: -file[1])

    def uses(self, name: str) -> list[str]:
        """The places where a name such as `Any` is used, its imports not counted."""
        return [
            f"{self._relative(module)}:{node.lineno}"
            for module in self.modules.values()
            for node in ast.walk(module.tree)
            if (isinstance(node, ast.Name) and node.id == name)
            or (isinstance(node, ast.Attribute) and node.attr == name)
        ]

    def _relative(self, module: Module) -> str:
        return module.path.relative_to(self.root).as_posix()

    def _imports_of(self, module: Module) -> Iterator[str]:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name in self.modules)
            elif isinstance(node, ast.ImportFrom):
                source = absolute(module, node)
                for alias in node.names:
                    target = self._defining(source, alias.name)
                    if target is not None:
                        yield target

    def _defining(self, source: str, name: str) -> str | None:
        """The module in which `name`, imported from `source`, is defined; None for foreign ones."""
        if f"{source}.{name}" in self.modules:
            return f"{source}.{name}"
        module = self.modules.get(source)
        if module is None or not module.is_package:
            return source if module else None
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self._defining(absolute(module, node), alias.name)
        return source


def read_module(root: Path, path: Path) -> Module:
    """Parse a file below `root`."""
    text = path.read_text(encoding="utf-8")
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, text, ast.parse(text))


def absolute(module: Module, node: ast.ImportFrom) -> str:
    """The full name of the module that an import statement of `module` names."""
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    above = parts[: len(parts) - node.level + module.is_package]
    return ".".join([*above, *([node.module] if node.module else [])])


def circles(graph: Graph) -> list[list[str]]:
    """The strongly connected groups of more than one node."""
    reached = {node: _reachable(graph, node) for node in graph}
    groups = {
        frozenset(other for other in reached[node] if node in reached[other])
        for node in graph
        if node in reached[node]
    }
    return sorted(sorted(group) for group in groups)


def floors(graph: Graph) -> int:
    """Number of nodes on the longest way down; nodes of a circle share a floor."""
    reached = {node: _reachable(graph, node) | {node} for node in graph}

    @functools.cache
    def height(node: str) -> int:
        below = {other for other in reached[node] if node not in reached[other]}
        return 1 + max(map(height, below), default=0)

    return max(map(height, graph), default=0)


def arrows(graph: Graph) -> int:
    """Number of pairs of which one imports the other."""
    return sum(map(len, graph.values()))


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(graph[node])
    return found


def _room(name: str) -> str:
    return ".".join(name.split(".")[:2])


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def describe(house: House) -> Iterator[str]:
    """The numbers, line by line."""
    functions, files = house.functions(), house.files()
    mains = [function for function in functions if function.name == "main"]
    yield f"{sum(lines for _, lines in files)} lines in {len(files)} files"
    for package in PACKAGES:
        rooms = house.rooms(package)
        yield (
            f"{package}: {len(rooms)} rooms ({len(house.folders(package))} folders, "
            f"{len(house.loose_files(package))} loose files), {arrows(rooms)} arrows, "
            f"{floors(rooms)} floors, {len(circles(rooms))} circles of rooms"
        )
    yield f"circles of modules: {len(house.circles)}"
    yield from (f"  {', '.join(circle)}" for circle in house.circles)
    for kind, listed in (("functions", functions), ("main functions", mains)):
        yield f"longest {kind}:"
        yield from (f"  {f.lines:4} {f.name} ({f.place})" for f in listed[:3])
    yield "longest files:"
    yield from (f"  {lines:4} {path}" for path, lines in files[:3])
    for name in ("Any", "cast", "Namespace"):
        by_package = (
            f"{package} {sum(use.startswith(f'{package}/') for use in house.uses(name))}"
            for package in PACKAGES
        )
        yield f"uses of {name}: {len(house.uses(name))} ({', '.join(by_package)})"


if __name__ == "__main__":
    print("\n".join(describe(House(Path(sys.argv[1]) if sys.argv[1:] else REPOSITORY))))
