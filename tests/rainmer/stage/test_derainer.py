"""The stage: any frames in, the same kind out, whatever the network's wishes and the memory."""

import json

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from rainmer import Derainer
from rainmer.errors import ImageError, RainmerError
from rainmer.frames.arrays import to_batch
from rainmer.models import Rainmer, RainmerConfig, build, save_weights
from rainmer.stage.restorers import NetworkRestorer
from tests.numerics import GOLDEN, rounding

TINY = {"dim": 8, "base_dim": 16, "num_blocks": (1, 1, 1, 1), "heads": (1, 1, 2, 4)}


def frame(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def darken(batch):
    return batch * 0.5


@pytest.fixture(scope="module")
def rainmer_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "rainmer-tiny.safetensors"
    save_weights(path, Rainmer(RainmerConfig(**TINY)))
    return path


def test_kinds_come_back_as_they_went_in():
    derainer = Derainer(darken, device="cpu")
    image = frame(6, 9)
    expected = np.round(image / 255.0 * 0.5 * 255.0).astype(np.uint8)
    one = derainer(image)
    assert one.dtype == np.uint8
    assert np.abs(one.astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(derainer(image[None])[0], one)
    floats = (image / 255.0).astype(np.float32)
    assert derainer(floats).dtype == np.float32
    np.testing.assert_allclose(derainer(floats), floats * 0.5, atol=rounding(depth=1))
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    assert derainer(tensor).dtype == torch.uint8
    np.testing.assert_array_equal(derainer(tensor).permute(1, 2, 0).numpy(), one)
    assert derainer(tensor[None].double() / 255).dtype == torch.float64
    assert derainer([]) == []


def test_mixed_sizes_keep_their_order():
    derainer = Derainer(darken, device="cpu", batch=2)
    images = [
        frame(*size, seed=i) for i, size in enumerate([(4, 6), (8, 3), (4, 6), (5, 5), (4, 6)])
    ]
    for image, result in zip(images, derainer(images), strict=True):
        np.testing.assert_array_equal(result, derainer(image))


def test_input_is_not_modified():
    image = frame(16, 16)
    before = image.copy()
    Derainer("median", device="cpu")(image)
    tensor = torch.rand(1, 3, 8, 8)
    copy = tensor.clone()
    Derainer(lambda batch: batch.mul_(0.5), device="cpu")(tensor.numpy().transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(image, before)
    torch.testing.assert_close(tensor, copy)


def test_output_is_clamped():
    bright = Derainer(lambda batch: batch * 9 - 4, device="cpu")(
        frame(8, 8).astype(np.float32) / 255
    )
    assert bright.min() >= 0.0
    assert bright.max() <= 1.0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 4), np.uint8), "RGB"),
        (np.zeros((4, 4, 4), np.uint8), "RGB"),
        (np.zeros((4, 4, 3), np.int32), "uint8 or floating"),
        ([np.zeros((0, 4, 3), np.uint8)], "RGB"),
        (["photo.jpg"], "arrays or tensors"),
        (torch.zeros(1, 1, 4, 4), "RGB"),
    ],
)
def test_wrong_frames_are_refused(bad, message):
    with pytest.raises(ImageError, match=message):
        Derainer("none", device="cpu")(bad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "precision"),
        ({"batch": 0}, "batch"),
        ({"tile": 16, "overlap": 16}, "overlap"),
        ({"device": "cuda:99"}, "no device"),
        ({"device": "abacus"}, "no device"),
        ({"device": "meta"}, "no device"),
        ({"device": torch.device("cuda:99")}, "no device"),
        ({"batch": "8"}, "batch"),
        ({"blend": "hard"}, "blend"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(RainmerError, match=message):
        Derainer("none", **options)


def test_a_tile_that_the_network_cannot_take_is_refused(rainmer_file):
    with pytest.raises(RainmerError, match="multiple of 8"):
        Derainer(f"rainmer:{rainmer_file}", device="cpu", tile=60)


def test_median_equals_opencv():
    image = frame(21, 17)
    np.testing.assert_array_equal(Derainer("median", device="cpu")(image), cv2.medianBlur(image, 5))


@settings(max_examples=10, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_rainmer_takes_any_size(rainmer_file, height, width):
    restored = Derainer(f"rainmer:{rainmer_file}", device="cpu")(frame(height, width))
    assert restored.shape == (height, width, 3)


def test_batches_equal_single_frames(rainmer_file):
    derainer = Derainer(f"rainmer:{rainmer_file}", device="cpu", precision="fp32", batch=3)
    floats = [frame(24, 32, seed).astype(np.float32) / 255 for seed in range(4)]
    for together, image in zip(derainer(floats), floats, strict=True):
        np.testing.assert_allclose(together, derainer(image), atol=rounding(depth=80))


def test_the_query_is_the_whole_frame_even_in_tiles(rainmer_file, monkeypatch):
    seen = []
    network = Rainmer(RainmerConfig(**TINY))
    encode = network.prompts
    monkeypatch.setattr(network, "prompts", lambda query: seen.append(query) or encode(query))
    derainer = Derainer("none", device="cpu", tile=32, overlap=8)
    derainer._restorer = NetworkRestorer(network, "tiny")
    images = [frame(70, 50, seed) for seed in range(2)]
    derainer(images)
    assert [tuple(query.shape) for query in seen] == [(2, 3, 128, 128)]
    queries = to_batch([cv2.resize(image, (128, 128)) for image in images])
    torch.testing.assert_close(seen[0], queries)


def test_a_network_in_a_blend_keeps_its_query_padding_and_tiles(rainmer_file):
    image = frame(70, 51)
    options = {"device": "cpu", "precision": "fp32", "tile": 32, "overlap": 8}
    derained = Derainer(f"rainmer:{rainmer_file}", **options)(image).astype(float)
    blended = Derainer(f"blend:0.5:rainmer:{rainmer_file}", **options)(image)
    assert np.abs(blended - (derained + image) / 2).max() <= 1.0


def test_tiles_of_a_local_network_equal_the_whole_frame():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 3, 5, padding=2)  # sees 2 pixels around: less than the overlap's ramp
    whole = Derainer("none", device="cpu")
    tiled = Derainer("none", device="cpu", tile=32, overlap=16)
    prenet = build("prenet", iterations=1)
    for derainer in (whole, tiled):
        derainer._restorer = NetworkRestorer(prenet, "prenet")
    image = frame(75, 90).astype(np.float32) / 255
    difference = np.abs(whole(image) - tiled(image))
    assert conv is not None
    assert np.median(difference) < 1e-3
    assert difference.max() > 0  # tiles were really used


class Hungry(nn.Module):
    """Needs more memory than there is above some pixels, as the allocators put it."""

    def __init__(self, most, error):
        super().__init__()
        self.most, self.error, self.calls = most, error, []

    def forward(self, batch):
        self.calls.append(tuple(batch.shape))
        if batch.shape[0] * batch.shape[2] * batch.shape[3] > self.most:
            raise self.error
        return batch * 0.5


def hungry(most, error, **options):
    derainer = Derainer("none", device="cpu", **options)
    derainer._restorer.function = Hungry(most, error)
    derainer._restorer.tileable = True
    return derainer


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_smaller_batches_then_tiles_when_memory_runs_out(error):
    derainer = hungry(100 * 100, error)
    images = [frame(160, 150, seed).astype(np.float32) / 255 for seed in range(3)]
    for image, result in zip(images, derainer(images), strict=True):
        np.testing.assert_allclose(result, image * 0.5, atol=rounding(depth=1))
    attempts = len(derainer._restorer.function.calls)
    derainer(images)
    fitting = derainer._restorer.function.calls[attempts:]
    assert all(b * h * w <= 100 * 100 for b, _, h, w in fitting), "it forgot what fits"


def test_smaller_tiles_get_a_smaller_overlap():
    """With the whole overlap, tiles of 64 pixels would advance by one pixel each."""
    derainer = hungry(72 * 72, MemoryError(), tile=256, overlap=128)
    image = frame(256, 300).astype(np.float32) / 255
    np.testing.assert_allclose(derainer(image), image * 0.5, atol=rounding(depth=1))
    assert len(derainer._restorer.function.calls) < 200


def test_memory_that_does_not_suffice_for_a_tile_is_an_error():
    with pytest.raises(RainmerError, match=r"out of memory .* at 150x160 .*--tile"):
        hungry(10, MemoryError())(frame(160, 150))


def test_other_errors_of_a_network_pass_through():
    derainer = Derainer("none", device="cpu")
    derainer._restorer.function = Hungry(0, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        derainer(frame(8, 8))


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(RainmerError, match="not finite"):
        Derainer(lambda batch: batch / 0, device="cpu")(frame(8, 8))


def test_results_can_be_trained_through():
    """Frames of the stage are ordinary tensors: a detector may be trained on them."""
    derained = Derainer("none", device="cpu")(torch.rand(1, 3, 8, 8))
    weight = torch.ones(1, requires_grad=True)
    (derained * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("bad", [3, None, b"median"])
def test_what_is_neither_spec_nor_callable_is_refused(bad):
    with pytest.raises(RainmerError, match="a spec or a callable"):
        Derainer(bad, device="cpu")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_close(rainmer_file, precision):
    image = frame(32, 40)
    exact = Derainer(f"rainmer:{rainmer_file}", device="cpu", precision="fp32")(image).astype(int)
    low = Derainer(f"rainmer:{rainmer_file}", device="cpu", precision=precision)(image)
    assert np.abs(exact - low).mean() < 3.0


def test_fingerprint_follows_weights_and_settings(rainmer_file, tmp_path):
    torch.manual_seed(1)
    other = tmp_path / "rainmer-other.safetensors"
    save_weights(other, Rainmer(RainmerConfig(**TINY)))
    spec = f"rainmer:{rainmer_file}"
    base = Derainer(spec, device="cpu", precision="fp32").fingerprint
    assert Derainer(spec, device="cpu", precision="fp32", batch=1).fingerprint == base
    different = [
        Derainer(f"rainmer:{other}", device="cpu", precision="fp32"),
        Derainer(spec, device="cpu", precision="bf16"),
        Derainer(spec, device="cpu", precision="fp32", tile=64),
        Derainer(spec, device="cpu", precision="fp32", tile=64, tile_by="short"),
        Derainer("median", device="cpu"),
    ]
    assert len({base, *(derainer.fingerprint for derainer in different)}) == 6


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("tile_by", "height", "side"),
    [("long", 32, 32), ("short", 32, 80), ("short", 33, 32), ("long", 33, 32)],
)
def test_which_side_decides_on_tiles(tile_by, height, side):
    derainer = Derainer("none", device="cpu", tile=32, overlap=0, tile_by=tile_by)
    seen = []
    derainer._restorer.tileable = True
    derainer._restorer.function = lambda batch: seen.append(batch.shape[-1]) or batch
    derainer(frame(height, 80))
    assert set(seen) == {side}


def test_an_unknown_side_is_refused():
    with pytest.raises(RainmerError, match="tile_by must be long or short"):
        Derainer("none", device="cpu", tile_by="both")


@pytest.mark.parametrize("run", ["whole_padded", "tiles", "tiles_overlap", "tiles_overlap_lowtie"])
def test_equals_the_official_evaluation(reference, run):
    golden_folder = reference / "golden"
    path = golden_folder / "eval_rainmer_detgalpha.safetensors"
    golden = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
    settings_of_run = metadata["meta"]["runs"][run]
    state = {}
    for weights in metadata["weights"]:
        state |= load_file(golden_folder / weights)
    config = RainmerConfig.official(
        "detgalpha",
        dim=8,
        base_dim=16,
        num_blocks=(1, 1, 1, 2),
        topk_ties="lowest" if settings_of_run.get("tie") == "low" else "native",
    )
    tile, overlap = settings_of_run["tile"], settings_of_run["overlap"]
    derainer = Derainer("none", device="cpu", tile=tile, overlap=overlap, blend="mean", batch=256)
    derainer._restorer = NetworkRestorer(Rainmer.from_official(state, config), "tiny")
    rainy = golden[f"in/{settings_of_run['img']}/rain_u8"].float() / 255
    torch.testing.assert_close(derainer(rainy), golden[f"out/{run}/img"], atol=GOLDEN, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_gpu_equals_cpu(rainmer_file):
    image = frame(64, 72).astype(np.float32) / 255
    on_cpu, on_gpu = (
        Derainer(f"rainmer:{rainmer_file}", device=device, precision="fp32")(image)
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-3)


def test_warm_up_takes_the_stage_s_batch():
    seen = []
    derainer = Derainer(lambda batch: seen.append(tuple(batch.shape)) or batch, batch=4)
    derainer.warm_up(9, 7)
    derainer.warm_up(5, 6, batch=2)
    assert seen == [(4, 3, 9, 7), (2, 3, 5, 6)]


def test_a_device_that_fails_is_one_line():
    def lost(batch):
        raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be")

    derainer = Derainer("median", device="cpu")
    derainer._restorer.function = lost
    with pytest.raises(RainmerError, match=r"cpu failed while median ran \(CUDA error: [^\n]*$"):
        derainer(np.zeros((4, 4, 3), np.uint8))


def test_reduced_precision_of_a_fused_network_stays_near():
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    exact = Derainer("rainmer-s", device="cpu", precision="fp32")(frame).astype(float)
    derainer = Derainer("rainmer-s", device="cpu", precision="bf16")
    rounded = derainer(frame).astype(float)
    assert next(derainer._restorer.network.parameters()).dtype == torch.bfloat16
    assert 0 < np.abs(exact - rounded).mean() < 1


def test_results_are_rounded_down_if_asked_to():
    def add(batch):
        return batch + 0.7 / 255

    frame = np.full((4, 4, 3), 100, np.uint8)
    nearest, down = (Derainer(add, device="cpu", truncate=truncate) for truncate in (False, True))
    assert nearest(frame).tolist() == np.full((4, 4, 3), 101).tolist()
    assert down(frame).tolist() == frame.tolist()
    assert nearest.fingerprint != down.fingerprint
