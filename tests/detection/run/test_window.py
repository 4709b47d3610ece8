"""`--show`: a window where there is a display, one line where there is none."""

import sys

import cv2
import numpy as np
import pytest

from detection.run.window import Window
from rainmer.errors import RainmerError


class Screen:
    """Stands in for OpenCV's windows."""

    def __init__(self, monkeypatch):
        self.shown, self.key, self.visible = {}, -1, 1.0
        monkeypatch.setenv("DISPLAY", ":0")
        monkeypatch.setattr(cv2, "namedWindow", lambda title, _: self.shown.update({title: []}))
        monkeypatch.setattr(cv2, "imshow", lambda title, image: self.shown[title].append(image))
        monkeypatch.setattr(cv2, "waitKey", lambda _: self.key)
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: self.visible)


@pytest.fixture
def screen(monkeypatch):
    return Screen(monkeypatch)


def test_pictures_are_shown_in_their_colours(screen):
    window = Window(["a", "b"])
    red = np.full((2, 3, 3), (255, 0, 0), np.uint8)
    window.show("b", red)
    assert screen.shown["a"] == []
    assert screen.shown["b"][0][0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize(("key", "visible"), [(ord("q"), 1.0), (27, 1.0), (-1, 0.0)])
def test_the_user_can_end_the_run(screen, key, visible):
    window = Window(["a"])
    screen.key, screen.visible = key, visible
    with pytest.raises(KeyboardInterrupt):
        window.show("a", np.zeros((2, 3, 3), np.uint8))


def test_no_display_and_no_windows_are_told_in_one_line(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(RainmerError, match="no display here"):
        Window(["a"])

    def refuse(*_):
        raise cv2.error("The function is not implemented")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", refuse)
    with pytest.raises(RainmerError, match="this OpenCV has no windows"):
        Window(["a"])
