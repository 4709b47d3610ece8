"""Shared by the hooks into ultralytics: their settings, and the creation of their classes."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import torch

from detection.types import DerainCallable, Where, call_derainer
from rainmer import Derainer
from rainmer.device import survive_forks
from rainmer.errors import RainmerError

__all__ = ["DrawOn", "Settings", "Where", "derain", "is_attached", "kept_threads", "make_class"]

DrawOn = Literal["rainy", "derained"]


@dataclass(frozen=True, eq=False)
class Settings:
    """How a derainer runs in front of a detector.

    Attributes:
        derainer: Callable `frames -> frames`.
        where: `frame`: at native size, before the letterbox; `network`: after it, at the
            detector's resolution, without the grey padding.
        draw_on: Whether `Results.orig_img` is the given frame or the derained one.
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
        """A key that is equal for equal settings, as long as the derainer is alive."""
        return id(self.derainer), self.where, self.draw_on, self.on_device


def derain(settings: Settings, frames: Any, paths: Sequence[str]) -> Any:  # noqa: ANN401
    """Derain frames of any kind, named by their paths, and check the result.

    On a GPU a `rainmer.Derainer` returns before it knows whether its values are finite. The check
    waits for it, as ultralytics does, which times this step.

    Raises:
        RainmerError: See `detection.types.call_derainer` and `rainmer.Derainer.check`.
    """
    derained = call_derainer(settings.derainer, frames, [Path(path).name for path in paths])
    if isinstance(settings.derainer, Derainer):
        settings.derainer.check()
    return derained


def is_attached(yolo: object) -> bool:
    """Return whether a derainer is attached to a YOLO object."""
    return "plain_class" in vars(type(yolo))


@contextlib.contextmanager
def kept_threads() -> Iterator[None]:
    """Restore torch's number of CPU threads after the block.

    Whenever ultralytics selects the CPU, it sets the threads of the whole process to the number of
    cores minus one, which would slow down the derainer. With more threads than ultralytics leaves,
    processes that are forked later need care.
    """
    survive_forks()
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Keyed(Protocol):
    """Settings of a hook, with a key that is equal for equal ones."""

    @property
    def key(self) -> tuple[object, ...]: ...


_lock = threading.Lock()
_classes: weakref.WeakValueDictionary[tuple[object, ...], type] = weakref.WeakValueDictionary()


def make_class(
    name: str, bases: tuple[type, ...], settings: _Keyed | None = None, **attributes: object
) -> type[Any]:
    """Derive a class, the same object for the same arguments.

    ultralytics keeps its predictor only while `predict` is given the very same class.

    Args:
        name: Name of the class.
        bases: A hook and the ultralytics class behind it, or the latter alone.
        settings: Becomes the attribute `settings`. The class keeps its derainer alive.
        attributes: Further attributes and methods, the same ones for every class of these bases.
    """
    key = (name, bases, settings and settings.key)
    with _lock:
        made = _classes.get(key)
        if made is None:
            made = type(name, bases, {"settings": settings, **attributes})
            _classes[key] = made
        return made
