"""The limit of the cache of derained frames, and the command that shows and clears it."""

import os

import pytest

from rainmer.cache.__main__ import main
from rainmer.cache.frames import GB, LIMIT, Keeper, cached_frames, limit_gb
from rainmer.errors import ConfigError

SIZE = 1000


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Five frames of two derainers, used one after the other, and what is none of them."""
    folder = tmp_path / "rainmer" / "derained"
    for number in range(5):
        file = folder / f"net-{number % 2:016x}" / f"{number:040x}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(SIZE))
        os.utime(file, (1e9 + number, 1e9 + number))
    for other in ("derained/mine/photo.png", "derained/net-0000000000000000/timings.jsonl"):
        (tmp_path / "rainmer" / other).parent.mkdir(exist_ok=True)
        (tmp_path / "rainmer" / other).write_text("{}")
    (tmp_path / "rainmer" / "rendered").mkdir()
    (tmp_path / "rainmer" / "rendered" / "0.png").write_bytes(bytes(SIZE))
    monkeypatch.setattr("rainmer.cache.command.default_cache_folder", lambda: folder)
    return folder


def numbers(folder):
    return [int(frame.path.stem, 16) for frame in cached_frames(folder)]


def test_what_was_not_used_for_longest_goes_first(cache, monkeypatch):
    monkeypatch.setenv(LIMIT, str(5 * SIZE / GB))
    os.utime(cache / f"net-{0:016x}" / f"{0:040x}.png")
    keeper = Keeper(cache)
    assert numbers(cache) == [2, 3, 4, 0]
    keeper.wrote(SIZE // 10)
    assert len(numbers(cache)) == 4
    monkeypatch.setenv(LIMIT, str(2 * SIZE / GB))
    Keeper(cache)
    assert numbers(cache) == [0]
    assert (cache / "mine" / "photo.png").exists()


@pytest.mark.parametrize("text", ["many", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv(LIMIT, text)
    with pytest.raises(ConfigError, match="must be a number of GB above 0"):
        limit_gb()


def test_the_command_shows_and_clears(cache, capsys):
    main([])
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(f"{cache}: 0.00 GB, 5 frames of 2 derainers; limit 20 GB")
    assert shown[1].startswith(str(cache.parent / "rendered"))
    main(["clear", "--to", str(2.5 * SIZE / GB)])
    assert numbers(cache) == [3, 4]
    assert (cache.parent / "rendered").exists()
    main(["clear"])
    assert numbers(cache) == []
    assert not (cache.parent / "rendered").exists()
    assert (cache / "mine" / "photo.png").exists()


def test_another_folder_loses_nothing_but_frames(cache):
    main(["clear", "--cache", str(cache)])
    assert numbers(cache) == []
    assert (cache.parent / "rendered" / "0.png").exists()


def test_only_clearing_takes_a_size(capsys):
    with pytest.raises(SystemExit):
        main(["--to", "3"])
    assert "--to needs clear" in capsys.readouterr().err
