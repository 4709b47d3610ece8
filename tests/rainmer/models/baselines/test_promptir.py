"""PromptIR against a plain computation that reads published keys."""

import pytest
import torch
import torch.nn.functional as F

from rainmer.models.baselines.promptir import GatedFeedForward, PromptGenerator, PromptIR
from tests.numerics import rounding
from tests.rainmer.models.baselines.published_keys import promptir_shapes, random_weights

OPTIONS = {
    "dim": 8,
    "num_blocks": (1, 2, 1, 1),
    "refinement_blocks": 2,
    "prompt_count": 3,
    "prompt_channels": (8, 12, 16),
    "prompt_sizes": (8, 6, 5),
}
HEADS = (1, 2, 4, 8)


def conv(x, weight, groups=1):
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)


def norm(x, weight, bias):
    """Normalise the channels of every pixel, one by one."""
    pixels = x.flatten(2)
    result = torch.empty_like(pixels)
    for image in range(pixels.shape[0]):
        for place in range(pixels.shape[2]):
            values = pixels[image, :, place]
            centred = values - values.mean()
            deviation = (centred.square().mean() + 1e-5).sqrt()
            result[image, :, place] = centred / deviation * weight + bias
    return result.view_as(x)


def attention(x, w, prefix, heads):
    """Attend between channels, head by head, with the matrices written out."""
    stacked = conv(x, w[f"{prefix}.qkv.weight"])
    stacked = conv(stacked, w[f"{prefix}.qkv_dwconv.weight"], groups=stacked.shape[1])
    outputs = []
    for q, k, v in zip(*(part.flatten(2) for part in stacked.chunk(3, 1)), strict=True):  # images
        of_heads = []
        for head, rows in enumerate(torch.arange(x.shape[1]).chunk(heads)):
            a = q[rows] / q[rows].norm(dim=1, keepdim=True)
            b = k[rows] / k[rows].norm(dim=1, keepdim=True)
            scores = a @ b.T * w[f"{prefix}.temperature"][head, 0, 0]
            weights = scores.exp() / scores.exp().sum(1, keepdim=True)
            of_heads.append(weights @ v[rows])
        outputs.append(torch.cat(of_heads))
    return conv(torch.stack(outputs).view_as(x), w[f"{prefix}.project_out.weight"])


def feed_forward(x, w, prefix):
    expanded = conv(x, w[f"{prefix}.project_in.weight"])
    expanded = conv(expanded, w[f"{prefix}.dwconv.weight"], groups=expanded.shape[1])
    half = expanded.shape[1] // 2
    a, b = expanded[:, :half], expanded[:, half:]
    gelu = a * 0.5 * (1 + torch.erf(a / 2**0.5))
    return conv(gelu * b, w[f"{prefix}.project_out.weight"])


def block(x, w, prefix, heads):
    normed = norm(x, w[f"{prefix}.norm1.body.weight"], w[f"{prefix}.norm1.body.bias"])
    x = x + attention(normed, w, f"{prefix}.attn", heads)
    normed = norm(x, w[f"{prefix}.norm2.body.weight"], w[f"{prefix}.norm2.body.bias"])
    return x + feed_forward(normed, w, f"{prefix}.ffn")


def level(x, w, prefix, heads):
    index = 0
    while f"{prefix}.{index}.norm1.body.weight" in w:
        x = block(x, w, f"{prefix}.{index}", heads)
        index += 1
    return x


def prompt(x, w, prefix):
    logits = x.mean((2, 3)) @ w[f"{prefix}.linear_layer.weight"].T
    shares = (logits + w[f"{prefix}.linear_layer.bias"]).softmax(1)
    components = w[f"{prefix}.prompt_param"][0]
    mixed = torch.stack(
        [sum(s * part for s, part in zip(image, components, strict=True)) for image in shares]
    )
    resized = F.interpolate(mixed, x.shape[-2:], mode="bilinear", align_corners=False)
    return conv(resized, w[f"{prefix}.conv3x3.weight"])


def join_prompt(x, w, number):
    joined = torch.cat((x, prompt(x, w, f"prompt{number}")), 1)
    joined = block(joined, w, f"noise_level{number}", HEADS[2])
    return conv(joined, w[f"reduce_noise_level{number}.weight"])


def down(x, w, name):
    return F.pixel_unshuffle(conv(x, w[f"{name}.body.0.weight"]), 2)


def up(x, w, name):
    return F.pixel_shuffle(conv(x, w[f"{name}.body.0.weight"]), 2)


def reference(image, w):
    """Run the network as the paper's figure has it, on sides that divide by 8."""
    one = level(conv(image, w["patch_embed.proj.weight"]), w, "encoder_level1", HEADS[0])
    two = level(down(one, w, "down1_2"), w, "encoder_level2", HEADS[1])
    three = level(down(two, w, "down2_3"), w, "encoder_level3", HEADS[2])
    x = level(down(three, w, "down3_4"), w, "latent", HEADS[3])
    x = up(join_prompt(x, w, 3), w, "up4_3")
    x = conv(torch.cat((x, three), 1), w["reduce_chan_level3.weight"])
    x = level(x, w, "decoder_level3", HEADS[2])
    x = up(join_prompt(x, w, 2), w, "up3_2")
    x = conv(torch.cat((x, two), 1), w["reduce_chan_level2.weight"])
    x = level(x, w, "decoder_level2", HEADS[1])
    x = up(join_prompt(x, w, 1), w, "up2_1")
    x = level(torch.cat((x, one), 1), w, "decoder_level1", HEADS[0])
    x = level(x, w, "refinement", HEADS[0])
    return conv(x, w["output.weight"]) + image


@pytest.fixture(scope="module")
def weights():
    return random_weights(promptir_shapes(**OPTIONS), seed=3)


@pytest.fixture(scope="module")
def model(weights):
    model = PromptIR.from_official(weights).eval().double()
    model.load_official(weights)  # in double precision now
    return model


def test_equals_the_plain_computation(model, weights):
    image = torch.rand(2, 3, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(image), reference(image, weights), rtol=0, atol=1e-9)


def test_block_equals_explicit_matrices(model, weights):
    x = torch.randn(2, 16, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        computed = model.encoder2[1](x)
    expected = block(x, weights, "encoder_level2.1", HEADS[1])
    torch.testing.assert_close(computed, expected, rtol=0, atol=1e-10)


def test_odd_sizes_are_padded_by_reflection(model, weights):
    image = torch.rand(1, 3, 13, 15, dtype=torch.float64)
    padded = F.pad(image, (0, 1, 0, 3), mode="reflect")
    with torch.no_grad():
        expected = reference(padded, weights)[..., :13, :15]
        torch.testing.assert_close(model(image), expected, rtol=0, atol=1e-9)


def test_prompt_is_the_component_that_is_chosen():
    generator = PromptGenerator(2, 3, count=2, size=4)
    with torch.no_grad():
        generator.choose.weight.copy_(torch.tensor([[1000.0, 0.0], [0.0, 1000.0]]))
        generator.choose.bias.zero_()
        generator.conv.weight.zero_()
        generator.conv.weight[range(3), range(3), 1, 1] = 1  # passes the prompt on
        features = torch.zeros(2, 2, 4, 4)
        features[0, 1] = features[1, 0] = 1
        prompts = generator(features)
    assert torch.equal(prompts, generator.components.detach()[[1, 0]])


def test_gate_of_the_feed_forward_by_hand():
    net = GatedFeedForward(1, 1.0)
    with torch.no_grad():
        net.expand.weight.copy_(torch.tensor([1.0, 3.0]).view(2, 1, 1, 1))
        net.depthwise.weight.zero_()
        net.depthwise.weight[:, :, 1, 1] = 1
        net.reduce.weight.fill_(1)
        output = net(torch.full((1, 1, 1, 1), 2.0)).item()
    assert output == pytest.approx(1.954500 * 6, rel=rounding(depth=1))  # gelu(2) = 1.9545
