"""The plan of the house: who may import whom, and how long things may be."""

import pytest

from tests.contract.rooms import PACKAGES, House, absolute, circles, floors, read_module

MAX_FUNCTION, MAX_MAIN, MAX_FILE = 60, 30, 500


@pytest.fixture(scope="module")
def house():
    return House()


def test_imports_point_downwards(house):
    """The direction is rainmer <- detection <- eval."""
    wrong = [
        f"{name} imports {target}"
        for name, targets in house.imports.items()
        for target in targets
        if PACKAGES.index(target.split(".")[0]) > PACKAGES.index(name.split(".")[0])
    ]
    assert wrong == []


def test_there_are_no_circles(house):
    """Neither between modules, also under TYPE_CHECKING, nor between the rooms of a package."""
    assert house.circles == []
    for package in PACKAGES:
        assert circles(house.rooms(package)) == []


def test_eval_has_few_rooms_and_nothing_loose(house):
    assert len(house.folders("eval")) <= 10
    assert house.loose_files("eval") == ["__init__.py", "cli.py"]


def test_functions_are_short(house):
    long_functions = [
        f"{f.name} has {f.lines} lines ({f.place})"
        for f in house.functions()
        if f.lines > (MAX_MAIN if f.name == "main" else MAX_FUNCTION)
    ]
    assert long_functions == []


def test_files_are_short(house):
    assert [file for file in house.files() if file[1] > MAX_FILE] == []


def test_commands_are_imported_by_nobody(house):
    """Their functions are for the terminal; what others need stands in a module of its own."""
    importing = {
        name: target
        for name, targets in house.imports.items()
        for target in targets
        if target.endswith(".__main__")
    }
    assert importing == {}


@pytest.fixture
def small_house(tmp_path):
    """Two packages in which names are passed on, at any place and in every way."""
    files = {
        "low/__init__.py": "from low.inner import Name as Other, thing",
        "low/inner/__init__.py": "from .deep import Name\nfrom low.inner import thing\nhere = 1",
        "low/inner/deep.py": "from ... import nothing\nName = 1",
        "low/inner/thing.py": "def f():\n    import high.user",
        "high/__init__.py": "",
        "high/user.py": "from low import Other, thing\nimport json",
        "high/lazy.py": "if TYPE_CHECKING:\n    from low.inner import here\n\ndef f():\n    pass\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return House(tmp_path, ("low", "high"))


def test_names_are_followed_to_the_module_that_defines_them(small_house):
    assert small_house.imports["high.user"] == {"low.inner.deep", "low.inner.thing"}
    assert small_house.imports["high.lazy"] == {"low.inner"}
    assert small_house.imports["low.inner"] == {"low.inner.deep", "low.inner.thing"}
    assert small_house.imports["low.inner.deep"] == set()


def test_circles_are_found_wherever_they_are(small_house):
    assert small_house.circles == [["high.user", "low.inner.thing"]]
    assert small_house.rooms("low") == {"low.inner": frozenset()}


def test_floors_are_counted():
    assert floors({"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": set()}) == 3
    assert floors({"a": {"b"}, "b": {"a"}}) == 1


def test_relative_imports_are_made_absolute(tmp_path):
    for name, text, expected in (
        ("a/b/c.py", "from . import x", "a.b"),
        ("a/b/c.py", "from ..d import x", "a.d"),
        ("a/b/__init__.py", "from .d import x", "a.b.d"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        module = read_module(tmp_path, path)
        assert absolute(module, module.tree.body[0]) == expected
