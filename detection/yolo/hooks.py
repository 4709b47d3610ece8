"""Make an existing YOLO object derain: in `predict`, `track` and `val`, with every source."""

# ultralytics is untyped: its objects and options are Any.
# ruff: noqa: ANN401

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, TypeVar

from ultralytics import RTDETR, YOLO, YOLOWorld

from detection.types import DerainCallable
from detection.yolo.binding import DrawOn, Settings, Where
from detection.yolo.predictor import DerainPredictor, bind_predictor
from detection.yolo.validator import DerainValidator, bind_validator
from rainmer.errors import RainmerError

__all__ = ["DerainPredictor", "DerainValidator", "attach", "attached", "detach"]

Model = TypeVar("Model")


def _deraining_class(plain: Any, bound_settings: Settings) -> type:
    """Derive a model class of ultralytics whose predictors and validators derain.

    An object becomes deraining by taking this class. Its network carries no hook, so `save`,
    `export` and pickles of it are those of the plain object; training is not derained. The class
    has `plain` as its only base, else Python would refuse to let an object change to it.
    """

    class Deraining(plain):  # type: ignore[misc]
        plain_class = plain
        settings = bound_settings

        def predict(
            self, source: Any = None, stream: bool = False, predictor: Any = None, **kwargs: Any
        ) -> Any:
            # Always given, because ultralytics reuses whatever predictor it has if none is asked
            # for.
            base = self._smart_load("predictor") if predictor is None else predictor
            bound = bind_predictor(base, self.settings)
            return super().predict(source=source, stream=stream, predictor=bound, **kwargs)

        def val(self, validator: Any = None, **kwargs: Any) -> Any:
            base = self._smart_load("validator") if validator is None else validator
            return super().val(validator=bind_validator(base, self.settings), **kwargs)

        def __copy__(self) -> Any:
            twin = type(self).__new__(type(self))
            twin.__dict__.update(self.__dict__)
            return twin

        def __deepcopy__(self, memo: dict[int, Any]) -> Any:
            twin = type(self).__new__(type(self))
            memo[id(self)] = twin
            twin.__dict__.update(copy.deepcopy(_state_of(self), memo))
            return twin

        def __reduce_ex__(self, protocol: Any) -> Any:
            return object.__new__, (plain,), _state_of(self)

    Deraining.__name__ = Deraining.__qualname__ = plain.__name__
    Deraining.__module__ = plain.__module__
    return Deraining


def _state_of(yolo: Any) -> dict[str, Any]:
    """Return what makes an object, without its predictor: that is rebuilt, and holds a lock."""
    return {**yolo.__dict__, "predictor": None}


def attach(
    yolo: Model, derainer: DerainCallable, where: Where = "frame", *, draw_on: DrawOn = "rainy"
) -> Model:
    """Put a derainer in front of an existing YOLO object, for all its tasks and sources.

    From now on `yolo(...)`, `yolo.predict`, `yolo.track` and `yolo.val` derain first. A derainer
    attached before is replaced. Copies of the object derain too; saved files, exports and pickles
    do not contain the derainer. `yolo.train` is as before.

    Args:
        yolo: An `ultralytics.YOLO` object, of `.pt` weights or an exported model.
        derainer: Callable `frames -> frames`, as `rainmer.Derainer`.
        where: `frame` derains at native size, before the letterbox; `network` after it, at the
            detector's resolution (cheaper).
        draw_on: What `Results.orig_img`, and so `plot()` and `save()`, show: the `rainy` frame
            that was given, or the `derained` one.

    Returns:
        The same object.

    Raises:
        RainmerError: `yolo` is not such an object, or an option is out of range.
    """
    if not isinstance(yolo, YOLO | RTDETR | YOLOWorld):
        raise RainmerError(f"attach() takes an ultralytics YOLO object, not {type(yolo).__name__}")
    settings = Settings(derainer, where, draw_on)
    detach(yolo)
    yolo.__class__ = _deraining_class(type(yolo), settings)
    return yolo


def detach(yolo: Any) -> None:
    """Take the derainer away from a YOLO object; one without stays as it is."""
    plain = vars(type(yolo)).get("plain_class")
    if plain is not None:
        _change_class(yolo, plain)


@contextlib.contextmanager
def attached(
    yolo: Model, derainer: DerainCallable, where: Where = "frame", *, draw_on: DrawOn = "rainy"
) -> Iterator[Model]:
    """Attach a derainer for the length of a `with` block; see `attach`."""
    before = type(yolo)
    try:
        yield attach(yolo, derainer, where, draw_on=draw_on)
    finally:
        _change_class(yolo, before)


def _change_class(yolo: Any, plain: type) -> None:
    yolo.__class__ = plain
    if isinstance(yolo.predictor, DerainPredictor):
        yolo.predictor = None
