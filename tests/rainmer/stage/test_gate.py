"""The gate: dry frames bit for bit and without the network, hysteresis for streams, refusals."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rainmer import Derainer
from rainmer.errors import RainmerError, SpecError
from rainmer.frames.arrays import stack_in_order, upload
from rainmer.stage.gate import Decision, Gate, GateState
from rainmer.stage.results import make_derainer
from rainmer.stage.specs import resolve, split_gate
from tests.rainmer.meter.fakes import LevelMeter

LEVELS = st.lists(st.integers(0, 255), max_size=12)


class Inverts:
    """Derains by inverting, and counts the frames that it is given."""

    name = "inverts"

    def __init__(self):
        self.seen = 0

    def __call__(self, batch):
        self.seen += len(batch)
        return 1.0 - batch


def gated(function, threshold=0.5):
    derainer = Derainer(function, device="cpu")
    derainer.gate = Gate(threshold, meter=LevelMeter())
    return derainer


def frame(level, size_hw=(4, 6)):
    return np.full((*size_hw, 3), level, np.uint8)


@settings(max_examples=30, deadline=None)
@given(LEVELS)
def test_frames_below_pass_untouched_and_without_the_network(levels):
    function = Inverts()
    derainer = gated(function)
    frames = [frame(level) for level in levels]
    results = derainer(frames)
    wet = [level for level in levels if level / 255 >= 0.5]
    assert function.seen == len(wet) == derainer.gate.derained
    assert derainer.gate.passed == len(levels) - len(wet)
    for given_, result in zip(frames, results, strict=True):
        expected = 255 - given_ if given_[0, 0, 0] / 255 >= 0.5 else given_
        assert np.array_equal(result, expected)
        assert result is not given_


def test_kinds_and_sizes_are_kept():
    derainer = gated(Inverts())
    batch = torch.stack([torch.full((3, 4, 6), 0.1), torch.full((3, 4, 6), 0.9)])
    results = derainer(batch)
    assert torch.equal(results[0], batch[0])
    assert torch.allclose(results[1], torch.full((3, 4, 6), 0.1))
    mixed = derainer([frame(10), frame(250, (3, 5))])
    assert [result.shape for result in mixed] == [(4, 6, 3), (3, 5, 3)]
    # Out of range and not finite, as no network would give them back.
    odd = torch.full((3, 4, 6), -2.0)
    assert torch.equal(derainer(odd), odd)
    assert derainer([]) == []
    with pytest.raises(RainmerError, match="RGB"):
        derainer([np.zeros((4, 4), np.uint8)])


def test_a_stream_stays_derained_until_the_benefit_is_clearly_below():
    gate, state = Gate(0.6, meter=LevelMeter()), GateState()
    levels = [100, 160, 100, 80, 70, 100, 160]
    streamed = [gate.decide([frame(level)], [state])[0].derain for level in levels]
    assert streamed == [False, True, True, True, False, False, True]
    alone = [decision.derain for decision in gate.decide([frame(level) for level in levels])]
    assert alone == [False, True, False, False, False, False, True]


@settings(max_examples=30, deadline=None)
@given(LEVELS, st.integers(1, 5))
def test_decisions_of_a_stream_do_not_depend_on_batches_or_other_streams(levels, size):
    gate = Gate(0.6, meter=LevelMeter())
    one, other = GateState(), GateState()
    whole = [d.derain for d in gate.decide([frame(v) for v in levels], [one] * len(levels))]
    state, parts = GateState(), []
    for start in range(0, len(levels), size):
        part = [frame(level) for level in levels[start : start + size]]
        mixed = [item for pair in ((f, frame(255)) for f in part) for item in pair]
        decisions = gate.decide(mixed, [state, other] * len(part))
        parts += [decision.derain for decision in decisions[::2]]
    assert parts == whole


def test_given_decisions_are_followed():
    derainer = gated(Inverts())
    frames = [frame(10), frame(20)]
    readings = derainer.gate.meter(frames)
    decisions = [Decision(True, readings[0]), Decision(False, readings[1])]
    results = derainer(frames, decisions=decisions)
    assert [int(result[0, 0, 0]) for result in results] == [245, 20]
    with pytest.raises(RainmerError, match="1 decisions for 2 frames"):
        derainer(frames, decisions=decisions[:1])


def test_what_the_gate_read_is_not_uploaded_again():
    """What happens to the arrays after the decision makes no difference: nothing reads them."""
    derainer = gated(Inverts())
    frames = [frame(250), frame(10), frame(240), frame(245, (3, 5))]
    decisions = derainer.gate.decide(frames)
    for array in frames:
        array[:] = 0
    results = derainer(frames, decisions=decisions)
    assert [int(result[0, 0, 0]) for result in results] == [5, 0, 15, 10]
    assert [decision.frame is None for decision in decisions] == [False, True, False, False]
    (on_device,) = derainer.gate.decide([torch.ones(3, 4, 6)])
    assert on_device.frame is None


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
def test_uploaded_frames_are_stacked_as_arrays_are(count, height, width):
    arrays = list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8))
    whole = upload(arrays)
    stacked = stack_in_order([upload([array])[0] for array in arrays])
    assert torch.equal(stacked, whole)
    assert stacked.stride() == whole.stride()


def test_many_frames_are_decided_for_in_parts():
    levels = np.random.default_rng(0).integers(0, 256, 70)
    function = Inverts()
    results = gated(function)([frame(level) for level in levels])
    wet = levels / 255 >= 0.5
    assert [int(result[0, 0, 0]) for result in results] == np.where(
        wet, 255 - levels, levels
    ).tolist()
    assert function.seen == wet.sum()


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan"), "often", None])
def test_thresholds_out_of_range_are_refused(threshold):
    with pytest.raises(RainmerError, match="gate takes auto or a threshold within"):
        Gate(threshold, meter=LevelMeter())


def test_specs_have_gates():
    assert split_gate("gate:blend:0.5:median") == ("auto", "blend:0.5:median")
    assert split_gate("gate:auto:median") == ("auto", "median")
    plain, auto = Derainer("median", device="cpu"), Derainer("gate:median", device="cpu")
    own = Derainer("median", device="cpu", gate=0.25)
    assert (auto.name, own.name) == ("gate-median", "gate-0.25-median")
    assert Derainer("gate:0.25:median", device="cpu").fingerprint == own.fingerprint
    assert len({plain.fingerprint, auto.fingerprint, own.fingerprint}) == 3
    assert plain.gate is None


@pytest.mark.parametrize(
    ("spec", "gate"),
    [
        ("gate:", None),
        ("gate:0.5:", None),
        ("gate:gate:median", None),
        ("gate:2:median", None),
        ("blend:0.5:gate:median", None),
        ("gate:median", "auto"),
        ("gate:0.5", None),
    ],
)
def test_specs_without_sense_are_refused(spec, gate):
    with pytest.raises(RainmerError):
        Derainer(spec, device="cpu", gate=gate)


def test_a_gate_needs_something_to_derain(tmp_path):
    with pytest.raises(SpecError, match="derained already"):
        make_derainer(f"gate:results:{tmp_path}")
    with pytest.raises(SpecError, match="derained already"):
        make_derainer(f"results:{tmp_path}", gate="auto")
    with pytest.raises(SpecError, match="stands before"):
        resolve("gate:median")


def test_a_gate_survives_a_pickle():
    derainer = Derainer("gate:0.4:median", device="cpu")
    twin = pickle.loads(pickle.dumps(derainer))
    assert (twin.name, twin.fingerprint) == (derainer.name, derainer.fingerprint)
    assert twin.gate.threshold == 0.4


def test_a_gate_is_warmed_up_with_its_network():
    function = Inverts()
    derainer = gated(function)
    derainer.warm_up(8, 8, 2)
    assert function.seen == 2
    assert derainer.gate.derained == derainer.gate.passed == 0
