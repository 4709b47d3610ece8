"""Fit the head to samples, and measure it on frames that it never saw."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer.errors import ImageError
from rainmer.meter.head import PROBABILITIES, QUANTITIES, MeterHead
from rainmer.meter.samples import Samples

__all__ = ["area_under_curve", "fit_head", "held_out_errors", "score_table"]

_STEPS = 700
_BATCH = 256
_LEARNING_RATE = 2e-3
_DECAY = 0.1
_DRY = 0.05  # weight of frames without rain in the loss of the rate, which is relative
_SCALES = (1.0, 1.0, 6.0, 1.0, 1.0, 1.0)  # of the losses: outputs have ranges of 0..5, 0..1, logits
_REAL = 6.0  # weight of a real rainy frame: they are few, and what is to be told
_BINS = 4
_FEWEST = 20  # frames for an error bar
_TENTHS = (0.1, 0.9)


def fit_head(samples: Samples, *, seed: int = 0, steps: int = _STEPS) -> MeterHead:
    """Train a head on the split `train`: seconds on a CPU.

    Args:
        samples: All samples.
        seed: Of its weights and the order of samples.
        steps: Batches of training.

    Raises:
        ImageError: The split has too few frames.
    """
    chosen = samples.where(splits="train")
    statistics, truth = samples.statistics[chosen], samples.truth[chosen]
    if len(truth) < _FEWEST:
        raise ImageError(f"{len(truth)} frames are too few to train a meter: give more")
    real = samples.where(splits="train", kinds="real")[chosen]
    weights = torch.where(real, _REAL, 1.0)
    targets = MeterHead.encode(truth)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        head = MeterHead(statistics.shape[1])
        head.mean.copy_(statistics.mean(0))
        with torch.no_grad():
            last = head.layers[-1]
            assert isinstance(last, nn.Linear)
            last.bias.copy_(_middle(targets))
        head.scale.copy_(statistics.std(0).clamp_min(1e-4))
        optimizer = torch.optim.AdamW(
            head.parameters(), lr=_LEARNING_RATE, weight_decay=_DECAY, betas=(0.9, 0.98)
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for rows in itertools.islice(_batches(len(truth)), steps):
            loss = _loss(head(statistics[rows]), targets[rows], weights[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return head.eval().requires_grad_(False)


def _batches(count: int) -> Iterator[Tensor]:
    """Yield the rows of batches, every row once in each round, for ever."""
    while True:
        yield from torch.split(torch.randperm(count), _BATCH)


def _middle(targets: Tensor) -> Tensor:
    """Return where the outputs (6,) start: the means of what is known, logits at even odds."""
    middle = targets.nanmean(0).nan_to_num(0.0)
    middle[[QUANTITIES.index(name) for name in PROBABILITIES]] = 0.0
    return middle


def _loss(outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the mean loss over what is known of each quantity, summed over them."""
    losses = []
    for column, name in enumerate(QUANTITIES):
        known = ~targets[:, column].isnan()
        if not known.any():
            continue
        output, target = outputs[known, column], targets[known, column]
        if name in PROBABILITIES:
            each = F.binary_cross_entropy_with_logits(output, target, reduction="none")
        else:
            each = F.smooth_l1_loss(output, target, reduction="none", beta=0.2)
        weight = weights[known]
        if name == "rate_mm_h":
            weight = torch.where(target > 0, weight, _DRY * weight)
        losses.append(_SCALES[column] * (each * weight).sum() / weight.sum())
    return torch.stack(losses).sum()


@torch.no_grad()
def held_out_errors(head: MeterHead, samples: Samples) -> dict[str, dict[str, list[float]]]:
    """Return the errors of each quantity on the split `errors`; see `MeterWeights`."""
    chosen = samples.where(splits="errors")
    read = MeterHead.decode(head(samples.statistics[chosen]))
    truth = samples.truth[chosen]
    errors = {}
    for column, name in enumerate(QUANTITIES):
        known = ~truth[:, column].isnan()
        value, rest = read[known, column], (truth - read)[known, column]
        if len(value) < _FEWEST:
            continue
        edges = torch.unique(value.quantile(torch.linspace(0.0, 1.0, _BINS + 1)[1:-1]))
        bins = torch.bucketize(value, edges, right=True)
        low, high = [], []
        for index in range(len(edges) + 1):
            inside = rest[bins == index]
            inside = inside if len(inside) else rest
            if name in PROBABILITIES:
                mean = float(inside.abs().mean())
                low.append(-mean)
                high.append(mean)
            else:
                ends = inside.quantile(torch.tensor(_TENTHS)).tolist()
                low.append(min(0.0, ends[0]))
                high.append(max(0.0, ends[1]))
        errors[name] = {"edges": edges.tolist(), "low": low, "high": high}
    return errors


def area_under_curve(positive: Tensor, negative: Tensor) -> float:
    """Return the share of pairs in which the positive has the larger score; ties count half.

    >>> area_under_curve(torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.0]))
    0.875
    """
    if not len(positive) or not len(negative):
        return math.nan
    pairs = positive[:, None] - negative[None]
    return float((pairs > 0).float().mean() + 0.5 * (pairs == 0).float().mean())


@torch.no_grad()
def score_table(head: MeterHead, samples: Samples, split: Sequence[str] = ("test",)) -> list[str]:
    """Return the lines of a Markdown table of errors by kind on frames that trained nothing."""
    head = copy.deepcopy(head).cpu()
    read = MeterHead.decode(head(samples.statistics))
    lines = [
        "| pictures | frames | rate mm/h, median | its median error | coverage | transmission "
        "| drops | day or night right | taken for rain |",
        "| --- |" + " ---: |" * 8,
    ]
    held = samples.where(splits=split)
    rated = ~samples.truth[:, 0].isnan() & (samples.truth[:, 0] > 0)
    groups = {"all rendered rain with a rate": held & rated}
    for kind in dict.fromkeys(samples.kinds):
        groups[kind] = held & samples.where(kinds=kind)
    lines += [_row(name, read[rows], samples.truth[rows]) for name, rows in groups.items()]
    real = samples.where(splits=SPLITS_HELD, kinds="real")
    dry = samples.where(splits=SPLITS_HELD, kinds="dry")
    streets = dry & samples.where(groups=("day", "night"))
    rain = read[:, QUANTITIES.index("rain")]
    for name, against in (("dry frames", dry), ("dry streets", streets)):
        area = area_under_curve(rain[real], rain[against])
        lines.append(f"\nReal rain ({int(real.sum())} crops) against {name}: AUC {area:.3f}")
    return lines


SPLITS_HELD = ("errors", "test")
"""Splits whose frames train nothing of a reading."""


def _row(name: str, read: Tensor, truth: Tensor) -> str:
    def median(values: Tensor) -> str:
        values = values[~values.isnan()]
        return f"{float(values.median()):.3f}" if len(values) else "-"

    rate, relative = truth[:, 0], (read[:, 0] - truth[:, 0]).abs() / truth[:, 0]
    known = ~rate.isnan() & (rate > 0)
    night = truth[:, 4]
    right = ((read[:, 4] > 0.5).float() == night)[~night.isnan()]
    cells = [
        f"{float(rate[known].median()):.0f}" if known.any() else "-",
        f"{float(relative[known].median()):.0%}" if known.any() else "-",
        *(median((read[:, column] - truth[:, column]).abs()) for column in (1, 2, 3)),
        f"{float(right.float().mean()):.1%}" if len(right) else "-",
        f"{float((read[:, 5] > 0.5).float().mean()):.1%}",
    ]
    return f"| {name} | {len(read)} | {' | '.join(cells)} |"
