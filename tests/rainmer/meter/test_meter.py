"""Readings: independent of batch, kind and size of frames, within their ranges, and honest."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rainmer import models
from rainmer.errors import ImageError, WeightsError
from rainmer.frames.arrays import upload
from rainmer.meter import RainMeter
from rainmer.meter.features import encoder_fingerprint, encoder_of, meter_views, view_statistics
from rainmer.meter.head import PROBABILITIES, QUANTITIES, MeterHead, MeterWeights
from rainmer.models import Rainmer, RainmerConfig
from tests.rainmer.meter.fakes import ERRORS, STATISTICS, random_weights

ODD = {
    "black": np.zeros((60, 80, 3), np.uint8),
    "white": np.full((60, 80, 3), 255, np.uint8),
    "one pixel": np.full((1, 1, 3), 9, np.uint8),
    "thin": np.full((2, 700, 3), 99, np.uint8),
}


@pytest.fixture(scope="module")
def meter():
    return RainMeter(random_weights(), device="cpu")


@pytest.fixture(scope="module")
def frames():
    random = np.random.default_rng(0)
    sizes_hw = ((48, 64), (90, 500), (48, 64))
    return [random.integers(0, 256, (*size_hw, 3), np.uint8) for size_hw in sizes_hw]


def test_a_batch_reads_as_each_frame_alone(meter, frames):
    together = meter(frames)
    for frame, reading in zip(frames, together, strict=True):
        alone = meter([frame])[0]
        for name in (*QUANTITIES, "benefit"):
            assert getattr(alone, name) == pytest.approx(getattr(reading, name), rel=1e-4, abs=1e-5)


def test_tensors_read_as_arrays(meter, frames):
    levels = upload([frames[0]])
    assert meter(levels) == meter([levels[0]]) == meter([frames[0]]) == meter(levels / 255.0)
    assert meter([]) == []


@pytest.mark.parametrize("name", ODD)
def test_odd_frames_read_within_the_ranges(meter, name):
    reading = meter([ODD[name]])[0]
    for quantity in (*QUANTITIES[1:], "benefit"):
        assert 0.0 <= getattr(reading, quantity) <= 1.0
    assert 0.0 <= reading.rate_mm_h <= 300.0


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_what_is_no_frame_is_refused(meter, shape):
    with pytest.raises(ImageError, match="expected an RGB frame"):
        meter([np.zeros(shape, np.uint8)])


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(
        st.floats(0, 300), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1),
        st.floats(0.01, 0.99), st.floats(0.01, 0.99),
    )
)  # fmt: skip
def test_outputs_and_values_are_inverse(values):
    truth = torch.tensor([values])
    outputs = MeterHead.encode(truth)
    outputs[:, 4:] = outputs[:, 4:].logit()
    assert torch.allclose(MeterHead.decode(outputs), truth, rtol=1e-3, atol=2e-4)


def test_intervals_hold_the_reading_and_depend_on_it(meter, frames):
    for reading in meter(frames):
        low, high = reading.intervals["rate_mm_h"]
        index = int(reading.rate_mm_h >= 5.0)
        assert high - reading.rate_mm_h == pytest.approx(ERRORS["rate_mm_h"]["high"][index])
        assert 0.0 <= low <= reading.rate_mm_h
    plain = json.loads(json.dumps(reading.as_mapping()))
    assert plain.keys() == {*QUANTITIES, "benefit", "intervals"}


def test_a_large_frame_reads_as_the_same_at_the_meters_size(meter):
    small = np.random.default_rng(1).integers(0, 256, (225, 400, 3), np.uint8)
    large = small.repeat(3, 0).repeat(3, 1)
    for of_large, of_small in zip(
        meter_views(upload([large])), meter_views(upload([small])), strict=True
    ):
        assert torch.equal(of_large, of_small)


def test_thin_upright_lines_stand_out_in_the_window_only_where_they_are_upright():
    plain = torch.full((1, 3, 225, 400), 0.4)
    rainy = plain.clone()
    rainy[..., 40:180, ::25] = 0.8
    encoder = encoder_of(models.load("rainmer-s"))
    found = {}
    for name, picture in {"plain": plain, "upright": rainy, "level": rainy.clone()}.items():
        _, window = meter_views(picture)
        window = window.transpose(2, 3).contiguous() if name == "level" else window
        query = torch.full((1, 3, 128, 128), 0.4)
        found[name] = view_statistics(encoder, query, window)[0, -176:-88]  # before the logarithms
    half = len(found["plain"]) // 2
    assert found["plain"].abs().max() < 1e-6
    assert found["upright"][:half].mean() > 3 * found["upright"][half:].mean()
    assert found["level"][half:].mean() > 3 * found["level"][:half].mean()


@pytest.mark.parametrize("size_hw", [(1, 1), (7, 300), (900, 16)])
def test_views_of_odd_frames_have_their_sizes(size_hw):
    query, window = meter_views(torch.rand(2, 3, *size_hw))
    assert query.shape == (2, 3, 128, 128)
    assert window.shape == (2, 1, 128, 256)


def test_the_head_is_small_and_the_encoder_is_the_derainers():
    assert sum(p.numel() for p in MeterHead(STATISTICS).parameters()) <= 50_000
    network = models.load("rainmer-s")
    statistics = view_statistics(
        encoder_of(network), torch.rand(2, 3, 128, 128), torch.rand(2, 1, 128, 256)
    )
    assert statistics.shape == (2, STATISTICS)
    assert statistics.isfinite().all()


def test_another_encoder_is_refused():
    tiny = Rainmer(RainmerConfig(dim=8, base_dim=16, num_blocks=(1, 1, 1, 1)))
    with pytest.raises(WeightsError, match="another encoder"):
        RainMeter(random_weights(), network=tiny)
    blind = Rainmer(RainmerConfig(dim=8, base_dim=16, num_blocks=(1, 1, 1, 1), views=()))
    with pytest.raises(WeightsError, match="no views"):
        encoder_of(blind)
    with pytest.raises(WeightsError, match="no views"):
        encoder_fingerprint(models.build("prenet", iterations=1))


def test_weights_come_back_as_they_were_saved(tmp_path, frames):
    weights = random_weights()
    weights.save(tmp_path / "meter.safetensors")
    read = MeterWeights.load(tmp_path / "meter.safetensors")
    assert read.fingerprint == weights.fingerprint
    assert (read.errors, read.benefit, read.facts) == (ERRORS, weights.benefit, {"frames": 0})
    assert RainMeter(read, device="cpu")(frames) == RainMeter(weights, device="cpu")(frames)
    other = dataclasses.replace(weights, benefit=None)
    assert other.fingerprint != weights.fingerprint
    assert RainMeter(other, device="cpu")(frames)[0].benefit is None


def test_files_that_hold_no_meter_are_refused(tmp_path):
    (tmp_path / "text.safetensors").write_text("no tensors")
    for path in (tmp_path / "text.safetensors", tmp_path / "missing.safetensors"):
        with pytest.raises(WeightsError, match="cannot read the rain meter"):
            MeterWeights.load(path)
    with pytest.raises(WeightsError, match="no rain meter"):
        MeterWeights.load(models.weights.shipped_weights("rainmer-s"))
    broken = dataclasses.replace(random_weights(), benefit={"inputs": ["wind"]})
    with pytest.raises(WeightsError, match="benefit is damaged"):
        RainMeter(broken)


def test_probabilities_are_quantities():
    assert set(PROBABILITIES) < set(QUANTITIES)
