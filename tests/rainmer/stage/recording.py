"""A stand-in for CUDA graphs on the CPU: the same calls in the same order."""

import threading
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from rainmer.stage.graphs import Recording


class StandIn:
    """Records by keeping the work, and replays it into the same memory.

    Attributes:
        calls: What was called, in order.
        errors: Raised by the next calls of `record`, one each.
        open: Whether a replay is between `wait` and `done`, where no other may begin.
    """

    def __init__(self, *errors):
        self.calls, self.errors, self.open = [], list(errors), None

    def record(self, work, inputs):
        assert self.open == threading.get_ident()
        self.calls.append("record")
        copies = tuple(torch.empty_like(given).copy_(given) for given in inputs)
        work(*copies)
        if self.errors:
            raise self.errors.pop(0)
        outputs = work(*copies)

        def replay():
            assert self.open == threading.get_ident()
            self.calls.append("replay")
            for output, value in zip(outputs, work(*copies), strict=True):
                output.copy_(value)

        return Recording(copies, outputs, replay)

    def wait(self):
        assert self.open is None
        self.open = threading.get_ident()

    def done(self):
        assert self.open == threading.get_ident()
        self.open = None

    def reset(self):
        self.open = None
        self.calls.append("reset")


class Tape(StandIn):
    """Records the operators themselves, as a CUDA graph does, not the Python around them.

    It refuses what a capture refuses, and knows what the work reads besides its inputs by address
    only: memory that was freed meanwhile is noticed.
    """

    def record(self, work, inputs):
        assert self.open == threading.get_ident()
        self.calls.append("record")
        with torch.inference_mode(False), torch.no_grad():
            copies = tuple(torch.empty_like(given).copy_(given) for given in inputs)
            work(*copies)
            with _Operators(copies) as operators:
                outputs = work(*copies)
        operators.seen.clear()

        def replay():
            self.calls.append("replay")
            operators.replay()

        return Recording(copies, outputs, replay)


class _Operators(TorchDispatchMode):
    """The operators of a block, to be run again on the same memory."""

    # Reading on the host, sizes that depend on values, constants of the host.
    FORBIDDEN = (
        "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::arange",
        "aten::lift_fresh",
    )  # fmt: skip

    def __init__(self, inputs):
        super().__init__()
        self.kept = dict(enumerate(inputs))  # memory by number
        self.numbers = {id(given): i for i, given in enumerate(inputs)}
        self.steps = []
        self.seen = []  # holds all tensors, so that each has an id of its own

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket._qualified_op_name in self.FORBIDDEN:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        result = function(*args, **(kwargs or {}))
        given, form = tree_flatten((args, kwargs or {}))
        memory = {_memory(value) for value in given if isinstance(value, torch.Tensor)}
        places = [self._place(value) for value in given]
        made = []
        for value in tree_flatten(result)[0]:
            number = self.numbers.setdefault(id(value), len(self.numbers))
            self.seen.append(value)
            made.append(number)
            if _memory(value) not in memory:  # else a view, or changed in place
                self.kept[number] = value
        self.steps.append((function, places, form, made))
        return result

    def _place(self, value):
        if not isinstance(value, torch.Tensor):
            return lambda _, value=value: value
        if (number := self.numbers.get(id(value))) is not None:
            return lambda values: values[number]
        outside = weakref.ref(value)

        def read(_):
            assert outside() is not None, "a recording reads memory that was freed"
            return outside()

        return read

    def replay(self):
        values = dict(self.kept)
        for function, places, form, made in self.steps:
            args, kwargs = tree_unflatten([place(values) for place in places], form)
            for number, value in zip(made, tree_flatten(function(*args, **kwargs))[0], strict=True):
                if number in self.kept:
                    self.kept[number].copy_(value)
                else:
                    values[number] = value


def _memory(tensor):
    return tensor.untyped_storage()._cdata
