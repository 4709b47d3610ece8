"""What shortens the start on a GPU: a first step that nobody keeps, while samples are loaded."""

from __future__ import annotations

import copy

import torch

from rainmer.train.config import TrainConfig
from rainmer.train.mixture import Batch
from rainmer.train.step import Trainer

__all__ = ["made_up_batch", "warm_up"]


def warm_up(trainer: Trainer) -> None:
    """Do a step of the first stage with a copy, so that a GPU loads its kernels.

    That takes up to half a minute on a machine that has run nothing yet. The trainer stays as it
    is. Several processes and compiled networks, whose first step does more, are left alone.
    """
    config = trainer.config
    if trainer.world > 1 or config.compile:
        return
    other = Trainer(copy.deepcopy(trainer.network).train(), config, deferred=trainer.deferred)
    negatives = config.data.negatives if trainer.views else 0
    other.step([made_up_batch(config, negatives)])


def made_up_batch(config: TrainConfig, negatives: int) -> Batch:
    """Return a batch of the first stage's sizes, all grey."""
    stage, side = config.stages[0], config.data.query
    crops = (stage.batch * stage.crops_per_frame, 3, stage.crop, stage.crop)
    query = (stage.batch, 3, side, side)
    shapes = (crops, crops, query, query, (stage.batch, negatives, 3, side, side))
    return Batch._make([*(torch.full(s, 128, dtype=torch.uint8) for s in shapes), None])
