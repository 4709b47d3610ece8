"""Exports that are made once and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from rainmer import models
from rainmer.export.exporting import export_network
from rainmer.export.request import SUFFIXES, ExportRequest
from rainmer.files import default_cache_folder, safe_file_name
from rainmer.version import __version__

__all__ = ["kept_export"]

_log = logging.getLogger(__name__)


def kept_export(network: models.Network, spec: str, request: ExportRequest) -> Path:
    """Return the file of a network, written at the first call.

    It lies in `exports` beside the cache of derained frames, under a name by the weights' hash and
    all that is asked for; `python -m rainmer.cache clear` removes it.

    Args:
        network: The network as it was loaded, not fused.
        spec: What the file is called, and says that it is.
        request: What is asked for.

    Raises:
        RainmerError: See `rainmer.export.exporting.export`.
    """
    parts = (__version__, models.weights_fingerprint(network), str(request))
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    name = f"{safe_file_name(spec)}-{key}{SUFFIXES[request.format]}"
    path = default_cache_folder().with_name("exports") / name
    if not path.is_file():
        _log.warning("%s is exported for %s once, which takes a minute", spec, request.format)
        export_network(network, spec, path, request)
    return path
