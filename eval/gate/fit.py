"""Fit when deraining helps, and the threshold of a gate that keeps the gain and bounds the harm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eval.gate.measure import DRY, UNMEASURED, Trial
from eval.scores.binomial import upper_bound
from rainmer.errors import DatasetError
from rainmer.meter.benefit import Benefit
from rainmer.meter.head import QUANTITIES, MeterHead

__all__ = ["Choice", "choose_threshold", "fit_benefit", "table"]

_INPUTS = ("rate_mm_h", "coverage", "transmission", "drops", "night", "rain")
_IDLE = 0.3  # weight of a frame that deraining does not change, in frames of one object
_MOST = 5.0  # largest weight of a frame
_DECAY = 0.02
_STEPS = 200
_FEWEST = 30


@dataclass(frozen=True)
class Choice:
    """What a threshold means for the trials.

    Attributes:
        threshold: The benefit from which frames are derained.
        derained: Share of the frames that are.
        dry_passed: Share of the dry frames that are not.
        kept: Share of all net gain that is kept.
        harmed: Share of the measured frames that are derained and lose more than they gain.
        bound: Upper end of its exact binomial interval, one-sided.
    """

    threshold: float
    derained: float
    dry_passed: float
    kept: float
    harmed: float
    bound: float


def fit_benefit(trials: Sequence[Trial], head: MeterHead) -> tuple[Benefit, Tensor]:
    """Fit a logistic model of whether a frame gains; weights are the objects that are at stake.

    Returns:
        The model, its threshold still 0.5, and its score of each trial (N,).

    Raises:
        DatasetError: There are too few trials, or deraining always helps, or never.
    """
    net = torch.tensor([float(trial.net) for trial in trials])
    if len(trials) < _FEWEST or not (net > 0).any() or not (net <= 0).any():
        raise DatasetError(
            f"{len(trials)} trials with {int((net > 0).sum())} gains are too few to fit a gate"
        )
    with torch.no_grad():
        outputs = head(torch.tensor([trial.statistics for trial in trials]))
    columns = outputs[:, [QUANTITIES.index(name) for name in _INPUTS]]
    mean, scale = columns.mean(0), columns.std(0).clamp_min(1e-6)
    standard = (columns - mean) / scale
    target = (net > 0).float()
    importance = net.abs().clamp(_IDLE, _MOST)
    slopes = torch.zeros(len(_INPUTS) + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([slopes], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = standard @ slopes[:-1] + slopes[-1]
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, target, weight=importance
        )
        total = losses + _DECAY * slopes[:-1].square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    weights = slopes.detach()[:-1] / scale
    bias = float(slopes.detach()[-1] - (weights * mean).sum())
    benefit = Benefit(_INPUTS, weights.tolist(), bias, 0.5, {})
    return benefit, benefit(outputs)


def choose_threshold(
    trials: Sequence[Trial], scores: Tensor, *, harm: float, keep: float
) -> Choice:
    """Return the largest threshold that keeps a share of the gain.

    It is lowered no further than needed; if the frames that are harmed exceed the bound even then,
    the threshold rises until they do not, and gain is lost.

    Args:
        trials: The trials.
        scores: Their benefits (N,).
        harm: Largest share of frames that may lose, by the exact bound.
        keep: Smallest share of the net gain to keep.
    """
    choices = [_judge(trials, scores, threshold) for threshold in _candidates(scores)]
    kept = [choice for choice in choices if choice.kept >= keep]
    best = max(kept, key=lambda choice: choice.threshold) if kept else choices[0]
    safe = [choice for choice in choices if choice.bound <= harm]
    if best.bound <= harm or not safe:
        return best
    return min(safe, key=lambda choice: choice.threshold)


def _candidates(scores: Tensor) -> Iterator[float]:
    """Yield thresholds between neighbouring scores, rounded, rising."""
    ordered = scores.sort().values
    middles = (ordered[1:] + ordered[:-1]) / 2
    yield from sorted({round(float(value), 3) for value in middles})


def _judge(trials: Sequence[Trial], scores: Tensor, threshold: float) -> Choice:
    derained = [bool(score >= threshold) for score in scores]
    chosen = [trial for trial, open_ in zip(trials, derained, strict=True) if open_]
    dry = [
        not open_
        for trial, open_ in zip(trials, derained, strict=True)
        if trial.kind in (DRY, UNMEASURED)
    ]
    total = sum(trial.net for trial in trials)
    harmed = sum(trial.net < 0 for trial in chosen)
    measured = sum(trial.kind != UNMEASURED for trial in trials)
    return Choice(
        threshold=threshold,
        derained=len(chosen) / len(trials),
        dry_passed=sum(dry) / len(dry) if dry else float("nan"),
        kept=sum(trial.net for trial in chosen) / total if total else float("nan"),
        harmed=harmed / measured,
        bound=upper_bound(harmed, measured),
    )


def table(trials: Sequence[Trial], scores: Tensor, threshold: float) -> list[str]:
    """Return a Markdown table: what deraining changes by kind of rain, and what is derained."""
    lines = [
        "| rain | frames | objects | found | gained | lost | false before | false after "
        "| frames that lose | gate derains |",
        "| --- |" + " ---: |" * 9,
    ]
    for kind in ("all", *dict.fromkeys(trial.kind for trial in trials)):
        rows = [i for i, trial in enumerate(trials) if kind in ("all", trial.kind)]
        chosen = [trials[i] for i in rows]
        open_ = sum(bool(scores[i] >= threshold) for i in rows)
        sums = [
            sum(getattr(trial, name) for trial in chosen)
            for name in ("objects", "found", "gained", "lost", "false_before", "false_after")
        ]
        harmed = sum(trial.net < 0 for trial in chosen)
        cells = [len(rows), *sums, harmed, f"{open_ / len(rows):.0%}"]
        lines.append(f"| {kind} | {' | '.join(map(str, cells))} |")
    return lines
