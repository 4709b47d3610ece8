"""A window for annotated frames, where there is a display."""

from __future__ import annotations

import os
import sys

import cv2

from rainmer.errors import RainmerError
from rainmer.frames.arrays import Frame, reverse_channels

__all__ = ["Window"]

_KEYS = {ord("q"), 27}
"""Keys that end the run: q and Esc."""


class Window:
    """Shows the frames of each source as they come.

    All calls belong into the main thread: some systems draw in no other.

    Args:
        titles: Names of the sources; each gets a window.

    Raises:
        RainmerError: There is no display, or this OpenCV has no windows.
    """

    def __init__(self, titles: list[str]) -> None:
        # Without a display, Qt ends the process instead of raising an error.
        if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
            raise RainmerError("--show: there is no display here (DISPLAY is not set); use --save")
        try:
            for title in titles:
                cv2.namedWindow(title, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise RainmerError(
                "--show: this OpenCV has no windows (opencv-python-headless?); use --save, or "
                "install opencv-python in its place"
            ) from error

    def show(self, title: str, picture: Frame) -> None:
        """Show a picture (H, W, 3), uint8, RGB.

        Raises:
            KeyboardInterrupt: The user has typed q or Esc, or closed the window: as by Ctrl-C,
                what there is so far is kept.
        """
        cv2.imshow(title, reverse_channels(picture))
        typed = cv2.waitKey(1) & 0xFF
        if typed in _KEYS or cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1:
            raise KeyboardInterrupt
