"""What commands print: in any encoding, to streams that are closed or full, until a signal."""

import io
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from rainmer.cli import run_command
from rainmer.console import READABLE, as_printed
from rainmer.errors import RainmerError
from rainmer.frames.images import read_image, write_image
from tests.commands import COMMANDS, start
from tests.eval.trees import scene

ENCODINGS = ("ascii", "cp1252", "latin-1", "cp437", "gbk", "shift_jis", "utf-8", "utf-16")


@pytest.mark.parametrize(
    ("text", "ascii_text"),
    [
        ("Δ vs rainy, ΔmAP", "delta vs rainy, delta mAP"),
        ("−3 ± 1 × 2 → ∞ …", "-3 +- 1 x 2 -> inf ..."),
        ("长颈鹿", r"\u957f\u9888\u9e7f"),
        ("🦒", r"\U0001f992"),
        (os.fsdecode(b"b\xff.png"), r"b\xff.png"),
        ("Straße", r"Stra\xdfe"),
    ],
)
def test_what_an_encoding_lacks_is_readable(text, ascii_text):
    assert text.encode("ascii", READABLE).decode() == ascii_text


def test_what_an_encoding_has_stays():
    text = "… × ± Straße"
    assert text.encode("cp1252", READABLE).decode("cp1252") == text
    assert "Δ长".encode("gbk", READABLE).decode("gbk") == "Δ长"


@given(st.text(st.characters()), st.sampled_from(ENCODINGS))
def test_any_text_can_be_printed(text, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=READABLE)
    print(text, file=stream, flush=True)
    assert as_printed(text, stream) == text.encode(encoding, READABLE).decode(encoding)


def print_everything(_):
    print("Δ 长颈鹿 \udcff")
    raise RainmerError("no folder 长颈鹿 \udcff")


def test_a_command_prints_in_any_encoding(monkeypatch):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="cp1252") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(SystemExit) as end:
        run_command(print_everything)
    assert end.value.code == 2
    for stream in (out, err):
        stream.flush()
        assert rb"\u957f\u9888\u9e7f \xff" in stream.buffer.getvalue()


def test_an_error_begins_on_a_line_of_its_own(capsys):
    def break_off(_):
        for _ in tqdm(range(3), miniters=1):
            raise RainmerError("no more")

    with pytest.raises(SystemExit):
        run_command(break_off)
    assert capsys.readouterr().err.endswith("\nerror: no more\n")


@pytest.mark.parametrize(
    ("stdout", "stderr", "code", "said"),
    [
        (None, None, 0, None),
        ("/dev/full", "stderr", 2, ["error: No space left on device: output"]),
        ("/dev/full", "/dev/full", 2, None),
        ("|", "stderr", 141, []),
    ],
)
def test_streams_that_are_closed_or_full(tmp_path, stdout, stderr, code, said):
    """The results are complete, and hold nothing that was meant for the terminal."""
    write_image(tmp_path / "in" / "a.png", scene(0)[0])
    arguments = ("in", "--out", "out", "--derain", "none", "--quiet")
    run = start(tmp_path, "rainmer.derain", *arguments, stdout=stdout, stderr=stderr)
    assert run.end() == code
    assert said is None or run.said == said
    assert (read_image(tmp_path / "out" / "a.png") == scene(0)[0]).all()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_in_ascii_for_a_reader_who_is_gone(tmp_path, command):
    shown = start(tmp_path, command, "--help", encoding="ascii")
    assert shown.end() == 0
    assert b"example:" in shown.printed
    assert start(tmp_path, command, "--help", stdout="|").end() == 0
