"""`kill -9` of an actor and of the command: the same command ends with the rows of a quiet run."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("ray")
parquet = pytest.importorskip("pyarrow.parquet")

from detection.bulk.parts import tar_of  # noqa: E402
from eval.street import draw_scene  # noqa: E402
from eval.street.detector import detector_weights  # noqa: E402
from rainmer.frames.images import encode_image  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
IMAGES, PART = 64, 4
PATIENCE_S = 240.0


@pytest.fixture
def bench(tmp_path):
    """Two shards of small street scenes, one of them broken, and how to run the command."""
    scenes = [encode_image(draw_scene(i, night=False, size_hw=(96, 160)).image) for i in range(4)]
    contents = [scenes[number % 4] for number in range(IMAGES - 1)] + [b"no image"]
    (tmp_path / "in").mkdir()
    for shard in range(2):
        members = [(f"{i:03d}.png", contents[i]) for i in range(shard, IMAGES, 2)]
        (tmp_path / "in" / f"{shard}.tar").write_bytes(tar_of(members))
    weights = detector_weights(tmp_path / "nets")

    def start(out):
        command = [sys.executable, "-m", "detection.bulk", "in", "--out", out, "--quiet"]
        command += ["--detector", str(weights), "--imgsz", "160", "--batch", "1"]
        command += ["--derain", "python:tests.contract.slow:derain", "--actors", "2"]
        command += ["--cpus", "1", "--part", str(PART), "--save-derained"]
        return subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return tmp_path, start


def rows(out):
    """Return all rows, in the order of their names."""
    # Hidden ones are being written.
    found = [row for path in (out / "boxes").glob("[!.]*.parquet") for row in read(path)]
    assert len({row["id"] for row in found}) == len(found)
    return sorted(found, key=lambda row: row["id"])


def read(path):
    return parquet.read_table(path).to_pylist()


def shards(out):
    return {path.name: path.read_bytes() for path in (out / "derained").glob("[!.]*.tar")}


def wait_for_actors(out, count, process):
    """Wait until so many actors have written a part, and return their process ids."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        if (out / "summary.json").is_file():
            actors = json.loads((out / "summary.json").read_text())["this_run"]["actors"]
            if len(actors) >= count:
                return [int(name.rpartition(":")[2]) for name in actors]
        time.sleep(0.02)
    raise AssertionError(process.communicate())


def end(process):
    said = process.communicate(timeout=PATIENCE_S)
    return process.returncode, *said


@pytest.mark.slow
def test_killed_actors_and_a_killed_command_lose_nothing(bench):
    folder, start = bench
    code, printed, said = end(start("quiet"))
    assert code == 0, said
    expected = rows(folder / "quiet")
    assert [row["id"] for row in expected if row["reason"]] == ["1.tar/063.png"]
    assert len(expected) == IMAGES
    assert sum(row["derained"] for row in expected) == IMAGES - 1
    assert any(row["boxes"] for row in expected)

    # An actor: Ray starts another one, and the run goes on.
    process = start("actor")
    pids = wait_for_actors(folder / "actor", 1, process)
    os.kill(pids[0], signal.SIGKILL)
    code, printed, said = end(process)
    assert code == 0, said
    assert f"{IMAGES} images, 0 of them" in printed
    assert "actors died: 1 shards or groups of images were begun again" in printed
    assert rows(folder / "actor") == expected
    assert shards(folder / "actor") == shards(folder / "quiet")

    # The command itself, with all its processes left to Ray, and then Ctrl-C of the next one.
    process = start("command")
    pids = wait_for_actors(folder / "command", 1, process)
    process.kill()
    process.communicate()
    first = len(rows(folder / "command"))
    assert 0 < first < IMAGES
    process = start("command")
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    code, printed, said = end(process)
    # Python itself ends with -2 where it was interrupted inside an import.
    assert code in (130, -signal.SIGINT), said
    assert "interrupted; results so far are kept" in said
    assert "Traceback" not in said
    code, printed, said = end(start("command"))
    assert code == 0, said
    assert f"{IMAGES} images, " in printed
    assert rows(folder / "command") == expected
    assert shards(folder / "command") == shards(folder / "quiet")
    assert not [pid for pid in pids if alive(pid)]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
