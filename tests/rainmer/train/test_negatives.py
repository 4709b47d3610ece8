import random

import pytest
import torch

from rainmer.train.negatives import (
    Archives,
    chromatic_negatives,
    degradation_negatives,
    draw_flips,
    flip,
    make_contrast,
    mean_colour,
    rain_signature,
    select_most_different,
)
from tests.numerics import assert_same_sum
from tests.rainmer.golden import read_golden, shared_golden

VIEWS = ("chromatic", "degradation", "detail")


@pytest.fixture(scope="module")
def golden():
    tensors, _ = read_golden(shared_golden("negatives.safetensors"))
    return {k: v / 255 if v.dtype == torch.uint8 else v for k, v in tensors.items()}


def test_descriptions_and_selections_equal_the_published_ones(golden):
    query, clean = golden["in/resize_inp_u8"], golden["in/resize_tar_u8"]
    colour, signature = mean_colour(query), rain_signature((query - clean).clamp(0, 1))
    assert_same_sum(colour, golden["out/current_chromatic"], depth=10)
    assert_same_sum(signature, golden["out/current_svd"], depth=10)
    chosen = select_most_different(colour, golden["in/rain_chromatics"], 3)
    assert torch.equal(chosen, golden["out/idx_chromatic"])
    chosen = select_most_different(signature, golden["in/rain_svds"], 3)
    assert torch.equal(chosen, golden["out/idx_degradation"])


def test_positives_and_negatives_equal_the_published_ones(golden):
    query, clean = golden["in/resize_inp_u8"], golden["in/resize_tar_u8"]
    archives = Archives(VIEWS, 16, 40)
    archives.load_state_dict(
        {"position": 4, "colours": golden["in/rain_chromatics"],
         "rain": golden["in/rain_archive_u8"], "signatures": golden["in/rain_svds"]}
    )  # fmt: skip
    signature = rain_signature((query - clean).clamp(0, 1))
    contrast = make_contrast(query, clean, golden["in/blur_tar_u8"], archives, VIEWS, signature)
    assert list(contrast.positives) == ["detail", "chromatic", "degradation"]
    for view in VIEWS:
        for own, kind in zip(contrast, ("k", "neg"), strict=True):
            expected = golden[f"out/{kind}/{view}"]
            assert_same_sum(own[view], expected, depth=10)


def batch(seed, count=2, side=16):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(count, 3, side, side, generator=generator)
    return (clean + 0.3 * torch.rand(count, 1, side, side, generator=generator)).clamp(0, 1), clean


def test_an_archive_is_a_ring_of_batches_and_its_rest_stays_zero():
    archives = Archives(VIEWS, 5, 16)
    for seed in range(3):
        archives.add(*batch(seed))
    query, clean = batch(2)
    assert_same_sum(archives.colours[:2], mean_colour(query))
    assert_same_sum(archives.rain[:2], (query - clean).clamp(0, 1))
    assert_same_sum(archives.colours[2:4], mean_colour(batch(1)[0]))
    assert not archives.colours[4].any()


def test_archives_go_on_from_their_state():
    first = Archives(VIEWS, 4, 16)
    first.add(*batch(0))
    second = Archives(VIEWS, 4, 16)
    second.load_state_dict(first.state_dict())
    for archives in (first, second):
        archives.add(*batch(1))
    assert torch.equal(first.rain, second.rain)
    assert torch.equal(first.signatures, second.signatures)


def test_archives_of_views_that_are_not_used_do_not_exist():
    archives = Archives(("chromatic",), 4, 16)
    archives.add(*batch(0))
    assert archives.rain is None
    assert archives.signatures is None


def test_negatives_have_the_colour_or_the_rain_of_others():
    query, clean = batch(0)
    colours = torch.rand(2, 3, 3) * 0.3
    negatives = chromatic_negatives(query * 0.5, colours)
    torch.testing.assert_close(mean_colour(negatives[:, 0]), colours[:, 0], rtol=1e-3, atol=1e-3)
    rain = torch.full((2, 3, 3, 16, 16), 0.25)
    negatives = degradation_negatives(clean, rain)
    assert torch.equal(negatives[0, 0], (clean[0] + 0.25).clamp(0, 1))


def test_flips_turn_all_images_alike_and_are_repeatable():
    images = torch.rand(3, 3, 8, 8)
    assert flip(images, None) is images
    seen = set()
    for seed in range(20):
        turns = draw_flips(("chromatic", "detail"), random.Random(seed))
        assert turns.shape == (2, 2)
        assert torch.equal(turns, draw_flips(("chromatic",), random.Random(seed)))
        turned = flip(images, turns[0])
        axes = [
            axis for axis in ((), (-1,), (-2,), (-1, -2)) if torch.equal(turned, images.flip(axis))
        ]
        assert len(axes) == 1
        seen.add(axes[0])
    assert len(seen) == 4
