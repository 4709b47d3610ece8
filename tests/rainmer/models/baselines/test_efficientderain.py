"""EfficientDeRain against a plain computation that reads published keys."""

import pytest
import torch
import torch.nn.functional as F

from rainmer.models.baselines.efficientderain import EfficientDeRain, filter_pixelwise
from tests.rainmer.models.baselines.published_keys import efficientderain_shapes, random_weights


def loop_filter(image, kernels, dilation):
    """Filter (B, 3, H, W) by (B, 3 * K * K, H, W): the taps of a colour lie side by side."""
    batch, colours, height, width = image.shape
    side = {9: 3, 25: 5}[kernels.shape[1] // colours]
    values, weights = image.numpy(), kernels.numpy()
    result = torch.zeros_like(image)
    for b in range(batch):
        for c in range(colours):
            for y in range(height):
                for x in range(width):
                    total = 0.0
                    for i in range(side):
                        for j in range(side):
                            row = y + dilation * (i - side // 2)
                            column = x + dilation * (j - side // 2)
                            if 0 <= row < height and 0 <= column < width:
                                channel = c * side**2 + i * side + j
                                total += weights[b, channel, y, x] * values[b, c, row, column]
                    result[b, c, y, x] = float(total)
    return result


def convs(x, w, number):
    for place in (0, 2, 4):
        name = f"conv{number}.conv1.{place}"
        x = F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1).clamp_min(0)
    return x


def halve(x):
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def double(x):
    """Interpolate linearly to twice the size, rows and then columns, borders repeated."""
    for axis in (2, 3):
        first, last = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
        before = torch.cat((first, x), axis).narrow(axis, 0, x.shape[axis])
        after = torch.cat((x, last), axis).narrow(axis, 1, x.shape[axis])
        pairs = torch.stack((0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after), axis + 1)
        x = pairs.flatten(axis, axis + 1)
    return x


def predicted_kernels(image, w):
    one = convs(image, w, 1)
    two = convs(halve(one), w, 2)
    three = convs(halve(two), w, 3)
    four = convs(halve(three), w, 4)
    five = convs(halve(four), w, 5)
    x = convs(torch.cat((four, double(five)), 1), w, 6)
    x = convs(torch.cat((three, double(x)), 1), w, 7)
    x = convs(torch.cat((two, double(x)), 1), w, 8)
    return F.conv2d(double(x), w["outc.weight"], w["outc.bias"])


def reference(image, w, dilations=(1, 2, 3, 4)):
    kernels = predicted_kernels(image, w)
    filtered = torch.cat([loop_filter(image, kernels, d) for d in dilations], 1)
    return F.conv2d(filtered, w["conv_final.weight"], w["conv_final.bias"], padding=1)


def in_double(weights):
    model = EfficientDeRain.from_official(weights).eval().double()
    model.load_official(weights)  # in double precision now
    return model


@pytest.fixture(scope="module")
def weights():
    return random_weights(efficientderain_shapes(dim=4), seed=6)


def test_equals_the_plain_computation(weights):
    image = torch.rand(2, 3, 16, 32, dtype=torch.float64)
    with torch.no_grad():
        computed = in_double(weights)(image)
    torch.testing.assert_close(computed, reference(image, weights), rtol=0, atol=1e-10)


def test_odd_sizes_are_padded_by_reflection(weights):
    image = torch.rand(1, 3, 11, 14, dtype=torch.float64)
    padded = F.pad(image, (0, 2, 0, 5), mode="reflect")
    with torch.no_grad():
        computed = in_double(weights)(image)
    expected = reference(padded, weights)[..., :11, :14]
    torch.testing.assert_close(computed, expected, rtol=0, atol=1e-10)


def test_larger_filters_and_fewer_dilations():
    options = {"dim": 2, "kernel_size": 5, "dilations": (1, 2)}
    weights = random_weights(efficientderain_shapes(**options), seed=7)
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    model = in_double(weights)
    assert model.config_mapping() == {**options, "dilations": [1, 2]}
    with torch.no_grad():
        computed = model(image)
    torch.testing.assert_close(computed, reference(image, weights, (1, 2)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
def test_filter_of_one_tap_shifts_the_image(dilation):
    image = torch.rand(1, 3, 9, 8)
    kernels = torch.zeros(1, 3, 9, 9, 8)
    kernels[:, :, 2] = 1  # the tap above and to the right
    expected = torch.zeros_like(image)
    expected[..., dilation:, :-dilation] = image[..., :-dilation, dilation:]
    assert torch.equal(filter_pixelwise(image, kernels, dilation), expected)


@pytest.mark.parametrize("dilation", [1, 4])
def test_one_filter_for_all_pixels_is_a_convolution(dilation):
    image, kernel = torch.rand(2, 3, 6, 5), torch.rand(3, 9)
    kernels = kernel[None, :, :, None, None].expand(2, 3, 9, 6, 5)
    expected = F.conv2d(
        image, kernel.view(3, 1, 3, 3), padding=dilation, dilation=dilation, groups=3
    )
    torch.testing.assert_close(filter_pixelwise(image, kernels, dilation), expected)


def test_every_pixel_has_its_own_filter():
    image, kernels = torch.rand(1, 3, 4, 5), torch.rand(1, 27, 4, 5)
    computed = filter_pixelwise(image, kernels.unflatten(1, (3, 9)), 2)
    torch.testing.assert_close(computed, loop_filter(image, kernels, 2))
