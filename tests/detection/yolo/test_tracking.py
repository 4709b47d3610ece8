"""ByteTrack over stored detections: it is that of `YOLO.track`."""

import numpy as np
import pytest

from detection.tracks import NO_TRACK, track_detections
from detection.types import Detections
from rainmer.errors import SpecError

SIZE = (100, 100)


def moving(count, missing=(), weak=()):
    """One box that moves by a pixel a frame."""
    frames = []
    for n in range(count):
        box = [] if n in missing else [[10 + n, 10, 30 + n, 40]]
        frames.append(Detections(box, [0.15 if n in weak else 0.8] * len(box), [2] * len(box)))
    return frames


def test_a_thing_keeps_its_number_through_weak_frames_and_gaps():
    frames = moving(12, missing=(7,), weak=(4, 5))
    numbers = track_detections(frames, SIZE, conf=0.25)
    assert [len(own) for own in numbers] == [len(frame) for frame in frames]
    assert len({int(n) for own in numbers for n in own}) == 1


def test_what_shows_once_has_a_track_of_one_frame_and_weak_ones_begin_none():
    frames = moving(6)
    frames[3] = Detections([[13, 10, 33, 40], [60, 60, 80, 80]], [0.8, 0.5], [2, 1])
    frames[4] = Detections([[14, 10, 34, 40], [5, 60, 25, 90]], [0.8, 0.2], [2, 1])
    numbers = track_detections(frames, SIZE, conf=0.25)
    once = numbers[3][1]
    assert once not in (NO_TRACK, numbers[3][0])
    assert sum(int((own == once).sum()) for own in numbers) == 1
    assert numbers[4].tolist() == [numbers[0][0], NO_TRACK]


def test_no_detections_and_boxes_without_area():
    assert track_detections([], SIZE, conf=0.25) == []
    flat = Detections([[5, 5, 5, 9]], [0.9], [0])
    numbers = track_detections([Detections(), flat, Detections()], SIZE, conf=0.25)
    assert [own.tolist() for own in numbers] == [[], [NO_TRACK], []]


def test_it_gives_the_tracks_of_ultralytics(monkeypatch):
    """Where a track is confirmed, its number is the one that `update` returns for the detection."""
    from ultralytics.trackers.byte_tracker import BYTETracker

    returned = []
    update = BYTETracker.update

    def recorded(self, results, *more):
        returned.append(update(self, results, *more))
        return returned[-1]

    monkeypatch.setattr(BYTETracker, "update", recorded)
    rng = np.random.default_rng(0)
    frames = []
    for n in range(15):
        corners = np.array([[10, 10], [40 + n, 10], [10, 60 - n], [60, 60]])
        left_top = corners + rng.uniform(0, 5, (4, 2))
        keep = rng.random(4) < 0.8
        boxes = np.concatenate([left_top, left_top + 20], axis=1)[keep]
        frames.append(Detections(boxes, rng.uniform(0.1, 0.9, len(boxes)), [0] * len(boxes)))
    numbers = track_detections(frames, SIZE, conf=0.25)
    for own, rows in zip(numbers, returned, strict=True):
        for row in rows:
            assert own[int(row[7])] == int(row[4])


def test_a_missing_package_is_named_and_nothing_is_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lap", None)
    with pytest.raises(SpecError, match=r"lap.*rainmer\[track\]"):
        track_detections([Detections()], SIZE, conf=0.25)
