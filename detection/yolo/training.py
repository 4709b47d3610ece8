"""Training runs of ultralytics for a command: checked, resumed, and offline unless allowed."""

# ultralytics is untyped: its objects and options are Any.
# ruff: noqa: ANN401

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ultralytics.cfg import DEFAULT_CFG_DICT, get_cfg, parse_key_value_pair
from ultralytics.data import utils as data_utils
from ultralytics.utils import checks, downloads

from detection.yolo.adapter import load_yolo, no_automatic_installs
from detection.yolo.augment import RainTrainer
from rainmer.config import nearest, read_yaml
from rainmer.errors import ConfigError, DatasetError, RainmerError, WeightsError, is_out_of_memory
from rainmer.files import make_folder, write_text

__all__ = ["parse_arguments", "train_on_rain"]

_OWN = {
    "data": "give --data",
    "model": "give --model",
    "name": "give --out",
    "project": "give --out",
    "save_dir": "give --out",
    "exist_ok": "give --out",
    "resume": "the same command resumes",
    "mode": "this trains",
    "task": "the model has one",
}
"""Arguments of ultralytics that the command itself sets, and what to do instead."""

_RECORD = "rain.yaml"


def parse_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Parse training arguments `key=value` as ultralytics does.

    Raises:
        ConfigError: One is unknown (the message has the nearest), of a wrong type or out of range,
            or is set by the command itself.
    """
    arguments = {}
    for text in texts:
        try:
            key, value = parse_key_value_pair(text)
        except (AssertionError, ValueError) as error:
            raise ConfigError(f"{text!r} is no training argument: write key=value") from error
        if key in _OWN:
            raise ConfigError(f"{key}= is no argument here: {_OWN[key]}")
        if key not in DEFAULT_CFG_DICT:
            hint = nearest(key, DEFAULT_CFG_DICT).partition("?")[0]
            hint = f": {hint}?" if hint.startswith("did") else "; see its train settings"
            raise ConfigError(f"ultralytics has no argument {key!r}{hint}")
        arguments[key] = value
    try:
        get_cfg(DEFAULT_CFG_DICT, arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(_one_line(error)) from error
    return arguments


def train_on_rain(
    weights: str,
    data: str,
    rain: Mapping[str, float],
    out: Path,
    arguments: Mapping[str, Any],
    *,
    rain_val: bool = False,
    allow_download: bool = False,
) -> Path:
    """Train a detector with rain on its images; an interrupted run resumes, a finished one stays.

    Args:
        weights: See `load_yolo`; not an export.
        data: The YAML of a data set of ultralytics.
        rain: See `detection.yolo.RainTrainer.bind`.
        out: The run's folder, laid out by ultralytics.
        arguments: Those of ultralytics' training, see `parse_arguments`.
        rain_val: Whether validation images get rain too.
        allow_download: Whether ultralytics may fetch what is missing: weights, data, fonts.

    Returns:
        The file with the best weights.

    Raises:
        RainmerError: Weights or data are missing or cannot be trained with, or the folder holds a
            run with other options.
    """
    last = out / "weights" / "last.pt"
    record = {
        "model": weights,
        "data": data,
        "rain": dict(rain),
        "rain_val": rain_val,
        "arguments": dict(arguments),
    }
    begun = last.is_file()
    with no_automatic_installs(), contextlib.nullcontext() if allow_download else _offline():
        _check_data(data, allow_download=allow_download)
        if begun:
            _compare(out / _RECORD, record)
        yolo = load_yolo(last if begun else weights, allow_download=allow_download)
        if not str(yolo.model_name).endswith(".pt"):
            raise WeightsError(f"{weights} is an export, which cannot be trained: use its .pt file")
        trainer = RainTrainer.bind(rain, yolo.task, rain_val=rain_val)
        write_text(make_folder(out) / _RECORD, yaml.safe_dump(record, sort_keys=False))
        if not begun or yolo.ckpt.get("epoch", -1) >= 0:  # ultralytics sets -1 at the end of a run
            with _clear_errors(data):
                yolo.train(trainer=trainer, data=data, save_dir=str(out), resume=begun, **arguments)
    best = last.with_name("best.pt")
    return best if best.is_file() else last


def _compare(path: Path, record: Mapping[str, Any]) -> None:
    """Check that a run to be resumed was started with the same options.

    Raises:
        ConfigError: It was not, or not by this command.
    """
    before = read_yaml(path) if path.is_file() else {}
    changed = [key for key in record if before.get(key) != record[key]]
    if changed:
        raise ConfigError(
            f"{path.parent} holds a run with other options ({', '.join(changed)}): choose another "
            "--out"
        )


def _check_data(data: str, *, allow_download: bool) -> None:
    """Read the YAML of a data set as ultralytics does, and look for its training images.

    Raises:
        DatasetError: It is missing or wrong, or its images are not there.
        ConfigError: It is no YAML.
    """
    if Path(data).is_file() and data.endswith((".yaml", ".yml")):
        read_yaml(data)
    try:
        content = data_utils.check_det_dataset(data, autodownload=allow_download)
    except (OSError, SyntaxError, TypeError, ValueError, AttributeError, KeyError) as error:
        if isinstance(error, RainmerError):
            raise
        raise DatasetError(f"cannot train on {data}: {_one_line(error)}") from error
    train = content.get("train") or []
    folders = [train] if isinstance(train, str) else train
    missing = [folder for folder in folders if not Path(folder).exists()]
    if missing or not folders:
        what = f"no folder or list {missing[0]}" if missing else "there is none"
        raise DatasetError(f"cannot train on {data}: train: {what}")


@contextlib.contextmanager
def _clear_errors(data: str) -> Iterator[None]:
    """Turn what ultralytics raises about data and options into one line."""
    try:
        yield
    except RainmerError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"cannot train on {data}: {_one_line(error)}") from error
    except (NotImplementedError, ValueError) as error:  # of devices and optimisers
        raise ConfigError(f"cannot train: {_one_line(error)}") from error
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise RainmerError("out of memory: train with a smaller batch= or imgsz=") from error
        if not str(error).startswith("No valid images"):
            raise
        raise DatasetError(f"cannot train on {data}: {_one_line(error)}") from error


class _OfflineError(RainmerError, ConnectionError):
    """A download that is not allowed; a ConnectionError lets ultralytics do without."""


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Keep ultralytics from downloading data, weights and fonts inside the block."""
    download, is_url = downloads.safe_download, downloads.is_url

    def refuse(url: Any, *args: Any, **kwargs: Any) -> Any:
        if "://" not in str(url):  # an archive on disk
            return download(url, *args, **kwargs)
        raise _OfflineError(f"{url} is only fetched with --allow-download")

    changes = (
        (downloads, "safe_download", refuse),
        (data_utils, "safe_download", refuse),
        (downloads, "is_url", lambda url, check=False: not check and is_url(url)),
        (checks, "ONLINE", False),
    )
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    try:
        for module, name, value in changes:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _one_line(error: Exception) -> str:
    """Return what went wrong, without signs beyond ASCII and without advice on other commands."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).encode("ascii", "ignore").decode()
    lines = [" ".join(line.split()).rstrip(" .") for line in plain.splitlines()]
    told = [line for line in lines if line and not line.startswith(("See ", "Note "))]
    return "; ".join(told) or type(error).__name__
