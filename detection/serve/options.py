"""The options of `python -m detection.serve`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from detection.run.options import (
    DetectorOptions,
    LiveOptions,
    add_detector_options,
    add_live_options,
)
from rainmer.cli import (
    StageOptions,
    add_gate_option,
    add_stage_options,
    make_parser,
    non_negative_int,
    parse_options,
    positive_int,
    positive_number,
)
from rainmer.errors import RainmerError
from rainmer.stage.names import add_derain_option

__all__ = [
    "LOOPBACK",
    "TOKEN_VARIABLE",
    "Limits",
    "PlayOptions",
    "ServeOptions",
    "held_bytes",
    "parse",
]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts that only this machine reaches."""
TOKEN_VARIABLE = "RAINMER_TOKEN"

_SHORTEST_TOKEN = 16
_MB = 1_000_000
_COPIES = 3  # of a picture at once: rainy, derained, and on its way out
_CHANNELS = 3
_EXAMPLE = """\
  python -m detection.serve --derain rainmer-s --detector yolo11n.pt
  python -m detection.serve --detector yolo11n.pt --source drive.mp4 --gate --loop
  python -m detection.serve --detector yolo11n.pt --source rtsp://10.0.0.7/stream1
  python -m detection.serve --detector yolo11n.pt --host 0.0.0.0 --token-file token.txt"""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may ask for, and what all of them together.

    Attributes:
        body: Most bytes of a request.
        pixels: Most pixels of a request, all its images together.
        images: Most images of a request.
        seconds: Longest time of a request: to arrive, to be answered, and to be taken.
        queue: Most images that are decoded, wait, or are computed.
        memory: Most bytes of bodies and pictures held at once.
        wait_s: How long an image waits for others of its size.
    """

    body: int = 32 * _MB
    pixels: int = 16 * _MB
    images: int = 16
    seconds: float = 30.0
    queue: int = 64
    memory: int = 1024 * _MB
    wait_s: float = 0.005

    def __post_init__(self) -> None:
        least = self.body + held_bytes(self.pixels)
        if self.memory < least:
            raise RainmerError(
                f"one request may need {-(-least // _MB)} MB, but --memory is "
                f"{self.memory // _MB}: raise it, or lower --max-mb or --max-megapixels"
            )
        if self.images > self.queue:
            raise RainmerError(
                f"a request of {self.images} images never fits into a queue of {self.queue}: "
                "raise --queue, or lower --max-images"
            )


def held_bytes(pixels: int) -> int:
    """Return how many bytes an image of so many pixels takes until it is answered."""
    return pixels * _CHANNELS * _COPIES


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """How sources are played.

    Attributes:
        loop: Whether images and videos begin again.
        pace: Most frames per second of these; None: their own.
        compare: Whether to detect in the rainy frames, too.
    """

    loop: bool = False
    pace: float | None = None
    compare: bool = True


@dataclass(frozen=True, kw_only=True)
class ServeOptions(StageOptions, DetectorOptions, LiveOptions, PlayOptions):
    """The command line, option by option; `--help` explains them."""

    derain: str
    gate: Literal["auto"] | float | None
    source: list[str]
    host: str
    port: int
    token_file: Path | None
    max_mb: float
    max_megapixels: float
    max_images: int
    request_timeout: float
    queue: int
    memory: float
    wait_ms: float

    @property
    def limits(self) -> Limits:
        """The limits of requests. Raises RainmerError if they do not fit together."""
        return Limits(
            body=int(self.max_mb * _MB),
            pixels=int(self.max_megapixels * _MB),
            images=self.max_images,
            seconds=self.request_timeout,
            queue=self.queue,
            memory=int(self.memory * _MB),
            wait_s=self.wait_ms / 1e3,
        )

    def read_token(self) -> str | None:
        """Return the token that requests must bear; None: on this machine, none is needed.

        Raises:
            RainmerError: The file cannot be read, the token is short, or there is none although
                other machines can connect.
        """
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if self.token_file is not None:
            try:
                token = self.token_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "it is no text"
                raise RainmerError(f"cannot read the token in {self.token_file}: {why}") from error
            if not token:
                raise RainmerError(f"there is no token in {self.token_file}")
        elif not token and self.host in LOOPBACK:
            return None
        if not token:
            raise RainmerError(
                f"--host {self.host} lets other machines connect, which needs a token "
                f"(--token-file or {TOKEN_VARIABLE}): "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one"
            )
        if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
            raise RainmerError(f"a token has {_SHORTEST_TOKEN} or more characters of ASCII")
        return token


def parse(argv: Sequence[str] | None) -> ServeOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m detection.serve",
        "Derain images and detect objects in them over HTTP, and show live sources on a page.",
        _EXAMPLE,
    )
    add_derain_option(parser)
    add_gate_option(parser)
    add_detector_options(parser)
    _add_view_options(parser)
    _add_server_options(parser)
    add_live_options(parser)
    add_stage_options(parser)
    options = parse_options(parser, ServeOptions, argv)
    _ = options.limits, options.read_token()  # mistakes are told before anything is loaded
    return options


def _add_view_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("live view")
    group.add_argument(
        "--source",
        nargs="+",
        default=[],
        help="what the page shows: images, folders, globs, videos, cameras by number, addresses",
    )
    group.add_argument("--loop", action="store_true", help="play images and videos again and again")
    group.add_argument(
        "--pace",
        type=positive_number,
        metavar="FPS",
        help="most frames per second of images and videos; default: 1 of images, a video's own",
    )
    group.add_argument(
        "--no-compare",
        dest="compare",
        action="store_false",
        help="do not detect in the rainy frames, too: no boxes found and lost, less work",
    )


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("server")
    group.add_argument("--host", default=LOOPBACK[0], help="default: %(default)s, this machine")
    group.add_argument("--port", type=_port, default=8000, help="default: %(default)s; 0: any")
    group.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"holds the token that requests must bear; default: the variable {TOKEN_VARIABLE}; "
        "demanded unless --host is this machine",
    )
    of_request = "of a request; default: %(default)g"
    for name, default, unit, what in (
        ("--max-mb", 32.0, "MB", f"most bytes {of_request}"),
        ("--max-megapixels", 16.0, "MP", f"most pixels {of_request}"),
        ("--request-timeout", 30.0, "S", "time to send, to compute, to take; default: %(default)g"),
        ("--memory", 1024.0, "MB", "bodies and pictures held at once; default: %(default)g"),
    ):
        group.add_argument(name, type=positive_number, default=default, metavar=unit, help=what)
    group.add_argument(
        "--max-images", type=positive_int, default=16, metavar="N", help=f"most images {of_request}"
    )
    group.add_argument(
        "--queue",
        type=positive_int,
        default=64,
        metavar="N",
        help="images that may wait; further ones get 503; default: %(default)s",
    )
    group.add_argument(
        "--wait-ms",
        type=non_negative_int,
        default=5,
        metavar="MS",
        help="how long an image waits for others of its size; default: %(default)s",
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port, 0..65535")
    return int(text)
