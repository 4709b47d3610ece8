"""Set files of any content: a set, or one line that says what is wrong."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from eval.sets import load_set
from eval.sets.adapters import adapt
from rainmer.errors import RainmerError
from tests.eval.trees import write_tree
from tests.fuzz.test_labels import check_message

# Nothing leads out of the tree: a set may be any folder, and the whole disk takes long to read.
WORDS = st.one_of(
    st.sampled_from(["rainy", "labels", "instances.json", "clean", "*", "night_*", "~", "$HOME",
                     ".", "", "a\0b", "\ud800", "day", "person", "red thing"]),
    st.text(st.characters(exclude_characters="/."), max_size=6),
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.dates()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(WORDS | st.integers(-1, 3), inner, max_size=4)
    ),
    max_leaves=6,
)
KEYS = ("name", "rainy", "clean", "annotations", "scenes", "names", "aliases", "conditions")
PLAIN = {
    "name": "tiny",
    "rainy": "rainy",
    "annotations": "labels",
    "names": ["red thing", "green thing", "blue thing"],
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    write_tree(folder, images=2)
    write_tree(folder, images=2, labels="yolo")
    (folder / "images").symlink_to(folder / "rainy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "rainy"))
        yield folder


def check(file):
    """Load a set file, or see that the error is one line."""
    try:
        data = load_set(file)
    except RainmerError as error:
        check_message(error)
    else:
        assert data.samples
        assert all(sample.rainy.is_file() for sample in data.samples)


@given(changes=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3))
def test_values_of_any_type(tree, changes):
    # `rain` is left out: it renders.
    (tree / "set.yaml").write_text(yaml.safe_dump(PLAIN | changes), errors="surrogatepass")
    check(tree / "set.yaml")


@given(lines=st.lists(st.one_of(
    st.sampled_from([f"{key}: {value}" for key, value in PLAIN.items()]),
    st.sampled_from(["names: {0: a, 0: b}", "a: &a [*a]", "<<: *a", "? [1]", "- x", "!!int x",
                     "a: !!python/object/apply:os.system [ls]", "b: !!float ''", "c: 2020-02-31",
                     "d: !!bool x", "e: !!timestamp x", "f: !!binary x", "\t", "%YAML 9.9", "---",
                     "g: 1:99:99", "h: 0x_", "i: !!null x", "j: !!set {a, b}", "k: !!omap [a]"]),
    st.text(max_size=12),
), max_size=6))  # fmt: skip
def test_lines_of_yaml(tree, lines):
    (tree / "set.yaml").write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    check(tree / "set.yaml")


@given(content=st.binary(max_size=200))
def test_any_bytes(tree, content):
    (tree / "set.yaml").write_bytes(content)
    check(tree / "set.yaml")


@given(changes=st.dictionaries(st.sampled_from(["path", "val", "names", "kpt_shape"]), VALUES))
def test_files_of_ultralytics(tree, changes):
    content = {"path": ".", "val": "images", "names": PLAIN["names"]} | changes
    (tree / "data.yaml").write_text(yaml.safe_dump(content), errors="surrogatepass")
    try:
        data = adapt("yolo", tree)
    except RainmerError as error:
        check_message(error)
    else:
        assert data.scenes
