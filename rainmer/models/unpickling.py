"""Reading torch's files without running anything that they name.

A pickle is a program: it names functions and classes, and opening it calls them. Here no name is
ever looked up. Each becomes an inert stand-in that keeps what it was given, and only then are the
stand-ins of dictionaries and tensors, which are data, turned into what they stand for.
"""

# ruff: noqa: ANN401 (a file may hold values of any type)

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rainmer.errors import WeightsError

__all__ = ["Unread", "is_zip", "read_inert"]

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first number in files of torch before 1.6."""
_RUNNERS = (
    "os", "posix", "nt", "subprocess", "sys", "runpy", "importlib", "shutil", "socket", "pty",
    "webbrowser", "ctypes",
)  # fmt: skip
"""Packages that no checkpoint needs, and that files made to do harm name."""
_RUNNING_BUILTINS = frozenset({"eval", "exec", "compile", "open", "__import__", "input"})
_DICTIONARIES = frozenset({"collections.OrderedDict", "collections.Counter", "builtins.dict"})
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}

_StorageReader = Callable[[str, torch.dtype], Tensor]


class Unread:
    """A value of a class that is not read.

    Attributes:
        origin: The class, or the function that would make the value, with its module.
        holds_tensors: Whether there are tensors inside.
    """

    def __init__(self, origin: str, *, holds_tensors: bool) -> None:
        self.origin = origin
        self.holds_tensors = holds_tensors


class _Inert:
    """Stands for a class or function of the file; its instances keep what they were given.

    The unpickler calls nothing but these methods, which only store.
    """

    origin = ""

    def __new__(cls, *args: Any, **_: Any) -> _Inert:
        made = super().__new__(cls)
        made.args, made.items, made.values, made.state = args, {}, [], None
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        self.args: tuple[Any, ...]
        self.items: dict[Any, Any]
        self.values: list[Any]
        self.state: Any

    def __call__(self, *args: Any) -> _Inert:
        return _Inert(self, *args)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, value: Any) -> None:
        self.values.append(value)


class _Storage(tuple[Any, ...]):
    """The persistent id of a storage: "storage", class, key, device, length, part."""

    __slots__ = ()


class _Unpickler(pickle._Unpickler):  # the one in C reserves as much memory as the file asks for
    """An unpickler that knows numbers, texts, lists, dictionaries, and stand-ins."""

    def __init__(self, file: io.BytesIO) -> None:
        # Texts of Python 2 may be bytes.
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self._classes: dict[str, type[_Inert]] = {}

    def find_class(self, module: str, name: str) -> type[_Inert]:
        module = {"__builtin__": "builtins"}.get(module, module)
        origin = f"{module}.{name}"
        if module.partition(".")[0] in _RUNNERS or (
            module == "builtins" and name in _RUNNING_BUILTINS
        ):
            raise _RunsCodeError(origin)
        if origin not in self._classes:
            self._classes[origin] = type("_Inert", (_Inert,), {"origin": origin})
        return self._classes[origin]

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple):
            raise pickle.UnpicklingError(f"unknown persistent id {pid!r}")
        # Files before torch 1.6 name the classes of modules so, with their source.
        return pid[1] if pid[0] == "module" else _Storage(pid)

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"unregistered extension code {code}")


class _RunsCodeError(Exception):
    """The file names a function that runs programs or code."""


def read_inert(file: Path) -> Any:
    """Read a file of `torch.save`, of any version, without running what it names.

    Returns:
        The content: tensors, plain values, lists and dictionaries; everything else is `Unread`.

    Raises:
        WeightsError: The file names functions that run code.
        Any of `LOAD_ERRORS`, zipfile.BadZipFile: The file is damaged, or of another kind.
    """
    try:
        if is_zip(file):
            with zipfile.ZipFile(file) as archive:
                return _read_zip(archive)
        return _read_legacy(io.BytesIO(file.read_bytes()))
    except _RunsCodeError as error:
        raise WeightsError(
            f"{file} is refused: it is a pickle that calls {error} when opened, and may run any "
            "code: open it with no other program, and get the weights from elsewhere"
        ) from error


def is_zip(file: Path) -> bool:
    """Tell whether a file is of torch 1.6 or later, as torch does: by its first bytes."""
    with file.open("rb") as content:
        return content.read(4) == b"PK\x03\x04"


def _read_zip(archive: zipfile.ZipFile) -> Any:
    names = archive.namelist()
    record = next((name for name in names if name.endswith("data.pkl")), None)
    if record is None:
        raise pickle.UnpicklingError("no data.pkl")
    root = record.removesuffix("data.pkl")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise pickle.UnpicklingError("the bytes are in another order")

    def storage(key: str, dtype: torch.dtype) -> Tensor:
        return _from_bytes(archive.read(f"{root}data/{key}"), dtype)

    return _Interpreter(storage).value(_Unpickler(io.BytesIO(archive.read(record))).load())


def _read_legacy(stream: io.BytesIO) -> Any:
    """Read the format of torch before 1.6: pickles one after the other, then the storages."""
    if _Unpickler(stream).load() != _MAGIC:
        raise pickle.UnpicklingError("no file of torch.save")
    _protocol, _system = _Unpickler(stream).load(), _Unpickler(stream).load()
    content = _Unpickler(stream).load()
    keys = _Unpickler(stream).load()
    start = stream.tell()
    dtypes = _storage_dtypes(content)
    storages = {}
    for key in keys:
        (count,) = struct.unpack("<q", stream.read(8))
        size = count * dtypes[key].itemsize
        part = stream.read(size) if 0 <= size <= stream.getbuffer().nbytes - start else b""
        if len(part) != size:
            raise pickle.UnpicklingError("the file ends early")
        storages[key] = _from_bytes(part, dtypes[key])
    return _Interpreter(lambda key, _: storages[key]).value(content)


def _storage_dtypes(content: Any) -> dict[str, torch.dtype]:
    return {s[2]: _dtype(s[1]) for s in _walk(content) if isinstance(s, _Storage) and len(s) > 2}


def _from_bytes(content: bytes, dtype: torch.dtype) -> Tensor:
    if not content:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=dtype)


def _dtype(storage_class: Any) -> torch.dtype:
    name = getattr(storage_class, "origin", "").rpartition(".")[2]
    if name not in _DTYPES:
        raise pickle.UnpicklingError(f"unknown storage {name}")
    return _DTYPES[name]


def _walk(content: Any) -> list[Any]:
    """Return every part of a content once, in no particular order."""
    seen: dict[int, Any] = {}
    waiting = [content]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        if isinstance(part, _Inert):
            waiting += [part.args, part.items, part.values, part.state]
        elif isinstance(part, Mapping):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple | set | frozenset) and not isinstance(part, _Storage):
            waiting += part
    return list(seen.values())


class _Interpreter:
    """Turns stand-ins into the dictionaries and tensors that they stand for.

    Args:
        storage: Returns the values of a storage, by its key.
    """

    def __init__(self, storage: _StorageReader) -> None:
        self._storage = storage
        self._known: dict[int, Any] = {}
        self._flat: dict[str, Tensor] = {}

    def value(self, part: Any) -> Any:
        """Return a part of the content with its stand-ins replaced."""
        if isinstance(part, type):  # a class or function that is named only
            return Unread(str(getattr(part, "origin", "")), holds_tensors=False)
        if not isinstance(part, _Inert | dict | list | tuple | set | frozenset):
            return part
        if id(part) not in self._known:
            self._known[id(part)] = None  # what a content has inside itself is left out
            self._known[id(part)] = self._made(part)
        return self._known[id(part)]

    def _made(self, part: Any) -> Any:
        if isinstance(part, dict):
            return self._dictionary(part)
        if isinstance(part, _Inert):
            return self._object(part)
        if isinstance(part, _Storage):
            return Unread("torch.storage", holds_tensors=True)
        return [self.value(item) for item in part]

    def _dictionary(self, items: Mapping[Any, Any]) -> dict[Any, Any]:
        return {self._key(key): self.value(value) for key, value in items.items()}

    def _key(self, key: Any) -> Any:
        return self.value(key) if isinstance(key, _Inert | type) else key

    def _object(self, part: _Inert) -> Any:
        rebuild = _REBUILDS.get(part.origin)
        if rebuild is not None:
            return rebuild(self, *part.args)
        if part.origin in _DICTIONARIES and part.args:  # of Python 2: pairs as the argument
            return self._dictionary(dict(part.args[0]))
        if part.items or part.origin in _DICTIONARIES or part.origin == "collections.defaultdict":
            return self._dictionary(part.items)
        tensors = any(isinstance(inside, _Storage) for inside in _walk(part))
        return Unread(part.origin, holds_tensors=tensors)

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
        """Return a tensor on a part of a storage."""
        if not isinstance(storage, _Storage) or len(storage) < 5:
            raise pickle.UnpicklingError("a tensor without a storage")
        _, kind, key, _, _, *view = storage
        if key not in self._flat:
            self._flat[key] = self._storage(key, _dtype(kind))
        flat = self._flat[key]
        if view and view[0] is not None:
            _, start, length = view[0]
            flat = flat[start : start + length]
        size = size.args[0] if isinstance(size, _Inert) else size  # torch.Size
        return flat.as_strided(tuple(size), tuple(stride), flat.storage_offset() + offset)

    def parameter(self, data: Any, *_: Any) -> Any:
        """Return the tensor of a parameter."""
        return self.value(data)

    def subclass(self, rebuild: Any, _kind: Any, args: Any, _state: Any) -> Any:
        """Return the tensor inside a subclass of Tensor."""
        return self._object(rebuild(*args))


_REBUILDS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _Interpreter.tensor,
    "torch._utils._rebuild_tensor_v2": _Interpreter.tensor,
    "torch._utils._rebuild_parameter": _Interpreter.parameter,
    "torch._utils._rebuild_parameter_with_state": _Interpreter.parameter,
    "torch._tensor._rebuild_from_type_v2": _Interpreter.subclass,
}
"""What makes tensors, by name."""
