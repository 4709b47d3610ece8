"""The options of `python -m rainmer.weights`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rainmer.cli import make_parser, parse_options

__all__ = ["WeightsOptions", "parse"]

_SHOW, _CONVERT = "show", "convert"

_EXAMPLE = """\
  python -m rainmer.weights show net_g_latest.pth
  python -m rainmer.weights convert net_g_latest.pth drsformer.safetensors"""


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """The command line, option by option; `--help` explains them."""

    action: str
    file: str
    out: Path | None = None
    network: str | None = None
    json: bool = False


def parse(argv: Sequence[str] | None) -> WeightsOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m rainmer.weights",
        "Show what a weights file holds, or convert it to safetensors. Published checkpoints are "
        "read whatever holds the weights (params_ema, state_dict, ...); no code of theirs runs.",
        _EXAMPLE,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="show | convert")
    show = actions.add_parser(_SHOW, help="format, network, options, values, SHA-256")
    convert = actions.add_parser(_CONVERT, help="write the weights as safetensors")
    for action in (show, convert):
        action.add_argument("file", metavar="FILE", help="weights, or the name of shipped ones")
        action.add_argument(
            "--network", metavar="NAME",
            help="the network; default: the one that the weights fit",
        )  # fmt: skip
    show.add_argument("--json", action="store_true", help="print JSON")
    convert.add_argument("out", type=Path, metavar="OUT.safetensors", help="file to write")
    return parse_options(parser, WeightsOptions, argv)
