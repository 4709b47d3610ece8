"""From image files to the unit vectors that prompt a Rainmer network's decoder."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rainmer.background import ordered_map
from rainmer.device import usable_cpus
from rainmer.errors import ImageError, SpecError, WeightsError
from rainmer.frames.arrays import to_batch
from rainmer.frames.images import read_image
from rainmer.models import Network, Rainmer
from rainmer.stage.restorers import make_query

__all__ = ["Embedded", "embed_images", "views_of"]

_MOST_THREADS = 4
_CHUNKS_AHEAD = 2

_Loaded = tuple[Path, Tensor | ImageError]


class Embedded(NamedTuple):
    """Images as vectors.

    Attributes:
        paths: The N images that could be read, in the order given.
        vectors: Unit vectors (N, P, C), float32, on the CPU; P is the number of views.
        failures: One line for each image that could not be read.
    """

    paths: list[Path]
    vectors: Tensor
    failures: list[str]


def views_of(network: Network) -> tuple[str, ...]:
    """Return the names of a network's views, in the order of its vectors.

    Raises:
        SpecError: The network has no views.
    """
    if not isinstance(network, Rainmer):
        raise SpecError(f"{network.name} has no views to embed images by: give a Rainmer network")
    if not network.config.prompt_views:
        raise SpecError(
            "this Rainmer network was built without views (views: []): give one with the "
            "chromatic or the degradation view"
        )
    return network.config.prompt_views


@torch.inference_mode()
def embed_images(
    network: Rainmer,
    paths: Sequence[Path],
    *,
    batch: int = 32,
    on_progress: Callable[[int], object] = lambda count: None,
) -> Embedded:
    """Embed images by the query path of the network's evaluation protocol.

    Each whole image is resized to 128x128 on 8-bit levels, bilinear as in OpenCV. The encoder runs
    on the network's device, while a few threads read files.

    Args:
        network: A network with views, in eval mode.
        paths: Image files, each once.
        batch: Images per call.
        on_progress: Called with the number of images just embedded.

    Raises:
        WeightsError: The vectors are not finite: the weights are damaged.
    """
    views = views_of(network)
    device = next(network.parameters()).device
    read: list[Path] = []
    failures: list[str] = []
    vectors = [torch.empty(0, len(views), network.config.base_dim)]
    for chunk in _load(paths, batch):
        queries = [content for _, content in chunk if isinstance(content, Tensor)]
        read += [path for path, content in chunk if isinstance(content, Tensor)]
        failures += [str(content) for _, content in chunk if isinstance(content, ImageError)]
        if queries:
            vectors.append(network.prompts(torch.cat(queries).to(device)).float().cpu())
        on_progress(len(chunk))
    embedded = torch.cat(vectors)
    if not embedded.isfinite().all():
        raise WeightsError("the encoder gives vectors that are not finite: the weights are damaged")
    return Embedded(read, embedded, failures)


def _load(paths: Sequence[Path], batch: int) -> Iterator[list[_Loaded]]:
    """Yield the queries of files in batches, read a few batches ahead of the encoder."""
    ahead = _CHUNKS_AHEAD * batch
    threads = min(_MOST_THREADS, usable_cpus())
    reading = ordered_map(_query, paths, threads, ahead, errors=(ImageError,))
    with contextlib.closing(reading):
        while chunk := list(itertools.islice(reading, batch)):
            yield chunk


def _query(path: Path) -> Tensor:
    """Read an image as a query (1, 3, 128, 128)."""
    return make_query(to_batch([read_image(path)]))
