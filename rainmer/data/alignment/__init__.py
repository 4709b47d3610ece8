"""Bringing sets of pairs in line before they are mixed: crops, properties, balance, leaks."""

from __future__ import annotations

from rainmer.data.alignment.balance import BalancePlan, draw, plan_balance, target_shares
from rainmer.data.alignment.crops import crop_frame, crop_images
from rainmer.data.alignment.leaks import leaks_between, leaks_within, perceptual_hash
from rainmer.data.alignment.measuring import SetSummary, measure_images, summarize
from rainmer.data.alignment.pairs import ImageSet, Pair, read_set

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
