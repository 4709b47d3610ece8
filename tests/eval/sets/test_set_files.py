"""The YAML of a set: what people write, and what is refused in one line."""

import shutil

import pytest

from eval.sets import load_set
from rainmer.config import read_yaml
from rainmer.errors import ConfigError, RainmerError
from tests.eval.trees import NAMES, write_tree

CLASSES = "[red thing, green thing, blue thing]"
PLAIN = f"name: tiny\nrainy: rainy\nannotations: labels\nnames: {CLASSES}\n"


@pytest.fixture
def tree(tmp_path):
    write_tree(tmp_path, images=2, clean=False, labels="yolo", conditions=False)
    return tmp_path


def load(tree, text):
    (tree / "set.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_set(tree / "set.yaml")


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.replace("\n", "\r\n"),
        "---\n" + PLAIN + "...\n",
        PLAIN.replace(CLASSES, str(NAMES)),
        PLAIN.replace(CLASSES, str({str(k): v for k, v in NAMES.items()})),
        PLAIN.replace("rainy: rainy", "rainy: &x rainy\naliases: {red thing: *x}"),
        PLAIN.replace("rainy: rainy", "rainy: ./rainy/"),
    ],
    ids=range(8),
)  # fmt: skip
def test_forms_of_one_set(tree, text):
    data = load(tree, text)
    assert (len(data.samples), len(data.annotations)) == (2, 5)
    assert data.categories == NAMES


def test_paths_with_a_home_a_variable_and_spaces(tree, monkeypatch):
    (tree / "my set").mkdir()
    shutil.move(tree / "rainy", tree / "my set" / "rainy images")
    monkeypatch.setenv("HOME", str(tree))
    monkeypatch.setenv("RAINY_SETS", str(tree / "my set"))
    for path in ("my set/rainy images", "~/my set/rainy images", "$RAINY_SETS/rainy images",
                 "${RAINY_SETS}/rainy images"):  # fmt: skip
        data = load(tree, PLAIN.replace("rainy: rainy", f"rainy: {path}"))
        assert len(data.samples) == 2
    with pytest.raises(RainmerError, match=r"no folder .*NOT_SET"):
        load(tree, PLAIN.replace("rainy: rainy", "rainy: $NOT_SET/x"))


def test_paths_are_relative_to_the_file_not_to_the_shell(tree, monkeypatch):
    (tree / "set.yaml").write_text(PLAIN)
    (tree / "elsewhere").mkdir()
    monkeypatch.chdir(tree / "elsewhere")
    assert len(load_set("../set.yaml").samples) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold `key: value` lines, but holds nothing"),
        ("- a\n- b\n", "must hold `key: value` lines, but holds list"),
        ("just text", "must hold `key: value` lines, but holds str"),
        (PLAIN + "rainy: other\n", "line 5: the key 'rainy' is given twice"),
        (PLAIN + "aliases: {a: b, a: c}\n", "line 5: the key 'a' is given twice"),
        (PLAIN + "a: [1\n", "is not valid YAML: line 6: "),
        (PLAIN + "a: !!python/name:os.system\n", "line 5: could not determine a constructor"),
        (PLAIN + 'a: !!int ""\n', "is not valid YAML"),
        (PLAIN + "a: 2020-02-31\n", "is not valid YAML: day is out of range"),
        (PLAIN + "? [a]\n: b\n", "is not valid YAML: line 5: found unhashable key"),
        ("[" * 1500, "is not valid YAML"),
        (PLAIN.encode() + b"a: \xff\n", "is not valid YAML"),
        (PLAIN.replace("rainy: rainy", "rainy: 3"), "rainy: expected str"),
        (PLAIN.replace("rainy: rainy", 'rainy: "a\\0b"'), "can be no path: .*null"),
        (PLAIN.replace("rainy: rainy", 'rainy: "\\ud800"'), "can be no path"),
        (PLAIN.replace("rainy: rainy", f"rainy: {'x' * 300}"), "can be no path: File name"),
        (PLAIN.replace("name: tiny", "name: [tiny]"), "name: expected str, but got list"),
        (PLAIN.replace("name: tiny", "nmae: tiny"), "nmae: unknown key; did you mean 'name'"),
        (PLAIN.replace(CLASSES, "3"), "names: expected a list"),
        (PLAIN.replace(CLASSES, "[1, yes]"), r"names\[0\]: expected str"),
        (PLAIN.replace(CLASSES, "{red: 0}"), "names.red: expected str"),
        (PLAIN.replace(CLASSES, '{0: a, "0.0": b}'),
         "names: the key '0.0' is there twice"),
        (PLAIN.replace(CLASSES, "{a: red}"), "names: the key 'a' is no class"),
    ],
)  # fmt: skip
def test_what_is_refused(tree, text, message):
    with pytest.raises(RainmerError, match=message) as caught:
        load(tree, text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_aliases_of_yaml_make_no_message_of_gigabytes(tree):
    laughs = [f"&a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    text = f"name: [&a0 [ha], {', '.join(laughs)}]\n"
    with pytest.raises(ConfigError, match="name: expected str, but got list") as caught:
        load(tree, text)
    assert len(str(caught.value)) < 600


def test_a_key_may_override_a_merged_one(tmp_path):
    file = tmp_path / "merge.yaml"
    file.write_text("base: &b {x: 1, y: 2}\nmine: {<<: *b, y: 3}\n")
    assert read_yaml(file)["mine"] == {"x": 1, "y": 3}
