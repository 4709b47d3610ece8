"""PSNR and SSIM of a real derainer's output, against scikit-image."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from rainmer import Derainer
from rainmer.frames.images import read_image
from rainmer.metrics import restoration_scores


def luma_8bit(frame):
    """Y of MATLAB's rgb2ycbcr for uint8 images, in scikit-image's way: computed in float64."""
    weights = np.array([65.481, 128.553, 24.966]) / 255.0
    return np.floor(frame.astype(np.float64) @ weights + 16.0 + 0.5)


@pytest.mark.shared_data
def test_scores_of_prenet_equal_scikit_image(shared_data):
    weights = shared_data / "derainers" / "prenet-rain100h.pth"
    derainer = Derainer(f"prenet:{weights}", device="cpu", precision="fp32")
    pairs = shared_data / "rain100h-20"
    for name in ("1.png", "7.png"):
        rainy = read_image(pairs / "input" / name)[:160, :160]
        clean = read_image(pairs / "target" / name)[:160, :160]
        restored = derainer(rainy)
        stacks = [torch.from_numpy(f).permute(2, 0, 1)[None] for f in (restored, rainy, clean)]
        scores = restoration_scores(stacks[0], stacks[2])
        y, truth = luma_8bit(restored), luma_8bit(clean)
        psnr = peak_signal_noise_ratio(truth, y, data_range=255)
        ssim = structural_similarity(
            truth, y, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert scores["psnr"].item() == pytest.approx(psnr, abs=1e-3)
        assert scores["ssim"].item() == pytest.approx(ssim, abs=1e-4)
        assert psnr > restoration_scores(stacks[1], stacks[2])["psnr"].item() + 5
