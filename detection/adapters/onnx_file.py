"""An ONNX file of a detector: how it is opened, what it declares, and what its metadata say."""

# onnxruntime is untyped: its objects are Any.
# ruff: noqa: ANN401

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from detection.classes import COCO_80, COCO_91, named_classes, names_beside
from rainmer.errors import WeightsError, first_sentence
from rainmer.extras import import_extra
from rainmer.files import file_sha256

__all__ = ["OnnxDetectorFile"]

_TYPES: dict[str, npt.DTypeLike] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}
_GRAPH_INPUTS = 2  # images, and with some exports the sizes of the frames


class OnnxDetectorFile:
    """A detector in an ONNX file, run by onnxruntime.

    Args:
        path: The file.
        device: Where it runs: on CUDA, if onnxruntime has its provider.
        needed_by: Its spec, for errors.

    Attributes:
        path, digest: The file, and its SHA-256.
        metadata: Its metadata, such as those of ultralytics' exports.
        batch: Number of frames that it takes; None: any.
        size_hw: (height, width) of its input; None where free.
        levels: Whether it takes uint8, 0..255, instead of floats.
        outputs: Name to declared shape, None where free.

    Raises:
        SpecError: onnxruntime is not installed.
        WeightsError: The file is missing, cannot be run, or takes no RGB images (B, 3, H, W).
    """

    def __init__(self, path: Path, device: torch.device, needed_by: str) -> None:
        if not path.is_file():
            raise WeightsError(f"no file {path}")
        runtime = import_extra("onnxruntime", "onnx", needed_by)
        wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        available = runtime.get_available_providers()
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = runtime.InferenceSession(
                str(path),
                options,
                providers=[p for p in [*wanted, "CPUExecutionProvider"] if p in available],
            )
        except Exception as error:
            raise WeightsError(
                f"{path} is not an ONNX file that can be run: {first_sentence(_plain(error))}"
            ) from error
        self.path, self.digest = path, file_sha256(path)
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        inputs = self._session.get_inputs()
        shape = [_side(side) for side in inputs[0].shape] if inputs else []
        if len(shape) != 4 or shape[1] != 3 or len(inputs) > _GRAPH_INPUTS:
            given = ", ".join(f"{item.name} {item.shape}" for item in inputs)
            raise WeightsError(
                f"{path} is no detector: expected an input of RGB images (B, 3, H, W), but it has "
                f"{given}"
            )
        if inputs[0].type not in _TYPES:
            raise WeightsError(f"{path} takes {inputs[0].type}: expected floats or uint8")
        self._input, self._type = inputs[0].name, _TYPES[inputs[0].type]
        self._sizes = inputs[1].name if len(inputs) == _GRAPH_INPUTS else None
        self.levels = self._type == np.uint8
        self.batch, self.size_hw = shape[0], (shape[2], shape[3])
        self.outputs = {
            item.name: tuple(map(_side, item.shape)) for item in self._session.get_outputs()
        }

    @property
    def takes_sizes(self) -> bool:
        """Whether it takes the sizes of the frames as a second input, and gives final boxes."""
        return self._sizes is not None

    def run(
        self, images: npt.NDArray[Any], target_hw: tuple[int, int]
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the network.

        Args:
            images: (B, 3, H, W); a fixed batch is filled up with the last one.
            target_hw: Of the frames in whose pixels boxes are wanted, where the file asks for it.

        Returns:
            The outputs by name, for the images given; floats as float32.

        Raises:
            WeightsError: onnxruntime fails.
        """
        count = len(images)
        if self.batch is not None and count < self.batch:
            images = np.concatenate([images, np.repeat(images[-1:], self.batch - count, axis=0)])
        feed = {self._input: np.ascontiguousarray(images, dtype=self._type)}
        if self._sizes is not None:
            feed[self._sizes] = np.tile(np.array(target_hw[::-1], np.int64), (len(images), 1))
        try:
            outputs = self._session.run(None, feed)
        except Exception as error:
            raise WeightsError(
                f"the detector {self.path} failed: {first_sentence(_plain(error))}"
            ) from error
        return {
            name: value[:count].astype(np.float32) if value.dtype.kind == "f" else value[:count]
            for name, value in zip(self.outputs, outputs, strict=True)
        }

    @property
    def is_rtdetr(self) -> bool | None:
        """Whether ultralytics exported an RT-DETR; None: the file does not tell its head."""
        head = self.metadata.get("head")
        return None if head is None else "RTDETR" in head

    def probe(self, size_hw: tuple[int, int]) -> None:
        """Run once on black of a size: `outputs` then has the sizes that the file leaves open."""
        found = self.run(np.zeros((1, 3, *size_hw), np.float32), size_hw)
        for name, value in found.items():
            self.outputs[name] = (self.outputs[name][:1] or (None,)) + value.shape[1:]

    def described(self, key: str) -> Any:
        """Return a value of the metadata: a Python literal or JSON, else text; None without it."""
        text = self.metadata.get(key)
        if text is None:
            return None
        for read in (ast.literal_eval, json.loads):
            try:
                return read(text)
            except (ValueError, SyntaxError):
                continue
        return text

    def named(self) -> dict[int, str] | None:
        """Return the classes of the metadata, or of a `config.json` beside the file; else None."""
        found = self.described("names")
        config = self.path.with_name("config.json")
        if found is None and config.is_file():
            try:
                found = json.loads(config.read_text(encoding="utf-8")).get("id2label")
            except (OSError, ValueError, AttributeError) as error:
                raise WeightsError(f"cannot read {config}: {error}") from error
        if isinstance(found, dict | list | tuple) and found:
            pairs = found.items() if isinstance(found, dict) else enumerate(found)
            return {int(label): str(name) for label, name in pairs}
        return None

    def classes(self, count: int) -> dict[int, str]:
        """Return the names of a number of classes: by `FILE.names`, the metadata, or as COCO's.

        Raises:
            WeightsError: They are named nowhere, or the number of names does not fit.
        """
        listed = names_beside(self.path, count)
        if listed is not None:
            return listed
        named = self.named()
        if named is not None:
            if max(named) >= count:
                raise WeightsError(
                    f"{self.path}: its metadata name {len(named)} classes, but its outputs have "
                    f"{count}"
                )
            return named_classes(named)
        if count == len(COCO_80):
            return dict(enumerate(COCO_80))
        if count == max(COCO_91) + 1:
            return dict(COCO_91)
        raise WeightsError(
            f"{self.path} does not name its {count} classes: list them, one a line, in "
            f"{self.path}.names"
        )


def _side(side: Any) -> int | None:
    """Return a declared size; None where it is free: then it has a name, or no valid value."""
    return side if isinstance(side, int) and side > 0 else None


def _plain(error: Exception) -> str:
    """Return what onnxruntime says, in one line and without its code."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    return " ".join(text.split())
