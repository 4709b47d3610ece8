"""Files of weights of any content: one line or the right weights, and nothing else."""

import collections
import datetime
import io
import pathlib
import pickle

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from safetensors.torch import save

from rainmer import models
from rainmer.errors import WeightsError
from rainmer.models.baselines.efficientderain import EfficientDeRain
from rainmer.models.checkpoints import bare_weights, find_weights
from rainmer.models.unpickling import read_inert
from rainmer.models.weights import read_weights_file
from tests.rainmer.models.baselines.test_baselines import official_weights
from tests.rainmer.models.baselines.test_published import tiny_weights

TENSORS = st.sampled_from(
    [
        torch.zeros(2),
        torch.ones(()),
        torch.zeros(0),
        torch.arange(4)[1::2],
        torch.eye(3).half(),
        torch.zeros(1, dtype=torch.complex64),
        torch.zeros(2).bool(),
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.builds(np.float64, st.floats())
    | st.builds(np.zeros, st.integers(0, 3))
    | st.dates()
    | st.sampled_from(
        [
            pathlib.PurePosixPath("a"), torch.float16, torch.Size([1]), torch.nn.Linear(1, 1),
            datetime.timedelta(1), getattr, collections.Counter("a"), slice(1), 1j,
        ]
    )
)  # fmt: skip
NAMES = st.sampled_from(
    ["params", "params_ema", "state_dict", "model", "net", "ema", "average", "weights", "trainer"]
)
PARTS = ["module", "net", "model", "conv", "0", "bias", ""]
KEYS = (
    NAMES
    | st.text(max_size=4)
    | st.lists(
        st.sampled_from(["module", "net", "model", "conv", "0", "bias", ""]), max_size=4
    ).map(".".join)
    | st.integers(-2, 2)
    | st.none()
    | st.tuples(st.integers(0, 1))
)
CONTENTS = st.recursive(
    LEAVES | TENSORS,
    lambda inner: (
        st.dictionaries(KEYS, inner, max_size=4)
        | st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(KEYS, inner, max_size=3).map(collections.OrderedDict)
        | st.dictionaries(KEYS, inner, max_size=3).map(lambda d: collections.defaultdict(list, d))
    ),
    max_leaves=12,
)
FIXTURES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


WEIGHTS = {
    "prenet": official_weights(models.build("prenet")),
    "efficientderain": tiny_weights(EfficientDeRain),
}


def in_one_line(read, path):
    """Call a reader; return None where it refuses the file, which it does in one line."""
    try:
        return read(path)
    except WeightsError as error:
        text = str(error)
        assert "\n" not in text
        assert path.name in text
        assert "Traceback" not in text
        return None


@FIXTURES
@given(content=CONTENTS, new=st.booleans(), protocol=st.sampled_from([2, 3, 4, 5]))
def test_contents(folder, content, new, protocol):
    path = folder / "content.pt"
    torch.save(content, path, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
    read = in_one_line(read_weights_file, path)
    if read is None:
        return
    assert all(isinstance(key, str) for key in read.state_dict)
    assert all(isinstance(value, torch.Tensor) for value in read.state_dict.values())
    # What is taken is in the file, as it is called there, and the rest is named.
    there = content
    for name in read.found.path:
        there = there[name]
    for key, value in read.state_dict.items():
        assert torch.equal(value, there[key])
    assert len(read.state_dict) + len(read.found.left_out) >= len(there)
    assert set(bare_weights(read.state_dict)) == set(bare_weights(find_weights(there).weights))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@FIXTURES
@given(content=CONTENTS, new=st.booleans(), protocol=st.sampled_from([2, 3, 4, 5]))
def test_both_readers_agree(folder, content, new, protocol):
    """What torch reads as data is what the reader reads that makes no objects."""
    path = folder / "both.pt"
    torch.save(content, path, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
    try:
        expected = torch.load(path, weights_only=True)
    except pickle.UnpicklingError:
        return
    assert_alike(read_inert(path), expected)


def assert_alike(read, expected):
    if isinstance(expected, torch.Tensor):
        assert torch.equal(read, expected)
        assert read.dtype == expected.dtype
    elif isinstance(expected, dict) and not isinstance(expected, collections.Counter):
        assert list(read) == list(expected)
        for key, value in expected.items():
            assert_alike(read[key], value)
    elif type(expected) in (list, tuple):
        for own, value in zip(read, expected, strict=True):
            assert_alike(own, value)
    elif isinstance(expected, str | bytes | int | type(None)):
        assert read == expected or type(read).__name__ == "Unread"


def files():
    """Small files of weights in every format, by name."""
    weights = {f"layer{i}.weight": torch.arange(5.0) + i for i in range(3)}
    new, old = io.BytesIO(), io.BytesIO()
    content = {"params": weights, "best": np.float64(1), "epoch": 3}
    torch.save(content, new)
    torch.save(content, old, _use_new_zipfile_serialization=False)
    return {
        "new.pth": new.getvalue(),
        "old.pth": old.getvalue(),
        "plain.safetensors": save(weights),
    }


FILES = files()


@FIXTURES
@given(
    name=st.sampled_from(sorted(FILES)),
    cut=st.none() | st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=4),
    tail=st.binary(max_size=3),
)
def test_damaged_files(folder, name, cut, flips, tail):
    content = bytearray(FILES[name])
    for place, bits in flips:
        content[int(place * len(content))] ^= bits
    if cut is not None:
        del content[int(cut * len(content)) :]
    path = folder / name
    path.write_bytes(content + tail)
    read = in_one_line(read_weights_file, path)
    if read is not None:
        assert all(isinstance(value, torch.Tensor) for value in read.state_dict.values())


@FIXTURES
@given(
    content=st.binary(max_size=60), magic=st.sampled_from([b"", b"\x80\x02", b"\x80\x04", b"PK"])
)
def test_bytes(folder, content, magic):
    for suffix in (".pt", ".safetensors"):
        path = folder / f"bytes{suffix}"
        path.write_bytes(magic + content)
        in_one_line(read_weights_file, path)


@FIXTURES
@given(
    path=st.lists(NAMES | st.text(max_size=3), max_size=3),
    prefix=st.sampled_from(["", "module.", "net.", "model._orig_mod.", "net_g.module."]),
    owner=st.sampled_from(sorted(WEIGHTS)),
    beside=st.dictionaries(st.text(min_size=1, max_size=3), LEAVES, max_size=2),
    drop=st.booleans(),
)
def test_no_network_takes_the_weights_of_another(folder, path, prefix, owner, beside, drop):
    content = {prefix + key: value for key, value in WEIGHTS[owner].items()}
    if drop:
        del content[min(content)]
    for name in reversed(path):
        content = {**beside, name: content}
    file = folder / "weights.pth"
    torch.save(content, file)
    for name in WEIGHTS:
        loaded = in_one_line(lambda path, name=name: models.load(f"{name}:{path}"), file)
        assert (loaded is not None) == (name == owner and not drop)
