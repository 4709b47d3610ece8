"""What actors do with a unit, and what a folder of results knows, without Ray."""

import dataclasses
import errno
import io
import json
import os
import resource
import sys
import tarfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
fs = pytest.importorskip("pyarrow.fs")

from detection.bulk.fleet import fleet  # noqa: E402
from detection.bulk.job import Tally, open_job  # noqa: E402
from detection.bulk.options import parse  # noqa: E402
from detection.bulk.parts import find_parts, known_ids, part_name, remaining  # noqa: E402
from detection.bulk.places import Place  # noqa: E402
from detection.bulk.reading import Columns, check_columns, decode, read_unit  # noqa: E402
from detection.bulk.units import Unit, find_entries, make_units, part_size  # noqa: E402
from detection.bulk.worker import Settings, Worker  # noqa: E402
from detection.pipeline import Pipeline  # noqa: E402
from detection.types import Detections  # noqa: E402
from rainmer.errors import (  # noqa: E402
    DatasetError,
    ImageError,
    OutputError,
    RainmerError,
    SpecError,
)
from rainmer.frames.images import decode_image, encode_image  # noqa: E402
from tests.detection.conftest import Blur, make_frame  # noqa: E402


def finds_the_brightest(frames):
    """A detector: one box for each frame, which depends on its content."""
    return [Detections([[0, 0, 4, 4]], [frame.mean() / 255], [0]) for frame in frames]


def png(number, height=24, width=32):
    return encode_image(make_frame(height, width, number))


def write_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as shard:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))


@pytest.fixture
def source(tmp_path):
    """Images of two sizes in a folder, a tar and a Parquet file, and what is none of them."""
    root = tmp_path / "in"
    (root / "a").mkdir(parents=True)
    for number in range(5):
        (root / "a" / f"{number}.png").write_bytes(png(number, 24 + 8 * (number % 2)))
    (root / "a" / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    (root / "notes.txt").write_text("hello")
    members = [(f"{i}.png", png(i)) for i in range(7)]
    write_tar(root / "b.tar", [*members, ("0.json", b"{}"), ("0.png", png(9))])
    cells = [png(20), None, b"no image", png(21)]
    table = pa.table({"image": pa.array(cells, pa.binary()), "name": ["w", "x", "y", "z"]})
    parquet.write_table(table, root / "c.parquet")
    return root


@pytest.fixture
def worker(source, tmp_path):
    """An actor without Ray and without networks."""
    return make_worker(source, tmp_path / "out")


def make_worker(source, out, **changed):
    settings = Settings(
        source=str(source), out=str(out), folder=str(source), derain="none", gate=None,
        stage={"batch": 4, "device": "cpu"}, detector="", detection={}, columns=Columns(),
        stretch=None, max_pixels=10_000, save=None, threads=2,
    )  # fmt: skip
    made = Worker.__new__(Worker)
    made.name = "here:1"
    made._settings, made._ledger = dataclasses.replace(settings, **changed), None
    made._source, made._out = Place(str(source)), Place(str(out))
    made._pipeline = Pipeline(Blur(), finds_the_brightest)
    return made


def units_of(worker, part=3):
    entries = find_entries(worker._source, worker._out)
    units = make_units(worker._source, entries, part)
    return remaining(units, find_parts(worker._out.names("boxes")))


def rows(out):
    found = [
        r for p in sorted(out.glob("boxes/*.parquet")) for r in parquet.read_table(p).to_pylist()
    ]
    return sorted(found, key=lambda row: row["id"])


def test_every_image_is_a_row_and_the_bad_ones_say_why(worker, tmp_path, caplog):
    reports = [report for unit in units_of(worker) for report in worker.process(unit)]
    found = rows(tmp_path / "out")
    names = [row["id"] for row in found]
    assert names == sorted(
        [*(f"a/{i}.png" for i in range(5)), "a/broken.jpg", *(f"b.tar/{i}.png" for i in range(7)),
         "b.tar/0.png#2", *(f"c.parquet#{i}" for i in range(4))]
    )  # fmt: skip
    assert {row["id"]: row["reason"] for row in found if row["reason"]} == {
        "a/broken.jpg": "a/broken.jpg is truncated: its end is missing; copy it again",
        "c.parquet#1": "its cell is empty",
        "c.parquet#2": "c.parquet#2 cannot be decoded: damaged, or not an image",
    }
    one = found[names.index("a/1.png")]
    assert (one["width"], one["height"], one["derained"]) == (32, 32, True)
    assert one["boxes"] == [[0, 0, 4, 4]]
    assert found[names.index("c.parquet#1")]["boxes"] is None
    assert sum(report["images"] for report in reports) == len(found) == 18
    assert sum(report["failed"] for report in reports) == 3
    assert "1 file skipped by its suffix: .txt 1" in caplog.text
    assert units_of(worker) == []


def in_a_bucket(folder, root):
    """A place behind a file system of pyarrow, which keeps its objects in a folder."""
    place = Place("s3://id:secret@bucket/key?endpoint_override=127.0.0.1:9&scheme=http")
    place._fs, place.root = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem()), root
    return place


def test_the_same_in_a_bucket(worker, source, tmp_path):
    for unit in units_of(worker):
        list(worker.process(unit))
    remote = make_worker(source, tmp_path / "unused", save="jpg")
    remote._source = in_a_bucket(tmp_path, "in")
    remote._out = in_a_bucket(tmp_path, "in/far")
    remote._out.make()
    assert open_job(remote._out, {}, 3) == open_job(remote._out, {}, 9) == 3
    stale, young = (source / "far" / "boxes" / f".writing-{n}" for n in ("stale", "young"))
    for unit in units_of(remote):
        list(remote.process(unit))
    for path, age_s in ((stale, 4000), (young, 0)):
        path.touch()
        os.utime(path, (path.stat().st_mtime - age_s,) * 2)
    assert units_of(remote) == []
    assert rows(source / "far") == rows(tmp_path / "out")
    assert not stale.exists()
    assert young.exists()
    assert len(list((source / "far" / "derained").glob("*.tar"))) == 7
    with pytest.raises(DatasetError, match="no file or folder s3://bucket/key"):
        in_a_bucket(tmp_path, "nowhere").is_file  # noqa: B018


def test_a_bucket_that_goes_away_ends_the_run_and_is_no_row(source, tmp_path):
    worker = make_worker(source, tmp_path / "out")
    worker._source = in_a_bucket(tmp_path, "in")

    class Gone:
        def open_input_stream(self, path):
            raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation")

    units = units_of(worker)
    worker._source._fs = Gone()
    for unit in units:
        if unit.kind != "parquet":
            with pytest.raises(DatasetError, match=r"NETWORK_CONNECTION .* the same command goes"):
                list(worker.process(unit))
    assert rows(tmp_path / "out") == []


@settings(max_examples=15)
@given(st.sets(st.integers(0, 9)), st.integers(1, 5))
def test_whatever_is_lost_is_done_again_and_nothing_else(tmp_path_factory, lost, part):
    tmp_path = tmp_path_factory.mktemp("lost")
    write_tar(tmp_path / "s.tar", [(f"{i}.png", png(i, 8, 8)) for i in range(10)])
    worker = make_worker(tmp_path, tmp_path / "out", save="png")
    for unit in units_of(worker, part):
        list(worker.process(unit))
    files = sorted(path for path in (tmp_path / "out").glob("*/*"))
    quiet = {path: path.read_bytes() for path in files}
    for number in lost:
        files[number % len(files)].unlink(missing_ok=True)
    parts_lost = len(quiet) // 2 - len(list((tmp_path / "out" / "boxes").glob("*.parquet")))
    reports = [report for unit in units_of(worker, part) for report in worker.process(unit)]
    assert len(reports) == parts_lost
    for path in (tmp_path / "out" / "boxes").glob("*"):
        assert path.read_bytes() == quiet[path]
    assert len(rows(tmp_path / "out")) == 10


def test_a_unit_that_is_begun_again_goes_on_and_gives_the_same_reports(worker):
    """Ray counts on that: it leaves out as many as it has passed on before the actor died."""
    times = ("began", "ended", "cpu_s")
    for unit in units_of(worker):
        quiet = list(worker.process(unit))
        paths = sorted(worker._out.names("boxes"))
        (worker._out).remove(f"boxes/{[p for p in paths if p.startswith(unit.key)][-1]}")
        again = list(worker.process(unit, again=True))
        assert [{k: v for k, v in r.items() if k not in times} for r in again] == [
            {k: v for k, v in r.items() if k not in times} for r in quiet
        ]
        assert all(report["cpu_s"] == 0 for report in again[:-1])


def test_images_that_are_added_later_are_done_alone(worker, source, tmp_path):
    for unit in units_of(worker):
        list(worker.process(unit))
    before = rows(tmp_path / "out")
    (source / "a" / "00.png").write_bytes(png(30))
    write_tar(source / "b.tar", [(f"{i}.png", png(i)) for i in range(9)])
    others = find_parts(worker._out.names("boxes"))
    worker = make_worker(source, tmp_path / "out", known=known_ids(worker._out, others))
    reports = [report for unit in units_of(worker) for report in worker.process(unit)]
    assert sum(report["images"] for report in reports) == 3
    names = [row["id"] for row in rows(tmp_path / "out")]
    assert set(names) - {row["id"] for row in before} == {"a/00.png", "b.tar/7.png", "b.tar/8.png"}
    assert len(set(names)) == len(names)


def test_derained_images_are_shards_that_can_be_read_again(source, tmp_path):
    worker = make_worker(source, tmp_path / "out", save="png")
    for unit in units_of(worker, part=100):
        list(worker.process(unit))
    again = Place(str(tmp_path / "out" / "derained"))
    units = make_units(again, find_entries(again, worker._out), 100)
    items = {
        item.id.partition("/")[2]: item for u in units for item in read_unit(again, u, Columns())
    }
    assert len(items) == 15
    wanted = Blur()([decode_image((source / "a" / "1.png").read_bytes())])[0]
    assert np.array_equal(decode_image(items["a/1.png"].content), wanted)
    assert "c.parquet#0.png" in items


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_shard_that_ends_early_keeps_what_comes_before(tmp_path, mode):
    path = tmp_path / ("s.tar" if mode == "w" else "s.tar.gz")
    write_tar(path, [(f"{i}.png", png(i, 64, 64)) for i in range(6)], mode)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    place = Place(str(tmp_path))
    (unit,) = make_units(place, find_entries(place, Place(str(tmp_path / "out"))), 10)
    *whole, end = read_unit(place, unit, Columns())
    assert [item.id for item in whole] == [f"{path.name}/{i}.png" for i in range(len(whole))]
    assert 2 <= len(whole) < 6
    assert end.id == path.name
    assert end.reason.startswith(f"{path.name} is damaged or ends early")


def test_what_is_no_shard_and_what_cannot_be_read_are_rows(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar" * 200)
    (tmp_path / "b.parquet").write_bytes(b"no table")
    (tmp_path / "c.png").symlink_to("nowhere")
    (tmp_path / "d.tar").touch()
    worker = make_worker(tmp_path, tmp_path / "out")
    for unit in units_of(worker):
        list(worker.process(unit))
    reasons = {row["id"]: row["reason"] for row in rows(tmp_path / "out")}
    assert set(reasons) == {"a.tar", "b.parquet", "c.png", "d.tar"}
    assert reasons["c.png"] == "cannot read c.png: No such file or directory"
    assert all(reasons.values())


def test_bombs_are_not_decoded(tmp_path):
    header = b"IHDR" + (30_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    checksum = zlib.crc32(header).to_bytes(4, "big")
    bomb = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + header + checksum
    (tmp_path / "a.png").write_bytes(bomb + b"\x00\x00\x00\x00IEND\xaeB\x60\x82")
    place = Place(str(tmp_path))
    (unit,) = make_units(place, find_entries(place, Place("out")), 1)
    (item,) = read_unit(place, unit, Columns())
    with pytest.raises(ImageError, match="30000x30000 pixels, more than --max-pixels"):
        decode(place, item, None, 100_000_000)


def test_columns_of_parquet_files(source):
    place = Place(str(source))
    unit = Unit("parquet", ("c.parquet",), 10, "0" * 16)
    names = [item.id for item in read_unit(place, unit, Columns(id="name"))]
    assert names == ["w", "x", "y", "z"]
    check_columns(place, "c.parquet", Columns())
    with pytest.raises(DatasetError, match=r"has no column picture, but image, name; see"):
        check_columns(place, "c.parquet", Columns(image="picture"))


def test_images_in_structs_as_published_sets_have_them(tmp_path):
    cells = [{"bytes": png(0), "path": "a.png"}]
    parquet.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    place = Place(str(tmp_path / "a.parquet"))
    (unit,) = make_units(place, find_entries(place, Place("out")), 10)
    (item,) = read_unit(place, unit, Columns())
    assert item.id == "a.parquet#0"
    assert item.content == png(0)


def test_a_unit_survives_its_way_to_an_actor():
    unit = Unit("tar", ("ü.tar",), 256, "0123456789abcdef", frozenset({3, 1}))
    assert Unit.from_json(unit.to_json()) == unit
    found = find_parts([part_name(unit.key, 3, 17, last=True), "notes.txt"])
    assert (found[unit.key][0].rows, found[unit.key][0].is_last) == (17, True)


def test_parts_are_small_where_images_are_few(source):
    place = Place(str(source / "a"))
    entries = find_entries(place, Place("out"))
    assert part_size(entries, 2) == 1
    assert part_size(entries * 10_000, 2) == 256


@pytest.mark.parametrize(
    ("name", "said"),
    [("nowhere", "no file or folder"), ("in/notes.txt", "is no image, tar"), ("none", "holds no")],
)
def test_nothing_to_do(source, tmp_path, name, said):
    (tmp_path / "none").mkdir()
    with pytest.raises(DatasetError, match=said):
        find_entries(Place(str(tmp_path / name)), Place("out"))


def test_results_inside_the_input_are_not_read_again(source):
    worker = make_worker(source, source / "out", save="png")
    for unit in units_of(worker):
        list(worker.process(unit))
    assert units_of(worker) == []


def test_folder_of_another_job_is_refused(tmp_path):
    out = Place(str(tmp_path / "out"))
    assert open_job(out, {"conf": 0.25}, 16) == 16
    assert open_job(out, {"conf": 0.25}, 99) == 16  # parts stay as they were cut
    with pytest.raises(OutputError, match=r"another job: its conf is 0.25, here it is 0.5; give"):
        open_job(out, {"conf": 0.5}, 16)
    out.write("job.json", b"[]")
    with pytest.raises(OutputError, match="damaged or not ours"):
        open_job(out, {"conf": 0.25}, 16)
    other = Place(str(tmp_path / "other"))
    other.write("boxes/a.parquet", b"")
    with pytest.raises(OutputError, match="holds files of something else"):
        open_job(other, {}, 16)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="out"):
        open_job(Place(str(tmp_path / "out")), {}, 16)


def test_a_full_disk_leaves_whole_parts_alone(source, tmp_path, monkeypatch):
    """A limit on the size of files fails like a full disk, in the middle of a write."""
    worker = make_worker(source, tmp_path / "out", save="png")
    unit, *_ = units_of(worker, part=7)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, before[1]))
    try:
        with pytest.raises(OutputError, match=os.strerror(errno.EFBIG)):
            list(worker.process(unit))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert sum(report["images"] for report in worker.process(unit)) == 8


def test_reports_add_up():
    tally = Tally(earlier=10)
    counts = {"images": 4, "known": 0, "failed": 1, "boxes": 3, "derained": 3}
    for number in range(3):
        times = {"began": 100.0 + number, "ended": 102.0 + number, "cpu_s": 1.0}
        actor = f"host:{number % 2}"
        tally.add({**counts, **times, "actor": actor, "reasons": "a is empty", "again": "k"})
    summary = tally.summary(complete=True)
    assert summary["images"] == 22
    assert summary["this_run"]["images_per_s"] == 3.0
    assert summary["this_run"]["actors"]["host:0"]["images_per_s"] == 2.0
    assert summary["this_run"]["begun_again"] == 1
    json.dumps(summary)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3:///key", "Missing bucket name"),
        ("foo://bucket/key", "foo://bucket/key"),
        pytest.param(  # waits six seconds for its attempts
            "s3://id:secret@bucket/key?endpoint_override=127.0.0.1:9&scheme=http",
            "s3://bucket/key",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_buckets_that_are_not_there(address, said):
    """One line without the password."""
    with pytest.raises(DatasetError, match=said) as caught:
        find_entries(Place(address), Place("out"))
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    options = parse(["in", "--out", "out", "--detector", "a.pt"])
    said = pytest.raises(SpecError, match=r"package ray: pip install 'rainmer\[bulk\]'")
    with said, fleet(options, 1):
        pass


def test_no_cluster_at_the_address(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    options = parse(["in", "--out", "out", "--detector", "a.pt"])
    said = pytest.raises(RainmerError, match=r"no Ray cluster at RAY_ADDRESS=127\.0\.0\.1:9")
    with said, fleet(options, 1):
        pass
