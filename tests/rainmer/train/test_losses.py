import pytest
import torch
from skimage.metrics import structural_similarity

from rainmer.train.losses import PIXEL_LOSSES, charbonnier, contrast_losses, contrastive, ssim
from tests.numerics import assert_same_sum, rounding
from tests.rainmer.golden import COPIES, read_golden


@pytest.fixture(scope="module")
def golden():
    return read_golden(COPIES / "losses.safetensors")[0]


@pytest.mark.parametrize("pair", ["a", "b", "c"])
def test_pixel_losses_equal_the_published_ones(golden, pair):
    x, y = golden[f"in/{pair}/x"], golden[f"in/{pair}/y"]
    assert_same_sum(charbonnier(x, y), golden[f"out/{pair}/charbonnier"], depth=10)
    similarity = ssim(x, y)
    assert_same_sum(similarity, golden[f"out/{pair}/ssim_per_sample"], depth=10)
    mean = golden[f"out/{pair}/ssim_map_mean"]
    assert_same_sum(similarity.mean(), mean, depth=10)
    loss = PIXEL_LOSSES["charbonnier_ssim"](x, y)
    assert_same_sum(loss.parts["ssim_term"], golden[f"out/{pair}/ssim_term"], depth=10)
    expected = PIXEL_LOSSES["l1"](x, y).total
    assert_same_sum(expected, golden[f"out/{pair}/l1"], depth=10)


def test_gradient_of_the_pixel_loss_equals_the_published_one(golden):
    x = golden["in/a/x"].clone().requires_grad_()
    PIXEL_LOSSES["charbonnier_ssim"](x, golden["in/a/y"]).total.backward()
    # Variances are differences of squares, in which digits are lost.
    assert_same_sum(x.grad, golden["out/a/grad_pixel_loss"], depth=100)


def test_contrastive_losses_equal_the_published_ones(golden):
    logits = golden["in/logits"].clone().requires_grad_()
    loss = contrastive(logits)
    loss.backward()
    assert_same_sum(loss, golden["out/contrastive"], depth=10)
    assert_same_sum(logits.grad, golden["out/grad_contrastive"], depth=10)
    weighted = contrastive(golden["in/logits"], golden["in/weight"])
    assert_same_sum(weighted, golden["out/contrastive_weighted"], depth=10)


def test_ssim_is_that_of_scikit_image_inside_the_border(golden):
    # Zeros beyond the border are the only difference: far from it both see the same windows.
    x, y = golden["in/a/x"], golden["in/a/y"]
    padded = torch.nn.functional.pad(x, (12,) * 4), torch.nn.functional.pad(y, (12,) * 4)
    own = ssim(*padded)[0].item()
    _, full = structural_similarity(
        padded[0][0].numpy(), padded[1][0].numpy(), channel_axis=0, data_range=1.0,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True,
    )  # fmt: skip
    assert own == pytest.approx(full.mean(), abs=2e-3)


def test_equal_images_have_no_pixel_loss():
    image = torch.rand(1, 3, 16, 16)
    assert PIXEL_LOSSES["charbonnier_ssim"](image, image).total.item() == pytest.approx(
        1e-3, abs=rounding(depth=1)
    )
    assert PIXEL_LOSSES["negative_ssim"](image, image).total.item() == pytest.approx(
        -1, abs=rounding(depth=10)
    )


def test_detail_and_degradation_share_one_loss():
    views = {name: torch.randn(2, 3) for name in ("degradation", "detail")}
    losses = contrast_losses(views)
    joint = torch.cat(
        (views["degradation"][:, :1] + views["detail"][:, :1],
         views["degradation"][:, 1:], views["detail"][:, 1:]), dim=1,
    )  # fmt: skip
    assert losses.chromatic is None
    assert_same_sum(losses.degradation, contrastive(joint), depth=2)
    assert contrast_losses({}).total() is None
