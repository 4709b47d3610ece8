"""How far apart two results of one computation may be, on any processor.

Kernels for other instruction sets, numbers of threads and batch sizes add the same products in
another order. A sum of n products of scale s then differs by about sqrt(n)·eps·s, and at the worst
of thousands of pixels by about three times that; the layers of our networks sum 10 to 1000
products, in blocks, so one layer is allowed 32 eps. Such errors have either sign and the networks
do not amplify them (residuals, norms), so layers that follow each other add up as a random walk
does: `depth` of them may differ by sqrt(depth) times as much. What a mistake changes, such as a
neighbour's pixel or a missing term, is of the size of the output itself.
"""

import math

import numpy as np
import torch

GOLDEN = 1e-4
"""Largest difference to the published networks, for images in 0..1: the project's contract."""


DETECTOR_DEPTH = 250
"""Layers of a small YOLO with its head, generously counted."""


def rounding(depth, dtype=torch.float32):
    """Largest difference by rounding after `depth` layers, relative to the output's scale.

    A hundred layers in float32 are allowed 3.8e-5, one layer 3.8e-6.
    """
    return 32 * torch.finfo(dtype).eps * math.sqrt(depth)


def assert_same_sum(actual, expected, *, depth=1):
    """Check that tensors, arrays or numbers are equal up to rounding after `depth` layers.

    The scale is the largest absolute value expected; the type is the less exact of the two.
    """
    actual, expected = _tensor(actual), _tensor(expected)
    assert actual.shape == expected.shape
    dtype = max(actual.dtype, expected.dtype, key=lambda dtype: torch.finfo(dtype).eps)
    scale = expected.abs().max().item()
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=0, atol=scale * rounding(depth, dtype)
    )


def same_rows(actual, expected, *, depth=DETECTOR_DEPTH):
    """Tell whether two tables (N, columns) hold the same rows up to rounding after `depth` layers.

    The scale is the largest absolute value expected. Rows may come in another order: detections are
    sorted by scores, of which some are equal up to rounding.
    """
    actual, expected = _tensor(actual).double(), _tensor(expected).double()
    if actual.shape != expected.shape:
        return False
    if not expected.numel():
        return True
    apart = (actual[:, None] - expected[None]).abs().amax(-1)  # (N, N)
    nearest = torch.cat([apart.amin(0), apart.amin(1)])
    return bool(nearest.max() <= expected.abs().max() * rounding(depth))


def _tensor(values):
    return values.detach() if torch.is_tensor(values) else torch.from_numpy(np.asarray(values))
