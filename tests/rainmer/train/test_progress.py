"""What a call of a run says of its steps."""

import pytest

from rainmer.config import from_mapping
from rainmer.train.config import TrainConfig
from rainmer.train.progress import Progress
from rainmer.train.timetable import Timetable


class Clock:
    """A clock that the test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def follow(mapping, *, end, first=0, steps=30, step_s=3.0, quiet=False):
    """Return the progress of a call after some steps, the first five and one more slow."""
    clock = Clock()
    timetable = Timetable(from_mapping(TrainConfig, mapping), clock)
    timetable.step = first
    progress = Progress(timetable, end, quiet=quiet, now=clock)
    with progress.bar:
        for step in range(steps):
            clock.now += 10 * step_s if step < 5 or step == 15 else step_s
            timetable.end_step(1)
            progress.update()
        progress.show(0.25)
    return progress


@pytest.mark.parametrize(
    ("first", "end", "words"),
    [
        (0, 3020, "3 s a step: about 2 h 30 min left at this pace"),
        (1000, 1140, "3 s a step: about 6 min left at this pace"),  # of this call's 140 steps
    ],
)
def test_the_time_left_is_said_once_and_without_slow_steps(
    run_mapping, caplog, capsys, first, end, words
):
    with caplog.at_level("INFO"):
        progress = follow(run_mapping, first=first, end=end)
    assert caplog.messages == [words]
    assert (progress.bar.initial, progress.bar.n, progress.bar.total) == (first, first + 30, end)
    assert f"{first + 30}/{end}" in capsys.readouterr().err


@pytest.mark.parametrize(("end", "quiet"), [(None, False), (20, False), (3000, True)])
def test_nothing_is_said_without_an_end_or_after_it_or_quietly(run_mapping, caplog, end, quiet):
    with caplog.at_level("INFO"):
        follow(run_mapping, end=end, quiet=quiet)
    assert caplog.messages == []


def test_a_run_of_minutes_shows_them(run_mapping, capsys):
    follow({**run_mapping, "minutes": 10}, end=None)
    assert "loss=0.2500, minutes=4.2 of 10" in capsys.readouterr().err
