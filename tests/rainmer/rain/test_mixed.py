"""Several kinds of rain in one call: each image gets what it would get alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rainmer.errors import ImageError
from rainmer.frames.arrays import quantize
from rainmer.rain import PRESETS, Rain, RainRenderer, rain_config, render_mixed
from rainmer.rain.randomness import image_key

SIZE = (40, 56)
EFFECTS = {
    "lens_drops": (4.0, 40.0),
    "wet_road": (0.3, 0.9),
    "windscreen_drops": (200.0, 900.0),
    "spray_per_km": (5.0, 40.0),
}
STRUCTURES = {
    "physical by day": ("day", "day-heavy", "drizzle", "windscreen", "spray"),
    "physical by night": ("night", "night-heavy"),
    "additive": ("streaks",),
    "layers": ("layers",),
}


def frames(count):
    coarse = torch.rand(count, 3, 5, 7, generator=torch.Generator().manual_seed(count))
    picture = torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")
    picture[:, :, :14] = 0.5 + 0.5 * picture[:, :, :14]
    return picture.contiguous(memory_format=torch.channels_last)


def depths():
    """A depth map (1, 1, H, W)."""
    return torch.linspace(60.0, 4.0, SIZE[0])[None, None, :, None].repeat(1, 1, 1, SIZE[1])


def kinds(structure):
    """Kinds of rain of a structure, with some of the effects or without."""
    effects = st.sets(st.sampled_from(sorted(EFFECTS)), max_size=2)

    def kind(preset, chosen, layer_screen):
        changes = {name: EFFECTS[name] for name in chosen}
        return rain_config(preset, **changes, layer_screen=layer_screen)

    return st.builds(kind, st.sampled_from(STRUCTURES[structure]), effects, st.sampled_from([0, 1]))


@pytest.mark.parametrize("structure", STRUCTURES)
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_each_image_gets_what_it_would_get_alone(structure, data):
    chosen = data.draw(
        st.lists(st.tuples(kinds(structure), st.integers(300, 900)), min_size=2, max_size=4)
    )
    count = len(chosen)
    mapped = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    depth_m = [depths()[0] if own else None for own in mapped]
    seeds = range(5, 5 + count)
    rain = [
        Rain(config, image_key(seed, "a"), width)
        for seed, (config, width) in zip(seeds, chosen, strict=True)
    ]
    together = render_mixed(frames(count), rain, depth_m=depth_m)
    for i, (config, width) in enumerate(chosen):
        alone = RainRenderer(config, seed=seeds[i])(
            frames(count)[i : i + 1],
            ["a"],
            depth_m=depths() if mapped[i] else None,
            frame_width=width,
        )
        for field in ("rainy", "clean", "alpha", "transmission", "drops"):
            expected, own = getattr(alone, field)[0], getattr(together, field)[i]
            assert torch.equal(quantize(own), quantize(expected)), (field, config)
            torch.testing.assert_close(own, expected, rtol=0, atol=1e-5)


def test_kinds_of_one_structure_differ_in_fields_only():
    structures = {name: PRESETS[name].structure for name in PRESETS}
    for names in STRUCTURES.values():
        assert len({structures[name] for name in names}) == 1
    assert len(set(structures.values())) == len(STRUCTURES)
    for changes in ({"target_veil": "keep"}, {"depth": "constant"}, {"light": "night"}):
        assert rain_config("day", **changes).structure != structures["day"]


@pytest.mark.parametrize("names", [("day", "night"), ()])
def test_other_structures_and_nothing_are_refused(names):
    rain = [Rain(PRESETS[name], 0, 640) for name in names]
    with pytest.raises(ImageError, match="one structure"):
        render_mixed(frames(len(names)), rain)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_gpu_renders_the_same(structure):
    """Within a level, but for a streak or drop that a rounding puts elsewhere."""
    presets = STRUCTURES[structure]
    effects = EFFECTS if structure.startswith("physical") else {}
    configs = [rain_config(name) for name in presets] + [rain_config(presets[0], **effects)]
    rain = [Rain(config, 7 * i, 400 + 90 * i) for i, config in enumerate(configs)]
    expected = render_mixed(frames(len(rain)), rain)
    rendering = render_mixed(frames(len(rain)).cuda(), rain)
    for field in ("rainy", "clean"):
        own, wanted = (quantize(getattr(r, field)).cpu().int() for r in (rendering, expected))
        assert ((own - wanted).abs() > 1).float().mean() < 2e-3, field
