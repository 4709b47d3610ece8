"""Classes that are made at run time: a hook mixed into an ultralytics class, with its settings.

ultralytics reuses a predictor only while `predict` is given the very same class, so the same
settings must always give the same class.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from detection.types import DerainCallable, Where
from rainmer.errors import RainmerError

__all__ = ["DrawOn", "Settings", "Where", "is_attached", "kept_threads", "make_class"]

DrawOn = Literal["rainy", "derained"]


@dataclass(frozen=True, eq=False)
class Settings:
    """How a derainer is put in front of a detector.

    Attributes:
        derainer: Callable `frames -> frames`.
        where: `frame`: at native size, before the letterbox; `network`: after it, at the
            detector's resolution, without the grey padding.
        draw_on: What `Results.orig_img` is: the frame as it was given, or the derained one.
        on_device: Whether frames are derained and letterboxed on the detector's device; None does
            so on CUDA only.

    Raises:
        RainmerError: An option is out of range, or the derainer is not callable.
    """

    derainer: DerainCallable
    where: Where = "frame"
    draw_on: DrawOn = "rainy"
    on_device: bool | None = None

    def __post_init__(self) -> None:
        if not callable(self.derainer):
            raise RainmerError(
                f"expected a callable frames -> frames, but got {type(self.derainer).__name__}; "
                "make one of a spec with rainmer.Derainer(spec)"
            )
        for name, allowed in (("where", get_args(Where)), ("draw_on", get_args(DrawOn))):
            if getattr(self, name) not in allowed:
                raise RainmerError(
                    f"{name} must be one of {', '.join(allowed)}, but is {getattr(self, name)!r}"
                )
        if self.where == "network" and self.draw_on == "derained":
            raise RainmerError(
                "draw_on='derained' needs where='frame': at network resolution no derained frame "
                "of native size exists"
            )

    @property
    def key(self) -> tuple[object, ...]:
        """What makes two settings the same. A class made with them keeps the derainer alive."""
        return id(self.derainer), self.where, self.draw_on, self.on_device


def is_attached(yolo: object) -> bool:
    """Tell whether a derainer is attached to a YOLO object."""
    return "plain_class" in vars(type(yolo))


@contextlib.contextmanager
def kept_threads() -> Iterator[None]:
    """Keep torch's number of CPU threads.

    Whenever ultralytics chooses the CPU, it leaves the whole process one thread fewer than there
    are cores (half of them on two cores), and the derainer would run that much slower.
    """
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_classes: weakref.WeakValueDictionary[tuple[object, ...], type] = weakref.WeakValueDictionary()


def make_class(hook: type, base: type, settings: Settings) -> type[Any]:
    """Return the subclass of `hook` and `base` with these settings, always the same one."""
    key = (hook, base, *settings.key)
    made = _classes.get(key)
    if made is None:
        made = type(f"Derain{base.__name__}", (hook, base), {"settings": settings})
        _classes[key] = made
    return made
