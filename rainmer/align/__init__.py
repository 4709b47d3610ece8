"""Align sets of pairs before they are mixed: crops, properties, balance, leaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainmer.lazy import lazy_names

if TYPE_CHECKING:
    from rainmer.align.balance import BalancePlan, draw, plan_balance, target_shares
    from rainmer.align.crop import crop_frame, crop_images
    from rainmer.align.leaks import leaks_between, leaks_within, perceptual_hash
    from rainmer.align.measure import SetSummary, measure_images, summarize
    from rainmer.data.layouts.pairing import ImageSet, Pair
    from rainmer.data.layouts.sets import read_set

__all__ = [
    "BalancePlan",
    "ImageSet",
    "Pair",
    "SetSummary",
    "crop_frame",
    "crop_images",
    "draw",
    "leaks_between",
    "leaks_within",
    "measure_images",
    "perceptual_hash",
    "plan_balance",
    "read_set",
    "summarize",
    "target_shares",
]

__getattr__ = lazy_names(
    __name__,
    {
        "rainmer.align.balance": "BalancePlan draw plan_balance target_shares",
        "rainmer.align.crop": "crop_frame crop_images",
        "rainmer.align.leaks": "leaks_between leaks_within perceptual_hash",
        "rainmer.align.measure": "SetSummary measure_images summarize",
        "rainmer.data.layouts.pairing": "ImageSet Pair",
        "rainmer.data.layouts.sets": "read_set",
    },
)
