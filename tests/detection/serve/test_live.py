"""Live sources: the newest frame, the past by the second, and an end."""

import json
import time
from email.parser import BytesParser

import numpy as np
import pytest

from detection.run.options import LiveOptions
from detection.run.sources import find_sources
from detection.serve.options import PlayOptions
from rainmer.frames.images import decode_image, encode_image, write_image
from rainmer.frames.video import VideoWriter
from tests.detection.run.servers import MjpegServer, pictures
from tests.detection.serve.conftest import lamps


def wait_for(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def parts(answer):
    """Return the parts of a form by name, as a browser reads them."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + answer.content)
    return {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in message.get_payload()
    }


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        write_image(tmp_path / "street" / f"{i}.png", lamps(seed=i))
    (tmp_path / "street" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path / "street"


def test_images_are_played_once_and_their_failures_counted(serve, folder, caplog):
    client = serve(sources=find_sources([str(folder)]), play=PlayOptions(pace=1000))
    wait_for(lambda: client.get("/v1/live").json()["sources"][0]["state"] == "ended")
    all_of_them = client.get("/v1/live").json()
    (street,) = all_of_them["sources"]
    assert (street["name"], street["kind"]) == ("street", "images")
    assert (street["frames"], street["failures"]) == (3, 1)
    assert all_of_them["title"] == "median in front of bright"
    assert str(folder) not in client.get("/v1/live").text
    assert "damaged.png" in caplog.text

    form = parts(client.get("/v1/live/street"))
    record = json.loads(form["record"])
    assert (record["source"], record["name"], record["number"]) == ("street", "2.png", 3)
    assert [box["found"] for box in record["boxes"]] == [False, False]
    lost = [box["lost"] for box in record["rainy_boxes"]]
    assert lost.count(False) == 2
    assert lost.count(True) >= 1
    assert set(record["stage_ms"]) >= {"decode", "queue", "derain", "detect", "compare"}
    for name in ("rainy", "derained"):
        assert decode_image(form[name]).shape == (48, 64, 3)
    assert np.abs(decode_image(form["rainy"]).astype(int) - lamps(seed=2)).mean() < 8

    time.sleep(1.01)
    (second, *_) = client.get("/v1/live/street/history").json()["seconds"]
    assert second["found"] == 0
    assert second["lost"] >= 1
    assert client.get(f"/v1/live/street/history?since={second['time'] + 9}").json() == {
        "seconds": []
    }
    assert client.get("/v1/live/none").status_code == 404


def test_a_video_begins_again_and_a_viewer_gets_the_newest_frame(serve, tmp_path):
    with VideoWriter(tmp_path / "drive.mp4", fps=100, size_hw=(48, 64)) as writer:
        for i in range(5):
            writer.write(lamps(seed=i))
    sources = find_sources([str(tmp_path / "drive.mp4")])
    client = serve(sources=sources, play=PlayOptions(loop=True, compare=False))
    numbers = [0]
    while numbers[-1] < 12:  # only what is newer
        answer = client.get(f"/v1/live/drive.mp4?after={numbers[-1]}")
        record = json.loads(parts(answer)["record"])
        assert record["number"] > numbers[-1]
        assert "rainy_boxes" not in record
        numbers.append(record["number"])
    assert client.get("/v1/live").json()["sources"][0]["state"] == "playing"


def test_a_stream_of_a_gate_has_readings_and_hides_its_address(serve):
    with MjpegServer(lambda _: pictures(0, 400, 0.01)) as server:
        address = server.url.replace("//", "//user:secret@")
        sources = find_sources([address], live=LiveOptions(reconnect=0))
        client = serve("gate:0:none", sources=sources)
        record = json.loads(parts(client.get("/v1/live/live-video?after=1"))["record"])
        assert record["derained"] is True
        assert 0 <= record["meter"]["benefit"] <= 1
        assert record["captured"] == pytest.approx(time.time(), abs=20)
        state = client.get("/v1/live").json()
        assert state["threshold"] == 0
        assert state["sources"][0]["reconnects"] == 0
        assert "secret" not in str(state) + client.get("/metrics").text


def test_a_source_that_cannot_be_opened_leaves_the_others_alone(serve, folder):
    with MjpegServer(lambda _: pictures(0, 0)) as server:
        address = server.url
    sources = find_sources([address, str(folder)], live=LiveOptions(reconnect=0, timeout=0.5))
    client = serve(sources=sources, play=PlayOptions(pace=1000))

    def states():
        return {one["name"]: one["state"] for one in client.get("/v1/live").json()["sources"]}

    wait_for(lambda: states() == {"street": "ended", "live-video": "failed"})


def test_an_image_of_ones_own_is_compared(client):
    form = parts(client.post("/v1/compare", content=encode_image(lamps(), ".png")))
    record = json.loads(form["record"])
    assert len(record["boxes"]) == 2 < len(record["rainy_boxes"])
    assert client.post("/v1/compare", content=b"x").status_code == 415
    two = [("image", (name, encode_image(lamps(), ".png"), "image/png")) for name in "ab"]
    assert client.post("/v1/compare", files=two).status_code == 400
