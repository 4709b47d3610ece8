"""What shortens the start on a GPU: libraries read ahead, and a first step that nobody keeps."""

from __future__ import annotations

import contextlib
import copy
import re
import threading
from pathlib import Path

import torch

from rainmer.train.config import TrainConfig
from rainmer.train.mixture import Batch
from rainmer.train.step import Trainer

__all__ = ["made_up_batch", "read_libraries", "warm_up"]

_MAPPED = Path("/proc/self/maps")
_LIBRARIES = re.compile(r"/\S*/lib(?:cudnn|cublas|cusolver|torch_cuda)[^/\s]*$", re.MULTILINE)
_OF_CUDNN = ("graph", "heuristic", "engines_precompiled", "ops", "engines_runtime_compiled", "cnn")
"""Parts that cuDNN opens when they are first needed."""
_CHUNK = 1 << 24


def read_libraries() -> threading.Thread:
    """Read the GPU's libraries from disk, beside what the caller does.

    They are gigabytes, of which a first step would fetch pages one by one.
    """
    thread = threading.Thread(target=_read_all, daemon=True)
    thread.start()
    return thread


def _read_all() -> None:
    chunk = bytearray(_CHUNK)
    with contextlib.suppress(OSError):  # other systems tell it elsewhere
        for path in _libraries(_MAPPED.read_text(errors="replace")):
            with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
                while file.readinto(chunk):
                    pass


def _libraries(mapped: str) -> list[Path]:
    """Return the libraries among mapped files, those first that are needed first."""
    found = dict.fromkeys(map(Path, _LIBRARIES.findall(mapped)))
    parts = [
        path.with_name(path.name.replace("libcudnn.", f"libcudnn_{part}."))
        for path in found
        if path.name.startswith("libcudnn.")
        for part in _OF_CUDNN
    ]
    return list(dict.fromkeys([*parts, *found]))


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
