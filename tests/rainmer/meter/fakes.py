"""A meter whose benefit is a frame's mean level, and heads without training."""

import torch

from rainmer import models
from rainmer.meter import Reading
from rainmer.meter.features import encoder_fingerprint
from rainmer.meter.head import QUANTITIES, MeterHead, MeterWeights

BENEFIT = {
    "inputs": ["rate_mm_h", "rain"],
    "weights": [1.0, 0.5],
    "bias": -1.0,
    "threshold": 0.4,
    "facts": {},
}
ERRORS = {"rate_mm_h": {"edges": [5.0], "low": [-1.0, -10.0], "high": [2.0, 20.0]}}
STATISTICS = 624


def random_weights(benefit=BENEFIT, seed=0):
    """A head of random weights on the shipped encoder."""
    torch.manual_seed(seed)
    encoder = encoder_fingerprint(models.load("rainmer-s"))
    return MeterWeights(MeterHead(STATISTICS).eval(), encoder, ERRORS, benefit, {"frames": 0})


class LevelMeter:
    """Reads how bright a frame is, and nothing else."""

    device = torch.device("cpu")
    threshold = 0.6
    fingerprint = "level"

    def __call__(self, frames):
        levels = [
            float(torch.as_tensor(frame).float().mean()) / (255 if is_levels(frame) else 1)
            for frame in frames
        ]
        return [Reading(**dict.fromkeys(QUANTITIES, 0.0), benefit=v, intervals={}) for v in levels]


def is_levels(frame):
    return "uint8" in str(frame.dtype)
