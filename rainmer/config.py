"""Configurations: frozen dataclasses in code, YAML files outside, unknown keys refused."""

from __future__ import annotations

import dataclasses
import difflib
import errno
import os
import reprlib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from rainmer.errors import ConfigError

__all__ = [
    "check_integer",
    "flatten",
    "from_mapping",
    "nearest",
    "path_in",
    "read_yaml",
    "refuse_unknown_options",
    "to_mapping",
]

Config = TypeVar("Config")


# Values in messages: aliases of YAML can make a short file a text of gigabytes.
_REPR = reprlib.Repr()
_REPR.maxstring, _REPR.maxother, _REPR.maxlevel = 80, 80, 2

# What PyYAML raises for values that their tag does not fit, such as `!!int ""` or a 31st of June.
_YAML_ERRORS = (
    yaml.YAMLError,
    ValueError,
    AttributeError,
    LookupError,
    TypeError,
    ArithmeticError,
    RecursionError,
)


class _KindError(ConfigError):
    """A value of the wrong type for its field.

    Attributes:
        where: The field, as in the message.
        expected: The expected type in words.
    """

    where: str
    expected: str


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping, with the safe loader.

    Raises:
        ConfigError: The file cannot be read, is not YAML, gives a key twice, or holds something
            other than a mapping.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8-sig"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"{path} is not valid YAML: {line}{error.problem}") from error
    except _YAML_ERRORS as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is not valid YAML: {reason}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, but holds {_kind(content)}")
    return content


class _Loader(yaml.SafeLoader):
    """The safe loader; of a key that is given twice it would keep the last, without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401 (of PyYAML)
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"the key {reprlib.repr(key.value)} is given twice"
                raise yaml.MarkedYAMLError(None, None, problem, key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return node


def path_in(base: Path, text: str) -> Path:
    """Return the path that a configuration names: relative to `base`, `~` and `$NAME` expanded.

    Raises:
        ConfigError: The text can be no path: too long, or with characters that none may have.
    """
    path = base / os.path.expanduser(os.path.expandvars(text))
    try:
        path.lstat()
    except (OSError, ValueError) as error:  # ValueError: a null character, half of a surrogate pair
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"{_REPR.repr(text)} can be no path: {reason}") from error
    return path


def from_mapping(cls: type[Config], mapping: Mapping[str, Any], where: str = "") -> Config:
    """Build a configuration dataclass from plain data, checking every name and type.

    Args:
        cls: The dataclass. Its field types may be str, int, float, bool, Literal, None, nested
            dataclasses, and lists, tuples and string-keyed dicts of these.
        mapping: The plain data, as YAML gives it.
        where: Prefix of the field's name in error messages, such as the file's name.

    Raises:
        ConfigError: A key is unknown (the message has the nearest valid one) or missing, or a
            value has another type.
    """
    assert dataclasses.is_dataclass(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in mapping:
        if key not in fields:
            raise ConfigError(f"{_at(where, str(key))}unknown key; {nearest(str(key), fields)}")
    hints = typing.get_type_hints(cls)
    values = {
        key: _check(value, hints[key], f"{where}.{key}" if where else key)
        for key, value in mapping.items()
    }
    for name, field in fields.items():
        has_default = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if name not in values and not has_default:
            raise ConfigError(f"{_at(where, name)}missing; it has no default")
    return cls(**values)


def refuse_unknown_options(what: str, mapping: Mapping[str, Any], known: Iterable[str]) -> None:
    """Check the keys of a mapping, for classes that check the values themselves.

    Raises:
        ConfigError: A key is not an option; the message has the most similar one.
    """
    names = set(known)
    for key in mapping:
        if key not in names:
            raise ConfigError(f"{what} has no option {key!r}: {nearest(str(key), names)}")


def to_mapping(config: Any) -> dict[str, Any]:  # noqa: ANN401 (any dataclass)
    """Return the plain data that `from_mapping` turns into `config` again (tuples as lists)."""
    plain = _plain(config)
    assert isinstance(plain, dict)
    return plain


def check_integer(field: str, value: object, least: int) -> None:
    """Check that a value is a whole number of at least `least`.

    Raises:
        ConfigError: It is not; the message has the field and the value.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{field} is {value!r}, but must be a whole number")
    if value < least:
        raise ConfigError(f"{field} is {value}, but must be at least {least}")


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:  # noqa: ANN401 (plain data)
    """Return plain data by dotted keys; empty mappings and lists are values.

    >>> flatten({"stages": [{"steps": 3}], "model": {}})
    {'stages.0.steps': 3, 'model': {}}
    """
    if isinstance(value, Mapping) and value:
        items = value.items()
    elif isinstance(value, list) and value:
        items = {str(i): item for i, item in enumerate(value)}.items()
    else:
        return {prefix.removesuffix("."): value}
    flat: dict[str, Any] = {}
    for key, item in items:
        flat.update(flatten(item, f"{prefix}{key}."))
    return flat


def nearest(name: str, valid: Iterable[str]) -> str:
    """List the valid names for an error message, the one closest to `name` first.

    Example:
        >>> nearest("claen", ["clean", "rainy"])
        "did you mean 'clean'? valid: clean, rainy"
    """
    choices = sorted(valid)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    listed = ", ".join(choices)
    return f"did you mean {close[0]!r}? valid: {listed}" if close else f"valid: {listed}"


def _at(where: str, key: str) -> str:
    return f"{where}: {key}: " if where else f"{key}: "


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _check(value: Any, hint: Any, where: str) -> Any:  # noqa: ANN401 (plain data of any kind)
    """Convert a value to the type of its field; raise ConfigError if it has another type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _check_union(value, arguments, where)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{where}: {value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if origin in (list, tuple):
        return _check_sequence(value, origin, arguments, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _kind_error(where, "`name: value` pairs", value)
        return {str(k): _check(v, arguments[1], f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise _kind_error(where, "`name: value` pairs", value)
        return from_mapping(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise _kind_error(where, hint.__name__, value)
    return value


def _check_union(value: object, choices: Sequence[Any], where: str) -> object:
    """Convert a value to the first type of a union that it fits."""
    if value is None and type(None) in choices:
        return None
    expected: list[str] = []
    inside: list[ConfigError] = []
    for choice in choices:
        if choice is type(None):
            continue
        try:
            return _check(value, choice, where)
        except ConfigError as error:
            if isinstance(error, _KindError) and error.where == where:
                expected.append(error.expected)
            else:
                inside.append(error)
    # The type that fails deeper inside accepts this kind of value, so it was the intended one.
    if inside:
        raise inside[0]
    raise _kind_error(where, " or ".join(expected), value)


def _check_sequence(
    value: object,
    origin: type[list[Any]] | type[tuple[Any, ...]],
    arguments: Sequence[Any],
    where: str,
) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _kind_error(where, "a list", value)
    fixed = origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis)
    if fixed and len(value) != len(arguments):
        raise _kind_error(where, f"{len(arguments)} values", value, str(len(value)))
    hints = arguments if fixed else [arguments[0]] * len(value)
    return origin(
        _check(item, hint, f"{where}[{i}]")
        for i, (item, hint) in enumerate(zip(value, hints, strict=True))
    )


def _kind_error(where: str, expected: str, value: object, got: str = "") -> _KindError:
    error = _KindError(f"{where}: expected {expected}, but got {got or _kind(value)}")
    # Not arguments of __init__: unpickling an exception passes only its message.
    error.where, error.expected = where, expected
    return error


def _kind(value: object) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {_REPR.repr(value)}"
