"""Detectors of transformers (Apache-2.0): RT-DETR, D-FINE, DETR, YOLOS and their kin."""

# transformers is untyped here: its objects are Any.
# ruff: noqa: ANN401

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detection.adapters.base import AdaptedDetector, Found, Settings
from detection.classes import COCO_80, COCO_91, named_classes
from detection.names import detector_name
from rainmer.errors import RainmerError, SpecError, WeightsError, first_sentence
from rainmer.extras import import_extra
from rainmer.files import file_sha256
from rainmer.folders import list_files
from rainmer.frames.arrays import Frame

__all__ = ["TransformersDetector", "load_hf"]

_HUB = "hub:"


def load_hf(kind: str, rest: str, settings: Settings) -> TransformersDetector:
    """Load a detector by what follows `hf:`, a local folder, or `hub:ORG/NAME` to be fetched.

    Raises:
        SpecError: transformers, or a package that the network needs, is not installed.
        WeightsError: The folder is missing, holds no detector, or only pickled weights.
    """
    del kind
    transformers = import_extra("transformers", "transformers", f"hf:{rest}")
    folder = Path(rest)
    if rest.startswith(_HUB):
        folder = _fetched(rest.removeprefix(_HUB), settings.allow_download)
    elif not folder.is_dir():
        raise WeightsError(
            f"no folder {rest} with a detector of transformers; one that is published is fetched "
            "as hf:hub:ORG/NAME with --allow-download"
        )
    _check_files(folder)
    return TransformersDetector(transformers, folder, settings, f"hf:{rest}")


class TransformersDetector(AdaptedDetector):
    """A detector of transformers with the processor in its folder, as its pipeline runs both.

    Args:
        transformers: The package.
        folder: `config.json`, `preprocessor_config.json` and safetensors.
        settings: How it runs; `iou` means nothing, as these networks suppress nothing.
        source: Its spec, for errors.

    Raises:
        SpecError, WeightsError: See `load_hf`.
    """

    def __init__(self, transformers: Any, folder: Path, settings: Settings, source: str) -> None:
        with _quiet(transformers), _clear_errors(folder):
            self._processor = transformers.AutoImageProcessor.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
            network, loaded = transformers.AutoModelForObjectDetection.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # they are told below
                output_loading_info=True,
            )
        for what in ("mismatched_keys", "missing_keys"):
            odd = sorted(map(str, loaded[what]))
            if odd:
                raise WeightsError(
                    f"{folder}: the weights are not those of its config.json: {len(odd)} "
                    f"{what.replace('_', ' ')}, such as {odd[0]}"
                )
        if not hasattr(self._processor, "post_process_object_detection"):
            raise WeightsError(
                f"{folder}: its {type(self._processor).__name__} makes no boxes of outputs"
            )
        self._network = network.eval().requires_grad_(False).to(settings.device)
        self._resize: dict[str, Any] = {}
        if settings.imgsz is not None:
            self._resize = {"size": _size(self._processor, settings.imgsz)}
        self._input_hw = functools.cache(self._measured_hw)
        super().__init__(
            detector_name(f"hf:{folder}"),
            _classes(network.config.id2label, folder),
            source=source,
            parts=["hf", *(file_sha256(path) for path in _files(folder))],
            settings=settings,
        )

    def input_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size of a resized frame."""
        return self._input_hw(size_hw)

    @property
    def input_words(self) -> str:
        """The size of the input, for reports."""
        size = self._resize.get("size") or dict(self._processor.size)
        return ", ".join(f"{key.replace('_', ' ')} {value} px" for key, value in size.items())

    def fit(self, frames: Sequence[Frame], input_hw: tuple[int, int]) -> list[Frame]:
        """Resize frames as the processor does, which gives 8 bits."""
        images = self._processor(
            images=list(frames),
            do_rescale=False,
            do_normalize=False,
            do_pad=False,
            return_tensors="pt",
            **self._resize,
        )["pixel_values"]
        return [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images]

    @torch.inference_mode()
    def _find(self, fitted: Sequence[Frame], input_hw: tuple[int, int]) -> list[Found]:
        inputs = self._processor(images=list(fitted), do_resize=False, return_tensors="pt")
        outputs = self._network(**inputs.to(self.device))
        self._check_finite(outputs.logits, outputs.pred_boxes)
        found = self._processor.post_process_object_detection(
            outputs, threshold=0.0, target_sizes=[input_hw] * len(fitted)
        )
        return [Found(one["boxes"], one["scores"], one["labels"]) for one in found]

    def _measured_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        (fitted,) = self.fit([np.zeros((*size_hw, 3), np.uint8)], (0, 0))
        return fitted.shape[0], fitted.shape[1]


def _size(processor: Any, imgsz: int) -> dict[str, int]:
    """Return the processor's option `size` for an input whose longer side is `imgsz`."""
    if "longest_edge" in processor.size:
        return {"shortest_edge": imgsz, "longest_edge": imgsz}
    return {"height": imgsz, "width": imgsz}


def _classes(id2label: dict[int, str], folder: Path) -> dict[int, str]:
    """Return the classes by label; without names of their own, those of COCO."""
    names = {int(label): str(name) for label, name in id2label.items()}
    if any(name != f"LABEL_{label}" for label, name in names.items()):
        return named_classes(names)
    if len(names) == 91:
        return dict(COCO_91)
    if len(names) == 80:
        return dict(enumerate(COCO_80))
    raise WeightsError(
        f"{folder}/config.json does not name its {len(names)} classes: give it an id2label"
    )


def _files(folder: Path) -> list[Path]:
    return [f for f in list_files(folder, {".json", ".safetensors"}) if f.parent == folder]


def _check_files(folder: Path) -> None:
    """Refuse a folder that lacks a file, before transformers looks for it on the network."""
    names = {path.name for path in _files(folder)}
    for needed in ("config.json", "preprocessor_config.json"):
        if needed not in names:
            raise WeightsError(f"{folder} holds no detector of transformers: it has no {needed}")
    if not any(name.endswith(".safetensors") for name in names):
        pickled = list_files(folder, {".bin", ".pt", ".pth"})
        hint = (
            f"{pickled[0].name} is a pickle, which runs code when it is loaded: save the network "
            "with save_pretrained(..., safe_serialization=True)"
            if pickled
            else "it has no model.safetensors"
        )
        raise WeightsError(f"{folder} holds no weights that are safe to load: {hint}")


def _fetched(name: str, allow_download: bool) -> Path:
    """Return the folder of a published detector in the cache of the hub's own client."""
    hub = import_extra("huggingface_hub", "transformers", f"hf:hub:{name}")
    patterns = ["*.json", "*.safetensors"]
    try:
        folder = hub.snapshot_download(
            name, allow_patterns=patterns, local_files_only=not allow_download
        )
    except Exception as error:
        if not allow_download:
            raise WeightsError(
                f"hf:hub:{name} is not in the cache; it is only fetched with --allow-download"
            ) from error
        raise WeightsError(f"cannot fetch {name}: {first_sentence(str(error))}") from error
    return Path(folder)


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep transformers from printing tables and bars while it loads."""
    logging = transformers.utils.logging
    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _clear_errors(folder: Path) -> Iterator[None]:
    """Turn what transformers raises about an unusable folder into one line."""
    try:
        yield
    except RainmerError:
        raise
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise SpecError(f"{folder} needs a package that is missing: {reason}") from error
    except Exception as error:
        text = str(error)
        if "Unrecognized configuration class" in text:
            text = "its config.json is that of a network that is no detector"
        reason = first_sentence(text) or type(error).__name__
        raise WeightsError(f"cannot load the detector in {folder}: {reason}") from error
