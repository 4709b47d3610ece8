"""Make an existing YOLO object derain: in `predict`, `track` and `val`, with every source."""

# ultralytics is untyped: its objects and options are Any.
# ruff: noqa: ANN401

from __future__ import annotations

import contextlib
import copy
import logging
import pickle
import weakref
from collections.abc import Iterator
from typing import Any, TypeVar

from ultralytics import YOLOE
from ultralytics.engine.model import Model as UltralyticsModel
from ultralytics.models.yolo.yoloe import YOLOEVPDetectPredictor, YOLOEVPSegPredictor

from detection.types import DerainCallable
from detection.yolo.binding import DrawOn, Settings, Where, make_class
from detection.yolo.predictor import DerainPredictor, bind_predictor
from detection.yolo.validator import DerainValidator, bind_validator
from rainmer.errors import RainmerError

__all__ = ["DerainPredictor", "DerainValidator", "attach", "attached", "detach"]

Model = TypeVar("Model")

_log = logging.getLogger(__name__)
_told: weakref.WeakSet[Settings] = weakref.WeakSet()


def _deraining_class(plain: type[Any], settings: Settings) -> type:
    """Derive a model class of ultralytics whose predictors and validators derain.

    An object becomes deraining by changing to this class. Its network carries no hook, so `save`
    and `export` are the same as for the plain object; training is not derained. `plain` is the only
    base, because Python refuses to change an object to a class with several.
    """
    is_usual = plain.predict is UltralyticsModel.predict
    return make_class(
        plain.__name__,
        (plain,),
        settings,
        plain_class=plain,
        predict=_predict if is_usual else _predict_with_prompts,
        val=_val,
        _smart_load=_smart_load,
        __copy__=_copy,
        __deepcopy__=_deepcopy,
        __reduce_ex__=_reduce,
        __module__=plain.__module__,
        __qualname__=plain.__qualname__,
    )


def _smart_load(self: Any, key: str) -> Any:
    """Return the task's class for a key, bound if it derains."""
    found = self.plain_class._smart_load(self, key)
    if key == "predictor":
        return bind_predictor(found, self.settings)
    return bind_validator(found, self.settings) if key == "validator" else found


def _predict(
    self: Any, source: Any = None, stream: bool = False, predictor: Any = None, **kwargs: Any
) -> Any:
    # Always passed: without it, ultralytics reuses the object's previous predictor.
    base = self._smart_load("predictor") if predictor is None else predictor
    bound = bind_predictor(base, self.settings)
    return self.plain_class.predict(self, source=source, stream=stream, predictor=bound, **kwargs)


def _predict_with_prompts(self: Any, *args: Any, predictor: Any = None, **kwargs: Any) -> Any:
    """Predict with a model (SAM, FastSAM, YOLOE) that takes prompts beside the source."""
    if predictor is None and isinstance(self, YOLOE):  # which asks for one with visual prompts only
        predictor = YOLOEVPSegPredictor if self.task == "segment" else YOLOEVPDetectPredictor
    base = self._smart_load("predictor") if predictor is None else predictor
    bound = bind_predictor(base, self.settings)
    return self.plain_class.predict(self, *args, predictor=bound, **kwargs)


def _val(self: Any, validator: Any = None, **kwargs: Any) -> Any:
    base = self._smart_load("validator") if validator is None else validator
    return self.plain_class.val(self, validator=bind_validator(base, self.settings), **kwargs)


def _copy(self: Any) -> Any:
    twin = object.__new__(type(self))
    twin.__dict__.update(self.__dict__)
    return twin


def _deepcopy(self: Any, memo: dict[int, Any]) -> Any:
    twin = object.__new__(type(self))
    memo[id(self)] = twin
    twin.__dict__.update(copy.deepcopy(_state_of(self), memo))
    return twin


def _reduce(self: Any, _protocol: Any) -> Any:
    """Pickle the object with its derainer; without, and with a warning, if that is impossible."""
    try:
        hook = pickle.dumps(self.settings)
    except Exception as error:  # noqa: BLE001 - of the derainer's own code; told below
        if self.settings not in _told:
            _told.add(self.settings)
            _log.warning(
                "the copy of the detector for another process will not derain: its derainer "
                "cannot be pickled (%s); use a rainmer.Derainer of a spec, or a function of a "
                "module",
                str(error).splitlines()[0] if str(error) else type(error).__name__,
            )
        return object.__new__, (self.plain_class,), _state_of(self)
    return _unpickle, (self.plain_class, hook), _state_of(self)


def _unpickle(plain: type, hook: bytes) -> Any:
    """Return an object that derains, without its state."""
    yolo: Any = object.__new__(plain)
    yolo.__class__ = _deraining_class(plain, pickle.loads(hook))
    return yolo


def _state_of(yolo: Any) -> dict[str, Any]:
    """Return an object's attributes without its predictor, which has a lock and is rebuilt."""
    return {**yolo.__dict__, "predictor": None}


def attach(
    yolo: Model, derainer: DerainCallable, where: Where = "frame", *, draw_on: DrawOn = "rainy"
) -> Model:
    """Put a derainer in front of an existing YOLO object, for all its tasks and sources.

    From now on `yolo(...)`, `yolo.predict`, `yolo.track` and `yolo.val` derain first. A derainer
    that is attached already is replaced. Copies and pickles of the object derain, too, so that
    processes that are spawned do; a derainer that cannot be pickled is left out with a warning.
    What `yolo.save` and `yolo.export` write does not contain the derainer. `yolo.train` is
    unchanged.

    Args:
        yolo: A model of ultralytics, of `.pt` weights or an exported one: YOLO, YOLOE, YOLOWorld,
            RTDETR, NAS, FastSAM or SAM.
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
    if not isinstance(yolo, UltralyticsModel):
        raise RainmerError(
            "attach() takes an ultralytics YOLO object (or YOLOE, YOLOWorld, RTDETR, NAS, FastSAM, "
            f"SAM), not {type(yolo).__name__}; for other detectors, detection.Pipeline(derainer, "
            "detector) derains first"
        )
    settings = Settings(derainer, where, draw_on)
    detach(yolo)
    yolo.__class__ = _deraining_class(type(yolo), settings)
    yolo.predictor = None  # one that does not derain
    return yolo


def detach(yolo: Any) -> None:
    """Remove the derainer from a YOLO object, if it has one."""
    plain = vars(type(yolo)).get("plain_class")
    if plain is not None:
        _change_class(yolo, plain)


@contextlib.contextmanager
def attached(
    yolo: Model, derainer: DerainCallable, where: Where = "frame", *, draw_on: DrawOn = "rainy"
) -> Iterator[Model]:
    """Attach a derainer for the duration of a `with` block; see `attach`."""
    before = type(yolo)
    try:
        yield attach(yolo, derainer, where, draw_on=draw_on)
    finally:
        _change_class(yolo, before)


def _change_class(yolo: Any, plain: type) -> None:
    yolo.__class__ = plain
    if isinstance(yolo.predictor, DerainPredictor):
        yolo.predictor = None
