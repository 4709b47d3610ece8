"""Perceptual and no-reference metrics, computed by the optional package piq (Apache-2.0).

This module lists them and fetches their weights: only on request, and only files that can be loaded
without running code.
"""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from eval.restore.scores import Measure
from rainmer.errors import LOAD_ERRORS, RainmerError, WeightsError
from rainmer.extras import import_extra
from rainmer.files import file_sha256, make_folder
from rainmer.frames.arrays import unit_range, upload

__all__ = ["EXTRA", "METRICS", "ExtraMetrics", "Metric", "load_metrics"]

EXTRA = "metrics"
"""The extra of this package that installs piq."""

_log = logging.getLogger(__name__)
_RELEASES = "https://github.com/photosynthesis-team/piq/releases/download"
_VGG = "https://download.pytorch.org/models/vgg16-397923af.pth"


@dataclass(frozen=True, kw_only=True)
class Metric(Measure):
    """A metric of piq.

    Attributes:
        about: Its source and what it measures, for the report.
        build: Takes the package and returns a function of one or two images (1, 3, H, W), 0..1.
        needs_clean: Whether it compares an image with the clean one.
        least_side: Shortest side in pixels; smaller images have no score.
        weights: URLs of the files that piq loads for it.
    """

    about: str
    build: Callable[[Any], Callable[..., Any]]
    needs_clean: bool = True
    least_side: int = 16
    weights: tuple[str, ...] = ()


METRICS: Mapping[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric(
            key="lpips",
            title="LPIPS",
            lower_is_better=True,
            about="Zhang et al., CVPR 2018: distance of VGG16 features, weighted as people judge",
            build=lambda piq: piq.LPIPS(),
            # piq looks for the files under these names in torch's cache folder.
            weights=(f"{_RELEASES}/v0.4.0/lpips_weights.pt", _VGG),
        ),
        Metric(
            key="dists",
            title="DISTS",
            lower_is_better=True,
            about="Ding et al., 2020: distance of structure and texture of VGG16 features",
            build=lambda piq: piq.DISTS(),
            weights=(f"{_RELEASES}/v0.4.1/dists_weights.pt", _VGG),
        ),
        Metric(
            key="vif",
            title="VIF",
            about="Sheikh and Bovik, 2006: visual information left, on pixels of the luma",
            build=lambda piq: piq.vif_p,
            least_side=41,
        ),
        Metric(
            key="fsim",
            title="FSIM",
            about="Zhang et al., 2011: phase congruency and gradients, with colour (FSIMc)",
            build=lambda piq: piq.fsim,
        ),
        Metric(
            key="gmsd",
            title="GMSD",
            lower_is_better=True,
            about="Xue et al., 2013: deviation of gradient similarity, on the luma",
            build=lambda piq: piq.gmsd,
        ),
        Metric(
            key="brisque",
            title="BRISQUE",
            digits=2,
            lower_is_better=True,
            about="Mittal et al., 2012: how unnatural the statistics of the image are; needs no "
            "clean image, and says nothing about what was in the scene",
            build=lambda piq: piq.brisque,
            needs_clean=False,
            weights=(f"{_RELEASES}/v0.4.0/brisque_svm_weights.pt",),
        ),
    )
}
"""All metrics by name, as in metrics.json."""


class ExtraMetrics:
    """Metrics with their weights loaded; see `load_metrics`.

    Attributes:
        metrics: The metrics.
        digests: SHA-256 of the weights files, by file name.
        version: Version of piq.
    """

    def __init__(
        self, metrics: Sequence[Metric], piq: ModuleType, digests: Mapping[str, str]
    ) -> None:
        self.metrics = tuple(metrics)
        self.digests = dict(digests)
        self.version = str(piq.__version__)
        with warnings.catch_warnings():
            # piq 0.8 uses a deprecated torchvision interface.
            warnings.simplefilter("ignore", UserWarning)
            self._measures = {metric.key: metric.build(piq) for metric in metrics}

    @property
    def fingerprint(self) -> list[object]:
        """Everything that scores depend on, as plain data."""
        return [sorted(self._measures), self.version, sorted(self.digests.items())]

    @torch.no_grad()
    def __call__(
        self,
        restored: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
        clean: npt.NDArray[np.uint8] | None,
        device: torch.device,
    ) -> dict[str, float]:
        """Measure one image.

        Args:
            restored: (H, W, 3), RGB, uint8 of 0..255 or float32 of 0..1.
            clean: (H, W, 3), RGB, uint8; None leaves out metrics that need it.
            device: Where scores are computed.

        Returns:
            Scores by name. Images that are too small lack scores; constant and striped images have
            no BRISQUE.
        """
        images = [
            unit_range(upload([image], device)) for image in (restored, clean) if image is not None
        ]
        scores = {}
        for metric in self.metrics:
            if min(restored.shape[:2]) < metric.least_side:
                continue
            if not metric.needs_clean:
                value = _without_reference(self._measures[metric.key], images[0])
            elif clean is not None:
                value = float(self._measures[metric.key](*images))
            else:
                continue
            if math.isfinite(value):
                scores[metric.key] = value
        return scores


def _without_reference(measure: Callable[..., Any], image: Tensor) -> float:
    """Return a no-reference score; NaN where an image lacks the statistics it is based on."""
    if image.min() == image.max():
        return math.nan
    try:
        return float(measure(image))
    except AssertionError:  # raised by piq for stripes, for example
        return math.nan


def load_metrics(
    names: Sequence[str], *, allow_download: bool = False, progress: bool = False
) -> ExtraMetrics:
    """Load metrics and their weights, before anything is measured.

    piq itself downloads missing files without asking, and unpickles them. Therefore files are
    fetched here, only if allowed, and each must load with `weights_only=True`, which shows that it
    runs no code when piq loads it.

    Args:
        names: Names in `METRICS`.
        allow_download: Whether missing weights may be fetched.
        progress: Whether downloads show a bar.

    Raises:
        RainmerError: piq is not installed, or weights are missing and may not be fetched.
        WeightsError: A file cannot be fetched, or holds more than data.
    """
    metrics = [METRICS[name] for name in dict.fromkeys(names)]
    piq = import_extra("piq", EXTRA, "--metrics")
    addresses = dict.fromkeys(address for metric in metrics for address in metric.weights)
    missing = [address for address in addresses if not _place(address).is_file()]
    if missing and not allow_download:
        needing = [metric.key for metric in metrics if set(metric.weights) & set(missing)]
        raise RainmerError(
            f"--metrics {' '.join(needing)}: weights are missing in {_place(missing[0]).parent}; "
            f"put them there or say --allow-download: {', '.join(missing)}"
        )
    for address in missing:
        _fetch(address, progress=progress)
    for address in addresses:
        _check_is_data(_place(address))
    digests = {_place(address).name: file_sha256(_place(address)) for address in addresses}
    return ExtraMetrics(metrics, piq, digests)


def _place(address: str) -> Path:
    """Return the path where torch, and thus piq, keeps the file of a URL."""
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(address).path).name)


def _fetch(address: str, *, progress: bool) -> None:
    """Download a file; if its name holds a prefix of its SHA-256, check that."""
    place = _place(address)
    make_folder(place.parent)
    digest = re.search(r"-([0-9a-f]{8,})\.\w+$", place.name)
    _log.info("fetching %s", address)
    try:
        torch.hub.download_url_to_file(
            address, str(place), hash_prefix=digest[1] if digest else None, progress=progress
        )
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"cannot fetch {address}: {error}") from error


def _check_is_data(file: Path) -> None:
    """Raise WeightsError for a file that would run code when loaded."""
    try:
        torch.load(file, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        raise WeightsError(
            f"{file} is damaged, or no weights alone (it might run code when loaded): remove it"
        ) from error
