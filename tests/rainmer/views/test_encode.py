"""From files to unit vectors."""

import cv2
import numpy as np
import pytest
import torch

from rainmer.errors import SpecError, WeightsError
from rainmer.frames.images import read_image, write_image
from rainmer.models import PReNet, Rainmer, RainmerConfig
from rainmer.views import embed_images, views_of
from tests.numerics import rounding

TINY = {"dim": 8, "base_dim": 16, "num_blocks": (1, 1, 1, 1)}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Rainmer(RainmerConfig(**TINY)).eval()


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for path in paths:
        height, width = random.integers(20, 300, 2)
        write_image(path, random.integers(0, 256, (height, width, 3), np.uint8))
    return paths


def test_vectors_are_prompts_of_the_resized_image(network, files):
    embedded = embed_images(network, files)
    assert embedded.paths == files
    assert embedded.failures == []
    assert embedded.vectors.shape == (5, 2, 16)
    assert embedded.vectors.norm(dim=-1).allclose(torch.ones(5, 2), atol=rounding(depth=1))
    small = cv2.resize(read_image(files[3]), (128, 128), interpolation=cv2.INTER_LINEAR)
    query = torch.from_numpy(small).permute(2, 0, 1)[None] / 255.0
    with torch.inference_mode():
        assert embedded.vectors[3].allclose(network.prompts(query)[0], atol=rounding(depth=30))


def test_batches_do_not_matter_and_progress_is_told(network, files):
    done = []
    one = embed_images(network, files, batch=2, on_progress=done.append)
    assert done == [2, 2, 1]
    assert one.vectors.allclose(
        embed_images(network, files, batch=5).vectors, atol=rounding(depth=30)
    )


def test_broken_images_are_left_out_and_told(network, files, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(files[0].read_bytes()[:100])
    embedded = embed_images(network, [files[0], broken, files[1]], batch=2)
    assert embedded.paths == files[:2]
    assert len(embedded.vectors) == 2
    assert len(embedded.failures) == 1
    assert "broken.png is truncated" in embedded.failures[0]


def test_nothing_gives_nothing(network):
    assert embed_images(network, []).vectors.shape == (0, 2, 16)


def test_views():
    assert views_of(Rainmer(RainmerConfig(**TINY))) == ("chromatic", "degradation")
    single = RainmerConfig.official("wochr", **TINY)
    assert views_of(Rainmer(single)) == ("degradation",)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (PReNet(iterations=1), "prenet has no views"),
        (Rainmer(RainmerConfig.official("baseline", **TINY)), "without views"),
    ],
)
def test_networks_without_views_are_refused(network, message):
    with pytest.raises(SpecError, match=message):
        views_of(network)


def test_damaged_weights_are_refused(files):
    network = Rainmer(RainmerConfig(**TINY)).eval()
    with torch.no_grad():
        network.encoder.embedding.bias.fill_(torch.nan)
    with pytest.raises(WeightsError, match="not finite"):
        embed_images(network, files)
