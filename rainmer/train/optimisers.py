"""The optimisers of a run and their learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rainmer import models
from rainmer.train.config import TrainConfig
from rainmer.train.schedule import cyclic_cosine, step_decay

__all__ = ["is_encoder", "learning_rate", "load_state", "make_optimisers", "set_rates", "state_of"]

_ENCODER = "encoder."
_OWN_OPTIONS = ("fused", "capturable", "lr")  # another device may go on, and rates are set anew


def is_encoder(name: str) -> bool:
    """Tell whether a parameter of a network belongs to its view encoder."""
    return name.startswith(_ENCODER)


def make_optimisers(
    network: models.Network, config: TrainConfig, *, deferred: bool
) -> list[torch.optim.Optimizer]:
    """Make an optimiser for the backbone, and one for the view encoder if there is one.

    Args:
        network: On its device.
        config: Of the run.
        deferred: Whether steps are decided on the device, where their rates are then, too.
    """
    options = config.optimiser
    parameters = list(network.named_parameters())
    backbone = [p for name, p in parameters if not is_encoder(name)]
    encoder = [p for name, p in parameters if is_encoder(name)]
    groups = [(backbone, options.lr, options.weight_decay)]
    if encoder:
        encoder_lr = options.lr if options.encoder_lr is None else options.encoder_lr
        groups.append((encoder, encoder_lr, options.encoder_weight_decay))
    return [
        torch.optim.AdamW(
            params,
            lr=torch.tensor(lr, device=params[0].device) if deferred else lr,
            betas=options.betas,
            weight_decay=decay,
            fused=deferred or None,
            capturable=deferred,
        )
        for params, lr, decay in groups
    ]


def learning_rate(config: TrainConfig, iteration: int, position: float | None) -> float:
    """Return the backbone's learning rate in a forward pass.

    Args:
        config: Of the run.
        iteration: Count of forward passes, from 1 on.
        position: Where the schedule stands, in optimiser steps; None: as the forward passes say.
    """
    options, accumulate = config.optimiser, config.accumulate
    at = iteration if position is None else position * accumulate
    if options.milestones:
        rate = step_decay(at, options.lr, options.milestones, options.decay, accumulate=accumulate)
    else:
        rate = cyclic_cosine(at, options.lr, config.cycles, accumulate=accumulate)
    warmup = options.warmup * accumulate
    return rate * iteration / warmup if iteration <= warmup else rate


def set_rates(
    optimisers: Sequence[torch.optim.Optimizer], rate: float, encoder_rate: float | None
) -> None:
    """Set the rates of the backbone and of the encoder; None: the encoder has the same."""
    for i, optimiser in enumerate(optimisers):
        value = encoder_rate if i and encoder_rate is not None else rate
        for group in optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(value)
            else:
                group["lr"] = value


def state_of(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state for `load_state`; the rate as a number, wherever it is."""
    state = optimiser.state_dict()
    groups = [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def load_state(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore a state; the optimiser stays as it was made for its device."""
    own = {name: optimiser.param_groups[0][name] for name in _OWN_OPTIONS}
    groups = [{**group, **own} for group in state["param_groups"]]
    optimiser.load_state_dict({**state, "param_groups": groups})
