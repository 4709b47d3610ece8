"""A stand-in for CUDA graphs on the CPU: the same calls in the same order."""

import threading

import torch

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
