"""A stand-in for CUDA graphs of training steps on the CPU."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rainmer.stage.graphs import Recording

READS = ("aten._local_scalar_dense", "aten.nonzero", "aten.equal", "aten.masked_select")
"""Operations that wait for a GPU, by the beginnings of their names."""

FROM_HOST = "aten.lift_fresh"
"""What makes a tensor of Python's numbers, which a GPU would have to be sent."""


class Operations(TorchDispatchMode):
    """Notes operations with the tensors that they read and write, and restores what they changed.

    Attributes:
        calls: Function, arguments, options and results of each, in order.
    """

    def __init__(self):
        super().__init__()
        self.calls, self._made, self._before = [], set(), {}

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        if str(function).startswith((*READS, FROM_HOST)):
            raise RuntimeError(f"{function}: operation not permitted while recording")
        for argument, given in zip(function._schema.arguments, arguments, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._keep(given)
        result = function(*arguments, **options)
        given = {storage(tensor) for tensor in tensors((*arguments, *options.values()))}
        fresh = {i: t for i, t in enumerate(tensors(result)) if storage(t) not in given}
        self._made.update(map(storage, fresh.values()))
        self.calls.append((function, arguments, options, fresh))
        return result

    def _keep(self, given):
        for tensor in tensors(given):
            place = storage(tensor)
            if place not in self._made and place not in self._before:
                self._before[place] = tensor.untyped_storage(), tensor.untyped_storage().clone()

    def undo(self):
        """Give memory that was there before the content that it had."""
        for now, before in self._before.values():
            now.copy_(before)

    @torch.no_grad()
    def replay(self):
        """Do the same operations on the same memory; no Python of the work runs."""
        for function, arguments, options, fresh in self.calls:
            again = list(tensors(function(*arguments, **options)))
            for i, result in fresh.items():
                result.copy_(again[i])


class StepStandIn:
    """Records steps operation by operation; like a graph, recording changes nothing.

    Attributes:
        recorded: How many steps were recorded.
    """

    def __init__(self):
        self.recorded = 0

    def record(self, work, inputs):
        copies = tuple(torch.empty_like(given).copy_(given) for given in inputs)
        operations = Operations()
        try:
            with operations:
                outputs = work(*copies)
        finally:
            operations.undo()
        self.recorded += 1
        return Recording(copies, outputs, operations.replay)

    def reset(self):
        pass


def tensors(given):
    if isinstance(given, torch.Tensor):
        yield given
    elif isinstance(given, list | tuple):
        for part in given:
            yield from tensors(part)


def storage(tensor):
    return tensor.untyped_storage().data_ptr()
