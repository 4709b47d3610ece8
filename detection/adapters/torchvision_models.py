"""Detectors of torchvision (BSD-3-Clause): Faster R-CNN, RetinaNet, FCOS, SSD and their kin."""

# torchvision is untyped here: its objects are Any.
# ruff: noqa: ANN401

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detection.adapters.base import AdaptedDetector, Found, Settings, size_of
from detection.classes import named_classes, names_beside
from detection.names import detector_name
from detection.types import Detections
from rainmer.errors import SpecError, WeightsError, first_line
from rainmer.files import file_sha256
from rainmer.frames.arrays import Frame
from rainmer.models.weights import load_state_dict_file

__all__ = ["TorchvisionDetector", "load_torchvision"]

_EPS_ZERO = frozenset(
    {
        "fasterrcnn_resnet50_fpn",
        "keypointrcnn_resnet50_fpn",
        "maskrcnn_resnet50_fpn",
        "retinanet_resnet50_fpn",
    }
)
"""Models whose first published weights torchvision runs with batch norms without epsilon."""

_UNUSED = "num_batches_tracked"  # of batch norms: only training reads it


def load_torchvision(kind: str, rest: str, settings: Settings) -> TorchvisionDetector:
    """Load a detector by what follows `torchvision:`, MODEL:FILE or MODEL.

    Raises:
        SpecError: torchvision is not installed, or has no such model.
        WeightsError: The file is missing, unsafe, or holds weights of another model.
    """
    del kind
    model, _, file = rest.partition(":")
    known = _known_models()
    if model not in known:
        near = difflib.get_close_matches(model, known, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise SpecError(
            f"torchvision has no detector {model!r}: {meant}it has {', '.join(sorted(known))}"
        )
    path = Path(file) if file else _published(model, known[model], settings.allow_download)
    return TorchvisionDetector(model, path, settings)


class TorchvisionDetector(AdaptedDetector):
    """A detector of torchvision, with the preprocessing and the NMS of its library.

    torchvision resizes floats. `__call__` does so too; `fit`, which gives frames that can be
    derained, rounds to 8 bits.

    Args:
        model: Its name in `torchvision.models.detection`.
        path: Its weights: safetensors, or a file of `torch.save`, from which no code is run. Names
            of classes stand in `PATH.names`, or are COCO's.
        settings: How it runs.

    Raises:
        SpecError: The option `imgsz` does not fit.
        WeightsError: See `load_torchvision`.
    """

    def __init__(self, model: str, path: Path, settings: Settings) -> None:
        source = f"torchvision:{model}:{path}"
        state = _read(path)
        known = _known_models()[model]
        categories = _categories(known)
        count = _class_count(model, state, len(categories), path)
        names = names_beside(path, count)
        if names is None and count == len(categories):
            names = named_classes(categories)
        if names is None:
            raise WeightsError(
                f"{path} has {count} classes (the background is one), not the {len(categories)} of "
                f"COCO: list their names, one a line, in {path}.names"
            )
        self._network = _build(model, count).eval().requires_grad_(False)
        _fill(self._network, state, path)
        if model in _EPS_ZERO and _is_first_published(known, path):
            for module in self._network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eps = 0.0
        _configure(self._network, settings, source)
        self._network.to(settings.device)
        self._transform = self._network.transform
        self._resize = self._transform.resize
        self._transform.resize = lambda image, target=None: (image, target)  # done by then
        self._network.backbone.register_forward_hook(self._look)
        super().__init__(
            detector_name(f"torchvision:{model}:{path}"),
            names,
            source=source,
            parts=["torchvision", model, file_sha256(path), names],
            settings=settings,
        )

    @property
    def input_words(self) -> str:
        """The size of the input, for reports."""
        fixed = self._transform.fixed_size
        if fixed is not None:
            return f"{fixed[0]}x{fixed[1]} px"
        if self.imgsz is not None:
            return f"longer side {self.imgsz} px"
        sides = self._transform.min_size[-1], self._transform.max_size
        return f"shorter side {sides[0]} px, longer side at most {sides[1]} px"

    @property
    def suppression(self) -> str:
        """What drops boxes that overlap, for reports."""
        head = getattr(self._network, "roi_heads", self._network)
        return f"torchvision's, by class, IoU {head.nms_thresh}"

    def input_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size of a resized frame."""
        resized, _ = self._resize(torch.empty(1, *size_hw, device="meta"))
        return resized.shape[-2], resized.shape[-1]

    def fit(self, frames: Sequence[Frame], input_hw: tuple[int, int]) -> list[Frame]:
        """Resize frames as torchvision does, rounded to 8 bits."""
        return [
            image.mul(255).round_().clamp_(0, 255).byte().permute(1, 2, 0).cpu().numpy()
            for image in self._images(frames)
        ]

    def _find(self, fitted: Sequence[Frame], input_hw: tuple[int, int]) -> list[Found]:
        return self._run([self._image(frame) for frame in fitted])

    def _detect(self, frames: Sequence[Frame], input_hw: tuple[int, int]) -> list[Detections]:
        images = self._images(frames)
        return [
            self._kept(found, (image.shape[-2], image.shape[-1]), size_of(frame))
            for found, image, frame in zip(self._run(images), images, frames, strict=True)
        ]

    def _image(self, frame: Frame) -> Tensor:
        pixels = torch.from_numpy(frame).to(self.device)
        return pixels.permute(2, 0, 1).contiguous().float().div_(255)

    def _images(self, frames: Sequence[Frame]) -> list[Tensor]:
        return [self._resize(self._image(frame))[0] for frame in frames]

    @torch.inference_mode()
    def _run(self, images: list[Tensor]) -> list[Found]:
        outputs = self._network(images)
        return [Found(out["boxes"], out["scores"], out["labels"]) for out in outputs]

    def _look(self, module: object, inputs: object, features: Any) -> None:
        """Check the features: torchvision drops boxes that are not finite, and all would be."""
        for value in features.values() if isinstance(features, Mapping) else [features]:
            self._check_finite(value)


def _known_models() -> dict[str, Any]:
    """Return torchvision's detectors and the enums of their published weights."""
    try:
        from torchvision.models import detection, get_model_weights, list_models
    except ImportError as error:
        raise SpecError(
            "torchvision:MODEL needs the package torchvision: pip install torchvision"
        ) from error
    return {name: get_model_weights(name) for name in list_models(module=detection)}


def _categories(known: Any) -> list[str]:
    return list(known.DEFAULT.meta["categories"])


def _published(model: str, known: Any, allow_download: bool) -> Path:
    """Return the file of torchvision's own weights in torch's cache, fetched if that is allowed."""
    url = known.DEFAULT.url
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if path.is_file():
        return path
    if not allow_download:
        raise WeightsError(
            f"torchvision:{model} needs its weights, torchvision:{model}:FILE; torchvision's own "
            "are only fetched with --allow-download"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), _hash_in(path), progress=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"cannot fetch the weights of {model}: {first_line(error)}") from error
    return path


def _hash_in(path: Path) -> str:
    """Return the beginning of the SHA-256 that torch writes into names: `model-HASH.pth`."""
    return path.stem.rpartition("-")[2]


def _is_first_published(known: Any, path: Path) -> bool:
    return file_sha256(path).startswith(_hash_in(Path(known.COCO_V1.url)))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        state = load_state_dict_file(path)
    except WeightsError as error:
        if "give it as --detector" in str(error):
            raise WeightsError(
                f"{path} is a checkpoint of ultralytics: give its path alone"
            ) from error
        raise
    broken = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise WeightsError(f"{path} holds numbers that are not finite (NaN), in {broken[0]}")
    return {key: value for key, value in state.items() if not key.endswith(_UNUSED)}


def _build(model: str, count: int) -> Any:
    from torchvision.models import get_model

    return get_model(model, weights=None, weights_backbone=None, num_classes=count)


def _shapes(network: Any) -> dict[str, tuple[int, ...]]:
    return {
        key: tuple(value.shape)
        for key, value in network.state_dict().items()
        if not key.endswith(_UNUSED)
    }


def _class_count(model: str, state: Mapping[str, Tensor], usual: int, path: Path) -> int:
    """Return the number of classes, the background included, that the shapes of weights tell.

    Raises:
        WeightsError: The weights are those of another model.
    """
    with torch.device("meta"):
        wanted = _shapes(_build(model, usual))
    odd = sorted(wanted.keys() ^ state.keys())
    if odd:
        raise WeightsError(
            f"{path} holds weights of another model than {model}: {len(odd)} tensors differ, "
            f"such as {odd[0]}"
        )
    counts = set()
    for key, shape in wanted.items():
        given = tuple(state[key].shape)
        if given == shape:
            continue
        # The outputs of a head are as many as classes, or times the anchors or the box's sides.
        each = shape[0] // usual if shape and shape[0] % usual == 0 else 0
        if not each or given[1:] != shape[1:] or given[0] % each:
            raise WeightsError(
                f"{path} holds weights of another model than {model}: {key} has the shape {given}, "
                f"not {shape}"
            )
        counts.add(given[0] // each)
    return max(counts, default=usual)


def _fill(network: Any, state: Mapping[str, Tensor], path: Path) -> None:
    """Load the weights. Raises WeightsError if some are for other classes than the rest."""
    for key, shape in _shapes(network).items():
        if shape != tuple(state[key].shape):
            raise WeightsError(
                f"{path} holds tensors for different numbers of classes: {key} has the shape "
                f"{tuple(state[key].shape)}, not {shape}"
            )
    tracked = {key: value for key, value in network.state_dict().items() if key.endswith(_UNUSED)}
    network.load_state_dict({**tracked, **state})


def _configure(network: Any, settings: Settings, source: str) -> None:
    """Set thresholds and the input size; the NMS stays torchvision's unless asked otherwise."""
    head = getattr(network, "roi_heads", network)
    head.score_thresh = settings.conf
    head.detections_per_img = settings.max_det
    if settings.iou is not None:
        head.nms_thresh = settings.iou
    fixed = network.transform.fixed_size
    if settings.imgsz is None or (fixed is not None and settings.imgsz in fixed):
        return
    if fixed is not None:
        raise SpecError(
            f"{source} takes frames of {fixed[0]}x{fixed[1]} only: leave out --imgsz "
            f"{settings.imgsz}"
        )
    network.transform.min_size = (settings.imgsz,)
    network.transform.max_size = settings.imgsz
