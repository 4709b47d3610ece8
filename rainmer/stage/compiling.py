"""Run a network under torch.compile, or uncompiled if compiling fails."""

from __future__ import annotations

import logging
import threading
from typing import Any, cast

import torch
from torch import Tensor, nn

from rainmer.errors import first_line, is_out_of_memory

__all__ = ["SIZE_BUCKET", "Compiled", "fill_batch"]

SIZE_BUCKET = 32
"""Sides are padded to multiples of this many pixels, so that few sizes have to be compiled."""

_log = logging.getLogger(__name__)


class Compiled:
    """A network compiled for each new input shape; on CUDA its kernels run as one graph.

    Batches are filled up to a power of two, so that there are few shapes. If compiling fails, the
    network runs as it is from then on, with one warning. Threads take turns: the results of a graph
    lie in memory that its next run overwrites.

    Args:
        network: On its device, in eval mode.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        on_gpu = next(network.parameters()).device.type == "cuda"
        mode = "reduce-overhead" if on_gpu else None
        self._compiled: Any = torch.compile(network, mode=mode, dynamic=False)
        self._lock = threading.Lock()

    def __call__(self, image: Tensor, **arguments: Tensor) -> Tensor:
        """Run the network.

        Args:
            image: Images (B, 3, H, W).
            arguments: Further tensors, one entry per image or one for all images.

        Raises:
            Whatever the network raises, and errors of compiled code that runs out of memory.
        """
        with self._lock:
            if self._compiled is not None:
                try:
                    return self._run(image, arguments)
                except Exception as error:
                    if is_out_of_memory(error):
                        raise
                    # Retried uncompiled below: an error of the network itself is raised there.
                    self._compiled = None
                    _log.warning("torch.compile failed, going on without: %s", first_line(error))
        return cast(Tensor, self.network(image, **arguments))

    def _run(self, image: Tensor, arguments: dict[str, Tensor]) -> Tensor:
        count = len(image)
        filled = 1 << (count - 1).bit_length()
        image = fill_batch(image, filled)
        arguments = {
            name: fill_batch(value, filled) if len(value) == count else value
            for name, value in arguments.items()
        }
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        # Cloned, because the next call overwrites the memory of a graph's result.
        return cast(Tensor, self._compiled(image, **arguments))[:count].clone()


def fill_batch(batch: Tensor, count: int) -> Tensor:
    """Repeat the last entry of a batch until it has `count` entries."""
    missing = count - len(batch)
    return (
        batch if not missing else torch.cat((batch, batch[-1:].expand(missing, *batch.shape[1:])))
    )
