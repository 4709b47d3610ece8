import pytest
import torch
from skimage.metrics import structural_similarity

from rainmer.train.losses import PIXEL_LOSSES, charbonnier, contrast_losses, contrastive, ssim
from tests.rainmer.golden import COPIES, read_golden


@pytest.fixture(scope="module")
def golden():
    return read_golden(COPIES / "losses.safetensors")[0]


@pytest.mark.parametrize("pair", ["a", "b", "c"])
def test_pixel_losses_equal_the_published_ones(golden, pair):
    x, y = golden[f"in/{pair}/x"], golden[f"in/{pair}/y"]
    torch.testing.assert_close(
        charbonnier(x, y), golden[f"out/{pair}/charbonnier"], rtol=1e-5, atol=0
    )
    similarity = ssim(x, y)
    torch.testing.assert_close(
        similarity, golden[f"out/{pair}/ssim_per_sample"], rtol=1e-5, atol=1e-7
    )
    mean = golden[f"out/{pair}/ssim_map_mean"]
    torch.testing.assert_close(similarity.mean(), mean, rtol=1e-5, atol=1e-7)
    loss = PIXEL_LOSSES["charbonnier_ssim"](x, y)
    torch.testing.assert_close(
        loss.parts["ssim_term"], golden[f"out/{pair}/ssim_term"], rtol=1e-5, atol=1e-7
    )
    expected = PIXEL_LOSSES["l1"](x, y).total
    torch.testing.assert_close(expected, golden[f"out/{pair}/l1"], rtol=1e-5, atol=0)


def test_gradient_of_the_pixel_loss_equals_the_published_one(golden):
    x = golden["in/a/x"].clone().requires_grad_()
    PIXEL_LOSSES["charbonnier_ssim"](x, golden["in/a/y"]).total.backward()
    torch.testing.assert_close(x.grad, golden["out/a/grad_pixel_loss"], rtol=1e-5, atol=1e-8)


def test_contrastive_losses_equal_the_published_ones(golden):
    logits = golden["in/logits"].clone().requires_grad_()
    loss = contrastive(logits)
    loss.backward()
    torch.testing.assert_close(loss, golden["out/contrastive"], rtol=1e-5, atol=0)
    torch.testing.assert_close(logits.grad, golden["out/grad_contrastive"], rtol=1e-5, atol=1e-8)
    weighted = contrastive(golden["in/logits"], golden["in/weight"])
    torch.testing.assert_close(weighted, golden["out/contrastive_weighted"], rtol=1e-5, atol=0)


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
        1e-3, abs=1e-6
    )
    assert PIXEL_LOSSES["negative_ssim"](image, image).total.item() == pytest.approx(-1, abs=1e-5)


def test_detail_and_degradation_share_one_loss():
    views = {name: torch.randn(2, 3) for name in ("degradation", "detail")}
    losses = contrast_losses(views)
    joint = torch.cat(
        (views["degradation"][:, :1] + views["detail"][:, :1],
         views["degradation"][:, 1:], views["detail"][:, 1:]), dim=1,
    )  # fmt: skip
    assert losses.chromatic is None
    torch.testing.assert_close(losses.degradation, contrastive(joint))
    assert contrast_losses({}).total() is None
