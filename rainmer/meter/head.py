"""The head of the meter: from statistics of an encoder's maps to readings, and its weights file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rainmer.errors import WeightsError, first_sentence
from rainmer.models.weights import write_tensors

__all__ = ["PROBABILITIES", "QUANTITIES", "SHIPPED", "MeterHead", "MeterWeights"]

QUANTITIES = ("rate_mm_h", "coverage", "transmission", "drops", "night", "rain")
"""What the meter reads, in the order of its outputs."""
PROBABILITIES = ("night", "rain")

SHIPPED = Path(__file__).with_name("rain-meter.safetensors")
"""The weights in the package."""

_FORMAT = "rainmer-meter"
_FORMAT_VERSION = "2"
_WIDTHS = (64, 32)
_OUTLIER = 5.0  # standard deviations beyond which a statistic tells no more
_PER_CENT = 100.0
_MOST_RATE_MM_H = 300.0


class MeterHead(nn.Module):
    """A small perceptron on standardized statistics.

    Its outputs are log(1 + rate), log(1 + coverage in %), the root of 1 - transmission,
    log(1 + drops in %), and the logits of night and of rain: errors in these matter alike from
    drizzle to cloudburst.

    Args:
        inputs: Number of statistics.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.layers = nn.Sequential(
            nn.Linear(inputs, _WIDTHS[0]),
            nn.SiLU(),
            nn.Dropout(0.2),
            nn.Linear(_WIDTHS[0], _WIDTHS[1]),
            nn.SiLU(),
            nn.Linear(_WIDTHS[1], len(QUANTITIES)),
        )

    def forward(self, statistics: Tensor) -> Tensor:
        """Return the outputs (B, 6) of statistics (B, N)."""
        standard = (statistics - self.mean) / self.scale
        outputs: Tensor = self.layers(standard.clamp(-_OUTLIER, _OUTLIER))
        return outputs

    @staticmethod
    def encode(values: Tensor) -> Tensor:
        """Turn values (B, 6) of `QUANTITIES` into outputs; probabilities stay as they are."""
        rate, coverage, transmission, drops, night, rain = values.unbind(1)
        return torch.stack(
            [
                rate.log1p(),
                (_PER_CENT * coverage).log1p(),
                (1.0 - transmission).clamp_min(0.0).sqrt(),
                (_PER_CENT * drops).log1p(),
                night,
                rain,
            ],
            dim=1,
        )

    @staticmethod
    def decode(outputs: Tensor) -> Tensor:
        """Turn outputs (B, 6) into values of `QUANTITIES`, each within its range."""
        rate, coverage, haze, drops, night, rain = outputs.unbind(1)
        return torch.stack(
            [
                rate.expm1().clamp(0.0, _MOST_RATE_MM_H),
                (coverage.expm1() / _PER_CENT).clamp(0.0, 1.0),
                1.0 - haze.clamp(0.0, 1.0).square(),
                (drops.expm1() / _PER_CENT).clamp(0.0, 1.0),
                night.sigmoid(),
                rain.sigmoid(),
            ],
            dim=1,
        )


@dataclass(frozen=True)
class MeterWeights:
    """A trained head and what was measured of it.

    Attributes:
        head: The head, in eval mode.
        encoder: Fingerprint of the encoder that it was trained on.
        errors: For each quantity, `edges` (of the reading) of bins and, by bin, `low` and `high`:
            the 10th and 90th percentile of truth minus reading on frames that were held out.
            Of probabilities these are minus and plus the mean absolute error.
        benefit: When deraining helps a detector: `weights` by input, `bias` and `threshold`; see
            `rainmer.meter.benefit`. None: not fitted.
        facts: Where the head comes from, for people.
    """

    head: MeterHead
    encoder: str
    errors: Mapping[str, Mapping[str, list[float]]]
    benefit: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with everything that a reading or a gate depends on."""
        found = hashlib.sha256(json.dumps([self.encoder, self.benefit], sort_keys=True).encode())
        for key, tensor in sorted(self.head.state_dict().items()):
            found.update(key.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    def save(self, path: Path) -> None:
        """Write a safetensors file, its metadata as JSON. Raises OutputError."""
        content = {
            "encoder": self.encoder,
            "errors": self.errors,
            "benefit": self.benefit,
            "facts": self.facts,
        }
        metadata = {
            "format": _FORMAT,
            "format_version": _FORMAT_VERSION,
            "meter": json.dumps(content),
        }
        write_tensors(path, self.head.state_dict(), metadata)

    @classmethod
    def load(cls, path: Path = SHIPPED) -> MeterWeights:
        """Read a file of `save`.

        Raises:
            WeightsError: It is missing, damaged, or no head of a meter.
        """
        try:
            with safetensors.safe_open(path, framework="pt") as content:
                metadata = content.metadata() or {}
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, OSError) as error:
            reason = first_sentence(str(error))
            raise WeightsError(f"cannot read the rain meter {path}: {reason}") from error
        if metadata.get("format") != _FORMAT or metadata.get("format_version") != _FORMAT_VERSION:
            raise WeightsError(
                f"{path} is no rain meter of this version: train one with "
                "python -m rainmer.meter.train"
            )
        try:
            head = MeterHead(len(tensors["mean"]))
            head.load_state_dict(tensors)
            return cls(head.eval().requires_grad_(False), **json.loads(metadata["meter"]))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = first_sentence(str(error))
            raise WeightsError(f"the rain meter {path} is damaged: {reason}") from error
