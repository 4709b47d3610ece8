"""Rendering rain and cutting samples on the training's device, for several batches at a time.

A call of the renderer takes a GPU about as long for a hundred windows as for one, since it is bound
by launching some thousand operators. So the windows of several batches are put together, those of
one size and one structure of rain in one call, and crops, queries and blurred pictures are cut out
there. On CUDA that is done on a thread and a stream of its own, ahead of the training. On a CPU,
which would gain nothing, each batch is rendered by itself.
"""

from __future__ import annotations

import functools
import itertools
import math
import threading
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from rainmer.background import prefetch
from rainmer.errors import RainmerError, is_out_of_memory
from rainmer.frames.arrays import quantize, unit_range
from rainmer.frames.resize import resize_bilinear
from rainmer.rain import render_mixed
from rainmer.train.mixture import BLUR_TAPS, Batch
from rainmer.train.recipes import Blur, Recipe, Recipes, SampleShape, Window

__all__ = ["render_ahead", "render_batches"]

# Pixels of a call, 202 windows of 288 pixels. The renderer holds 50 to 270 bytes a pixel, so up to
# 4.5 GB; for additive streaks 540, so half as many come at a time. On a CPU less memory is faster.
_MOST_PIXELS, _MOST_PIXELS_OF_CPUS = 1 << 24, 1 << 20
_MOST_BYTES = 1 << 30  # of recipes that wait
_ONE = 1 << 8  # weights of a blur are whole numbers of 1/256


def render_ahead(
    recipes: Iterable[Recipes],
    shape: SampleShape,
    device: torch.device,
    windows: int,
    *,
    ahead: bool | None = None,
) -> Generator[Batch, None, None]:
    """Make batches out of recipes, on the device and in order.

    Args:
        recipes: Those of each batch; in pinned memory, if the device is a GPU.
        shape: Sizes of the samples.
        device: Where batches are made.
        windows: About how many a thread puts together. The first batch is made alone, then two at a
            time, four, and so on, so that it does not wait.
        ahead: Whether a thread makes them, for any stream complete when they come; None: on CUDA.
            Otherwise each is made when it is asked for.

    Raises:
        RainmerError: The memory of the device is too small.
    """
    if device == torch.device("cuda"):  # without a number it would be another thread's own
        device = torch.device("cuda", torch.cuda.current_device())
    if not (device.type == "cuda" if ahead is None else ahead):
        for batch in recipes:
            yield from render_batches([batch], shape, device)
        return
    stop = threading.Event()
    waiting = prefetch(_made(_groups(recipes, windows, stop), shape, device), 1)
    try:
        for made in itertools.chain.from_iterable(waiting):
            if device.type == "cuda":  # its memory is kept until what uses it there is done
                for tensor in made[:5]:
                    tensor.record_stream(torch.cuda.current_stream(device))
            yield made
    finally:
        stop.set()
        waiting.close()


def _groups(
    recipes: Iterable[Recipes], windows: int, stop: threading.Event
) -> Iterator[list[Recipes]]:
    """Yield lists of batches that are rendered together, the first ones short."""
    group: list[Recipes] = []
    most = count = size = 0
    try:
        for batch in recipes:
            if stop.is_set():
                return
            group.append(batch)
            count += len(batch.samples)
            size += batch.pixels.nbytes + batch.depths.nbytes
            if len(group) >= most or count >= windows or size >= _MOST_BYTES:
                yield group
                group, most, count, size = [], 2 * len(group), 0, 0
    except RainmerError:
        yield from [group] if group else []  # the error ends what comes after these
        raise
    if group:
        yield group


def _made(
    groups: Iterable[list[Recipes]], shape: SampleShape, device: torch.device
) -> Generator[list[Batch], None, None]:
    """Yield the batches of groups once the device has them ready."""
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    for group in groups:
        with torch.cuda.stream(stream):
            batches = render_batches(group, shape, device)
            if stream is not None:
                # Waited for here, not by the streams that use them; blocking frees the processor.
                done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
                done.record(stream)
                done.synchronize()
        yield batches


def render_batches(
    group: Sequence[Recipes], shape: SampleShape, device: torch.device
) -> list[Batch]:
    """Make the batches of some recipes on a device, on its current stream.

    Raises:
        RainmerError: Its memory is too small.
    """
    try:
        return _render_batches(group, shape, device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise RainmerError(
            "the device's memory ran out while rain was rendered: lower data.rendering_ahead, or "
            "use data.rendering=loader"
        ) from error


def _render_batches(
    group: Sequence[Recipes], shape: SampleShape, device: torch.device
) -> list[Batch]:
    samples = [recipe for batch in group for recipe in batch.samples]
    uploaded = [batch.to(device) for batch in group]
    windows = [window for batch in uploaded for window in batch.windows()]
    crop, query = (shape.crops, 3, shape.crop, shape.crop), (3, shape.query, shape.query)
    shapes = (crop, crop, query, query, (shape.negatives, *query))
    count = len(samples)
    whole = [torch.empty(count, *own, dtype=torch.uint8, device=device) for own in shapes]
    for rows in _chunks(samples, device):
        parts = _cut(
            *_frames([samples[row] for row in rows], [windows[row] for row in rows]),
            [samples[row] for row in rows],
            shape,
        )
        chosen = torch.tensor(rows, device=device)
        for target, part in zip(whole, parts, strict=True):
            target.index_copy_(0, chosen, part)
    sizes = [len(batch.samples) for batch in group]
    starts = itertools.accumulate(sizes, initial=0)
    batches = []
    for batch, start, size in zip(group, starts, sizes, strict=False):
        rainy, clean, *others = (tensor[start : start + size] for tensor in whole)
        crops = rainy.flatten(0, 1), clean.flatten(0, 1)
        batches.append(Batch._make([*crops, *others, batch.boxes]))
    return batches


def _chunks(samples: Sequence[Recipe], device: torch.device) -> Iterator[list[int]]:
    """Yield the numbers of samples of one size and structure of rain, rendered together."""
    alike: dict[tuple[tuple[int, int], tuple[str, ...]], list[int]] = defaultdict(list)
    for number, sample in enumerate(samples):
        structure = ("none",) if sample.rain is None else sample.rain.config.structure
        alike[sample.size_hw, structure].append(number)
    most = _MOST_PIXELS if device.type == "cuda" else _MOST_PIXELS_OF_CPUS
    for (size_hw, (style, *_)), numbers in alike.items():
        pixels = most // 2 if style == "additive" else most
        length = max(1, pixels // math.prod(size_hw))
        for start in range(0, len(numbers), length):
            yield numbers[start : start + length]


def _frames(samples: Sequence[Recipe], windows: Sequence[Window]) -> tuple[Tensor, Tensor]:
    """Return rainy and clean frames (n, 3, H, W), uint8, of samples that are rendered together."""
    clean = torch.stack([window.clean for window in windows]).permute(0, 3, 1, 2)
    rain = [sample.rain for sample in samples if sample.rain is not None]
    if rain:
        maps = [None if w.depth_m is None else w.depth_m[None] for w in windows]
        rendering = render_mixed(unit_range(clean), rain, depth_m=maps)
        return quantize(rendering.rainy), quantize(rendering.clean)
    read = [window.clean if window.rainy is None else window.rainy for window in windows]
    return torch.stack(read).permute(0, 3, 1, 2), clean


def _cut(
    rainy: Tensor, clean: Tensor, samples: Sequence[Recipe], shape: SampleShape
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cut samples out of frames of one size (n, 3, H, W), uint8, in the order of a `Sample`.

    Returns:
        Crops (n, K, 3, C, C), queries (n, 3, S, S), and blurred pictures (n, N, 3, S, S), uint8.
    """
    device, side = clean.device, shape.query
    corners = torch.tensor([sample.cuts.corners for sample in samples], device=device)  # (n, K, 2)
    turns = torch.tensor([sample.cuts.turns for sample in samples], device=device)
    blurred = clean.new_empty(len(clean), 0, 3, side, side)
    if shape.negatives:
        blurs = [sample.cuts.blurs for sample in samples]
        blurred = _blurred(clean, corners[:, 0], blurs, side)
    return (
        _crops(rainy, corners, turns, shape.crop),
        _crops(clean, corners, turns, shape.crop),
        resize_bilinear(rainy, (side, side)),
        resize_bilinear(clean, (side, side)),
        blurred,
    )


def _crops(frames: Tensor, corners: Tensor, turns: Tensor, side: int) -> Tensor:
    """Cut out square crops and flip them: (n, K, 3, C, C)."""
    steps = torch.arange(side, device=frames.device)
    rows, columns = (
        corners[..., axis, None] + torch.where(turns[..., None] == turn, side - 1 - steps, steps)
        for axis, turn in ((0, 1), (1, 2))
    )
    return _taken(frames, rows, columns)


def _taken(frames: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return parts (n, K, 3, h, w) of frames (n, 3, H, W) by rows (n, K, h), columns (n, K, w)."""
    number = torch.arange(len(frames), device=frames.device)[:, None, None, None]
    taken = frames.permute(0, 2, 3, 1)[number, rows[..., None], columns[..., None, :]]
    return taken.permute(0, 1, 4, 2, 3)


def _blurred(clean: Tensor, corners: Tensor, blurs: Sequence[Sequence[Blur]], side: int) -> Tensor:
    """Blur the pictures around the first crops in several ways: (n, N, 3, S, S), uint8.

    Equal to OpenCV's `GaussianBlur` of bytes, whose weights are whole numbers of 1/256: sums of
    such products are exact in float32.
    """
    lengths = [min(side, length) for length in clean.shape[-2:]]
    rows, columns = (
        corners[:, axis, None, None].clamp_max(clean.shape[2 + axis] - length)
        + torch.arange(length, device=clean.device)
        for axis, length in enumerate(lengths)
    )
    pictures = resize_bilinear(_taken(clean, rows, columns)[:, 0], (side, side)).float()[:, None]
    kernels = torch.tensor([[_weights(blur.sigma) for blur in own] for own in blurs]).float()
    weights = kernels.to(clean.device)[..., None, None, None].unbind(2)  # each (n, N, 1, 1, 1)
    reach = BLUR_TAPS // 2
    mirrored = torch.arange(-reach, side + reach, device=clean.device).abs()
    mirrored = mirrored % max(1, 2 * side - 2)
    mirrored = torch.minimum(mirrored, 2 * side - 2 - mirrored).clamp_min(0)
    for axis in (-1, -2):
        padded = pictures.index_select(axis, mirrored)
        parts = (weight * padded.narrow(axis, tap, side) for tap, weight in enumerate(weights))
        pictures = functools.reduce(torch.add, parts)
    levels = ((pictures + _ONE**2 / 2) / _ONE**2).floor().to(torch.uint8)
    flips = torch.tensor([[blur[1:] for blur in own] for own in blurs]).to(clean.device)
    for axis, flipped in zip((-1, -2), flips[..., None, None, None].unbind(2), strict=True):
        levels = torch.where(flipped, levels.flip(axis), levels)
    return levels


def _weights(sigma: float) -> list[int]:
    """Return the weights of a blur as OpenCV rounds them for bytes: their sum is 256.

    The rounding error of each weight is added to the next one, from the rim to the centre.
    """
    reach = BLUR_TAPS // 2
    values = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(-reach, 1)]
    total = 2 * sum(values[:-1]) + 1.0
    rim: list[int] = []
    error = 0.0
    for value in values[:-1]:
        exact = _ONE * value / total + error
        rim.append(round(exact))
        error = exact - rim[-1]
    return [*rim, _ONE - 2 * sum(rim), *reversed(rim)]
