"""A derainer that takes its time, so that there is some to interrupt it."""

import time


class Slow:
    """Darkens."""

    name = "slow"
    fingerprint = "slow-1"

    def __call__(self, batch):
        time.sleep(0.03)
        return batch * 0.9


derain = Slow()
