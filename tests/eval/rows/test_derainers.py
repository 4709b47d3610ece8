"""Names of derainers, and where their specs lead on each set."""

import numpy as np
import pytest

from eval.rows.derainers import Derainers
from rainmer.errors import SpecError
from rainmer.frames.images import write_image

CPU = {"device": "cpu"}


def picture(level):
    return np.full((6, 8, 3), level, np.uint8)


def test_labels_name_any_spec_and_a_text_given_twice_counts_once():
    derainers = Derainers(["median", "half way=blend:0.5:median", "median", "median"], CPU)
    assert derainers.names == ["median", "half way"]
    assert [row.name for row in derainers.for_set("any")] == derainers.names
    assert derainers.fingerprints.keys() == {"median", "half way"}


def test_a_path_with_an_equals_sign_is_no_label(tmp_path):
    write_image(tmp_path / "a=b" / "1.png", picture(1))
    assert Derainers([f"results:{tmp_path}/a=b"], CPU).names == ["results-a=b"]
    with pytest.raises(SpecError, match="unknown derainer 'a/b=median'"):
        Derainers(["a/b=median"], CPU)


def test_equal_names_are_told_apart_by_their_folders(tmp_path):
    for folder in ("one/a/net", "two/a/net", "two/b/net"):
        write_image(tmp_path / folder / "1.png", picture(1))
    near = Derainers([f"results:{tmp_path}/two/{f}/net" for f in "ab"], CPU)
    assert near.names == ["results-net-a", "results-net-b"]
    far = Derainers([f"results:{tmp_path}/{f}/a/net" for f in ("one", "two")], CPU)
    assert far.names == ["results-net-one-a", "results-net-two-a"]


@pytest.mark.parametrize("texts", [["x=median", "x=none"], ["median=none", "median"]])
def test_equal_labels_are_refused(texts):
    with pytest.raises(SpecError, match=r"two derainers are called '\w+'.*LABEL="):
        Derainers(texts, CPU)


def test_a_placeholder_leads_to_the_folder_of_the_set(tmp_path):
    for level, name in enumerate(("first", "second")):
        write_image(tmp_path / "theirs" / name / "1.png", picture(level))
    derainers = Derainers([f"results:{tmp_path}/theirs/{{set}}", "median"], CPU)
    assert derainers.names == ["results-theirs", "median"]
    for level, name in enumerate(("first", "second")):
        row, median = derainers.for_set(name)
        assert (row.name, row.precomputed, median.precomputed) == ("results-theirs", True, False)
        assert (row([picture(9)], ["1.jpg"])[0].frame == level).all()
    assert "results-theirs on second" in derainers.fingerprints
    with pytest.raises(SpecError, match="third: no such folder"):
        derainers.for_set("third")
