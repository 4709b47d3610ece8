"""Images in, answers out: the same as without a server, and a reason for everything else."""

import base64
import io
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detection.draw import draw_detections
from detection.pipeline import Pipeline
from detection.run.records import record_of
from detection.serve.app import make_app
from detection.serve.engine import Engine
from rainmer import Derainer
from rainmer.frames.images import decode_image, encode_image
from tests.detection.serve.conftest import SMALL, URL, Bright, lamps
from tests.images import small_files

SECRET = "a-token-of-32-characters-and-more"


def png(frame):
    return encode_image(frame, ".png")


def files(*contents):
    return [("image", (f"{i}.png", content, "image/png")) for i, content in enumerate(contents)]


def derained(frame):
    return Derainer("median", device="cpu")(frame)


def test_a_derained_image_is_what_the_derainer_makes(client):
    frame = lamps()
    answer = client.post("/v1/derain", content=png(frame))
    assert answer.headers["content-type"] == "image/png"
    assert "derain;dur=" in answer.headers["server-timing"]
    np.testing.assert_array_equal(decode_image(answer.content), derained(frame))


@pytest.mark.parametrize(
    ("accept", "asked", "kind"),
    [
        ("image/jpeg", "", "image/jpeg"),
        ("text/html, image/webp;q=0.9, image/png;q=0.1", "", "image/webp"),
        ("image/*", "", "image/png"),
        ("image/png", "?format=webp", "image/webp"),
        ("application/json", "", "application/json"),
    ],
)
def test_the_form_of_an_answer(client, accept, asked, kind):
    frame = lamps()
    answer = client.post(f"/v1/derain{asked}", content=png(frame), headers={"Accept": accept})
    assert answer.headers["content-type"] == kind
    if kind != "application/json":
        assert Image.open(io.BytesIO(answer.content)).format.lower() == kind.split("/")[1]


def test_a_derained_image_in_json(client):
    frame = lamps()
    answer = client.post("/v1/derain?format=json", content=png(frame)).json()
    assert (answer["width"], answer["height"], answer["media_type"]) == (64, 48, "image/png")
    assert "boxes" not in answer
    np.testing.assert_array_equal(decode_image(base64.b64decode(answer["image"])), derained(frame))


def test_boxes_are_those_of_the_pipeline(client):
    frame = lamps()
    answer = client.post("/v1/detect", content=png(frame)).json()
    pipeline = Pipeline(Derainer("median", device="cpu"), Bright())
    expected = record_of(pipeline.process([frame], [""])[0], Bright.names)
    assert answer["boxes"] == expected["boxes"]
    assert len(answer["boxes"]) == 2
    plain = client.post("/v1/detect?derain=false", content=png(frame)).json()
    assert len(plain["boxes"]) == len(Bright.detect(frame)) > 2


def test_boxes_on_the_picture(client):
    frame = lamps()
    answer = client.post("/v1/detect?format=png", content=png(frame))
    drawn = draw_detections(derained(frame), Bright.detect(derained(frame)), Bright.names)
    np.testing.assert_array_equal(decode_image(answer.content), drawn)


def test_a_form_of_several_sizes_in_which_one_is_no_image(client):
    frames = [lamps(), lamps((40, 64)), lamps(seed=3)]
    contents = [png(frames[0]), b"no image", png(frames[1]), png(frames[2])]
    answers = client.post("/v1/derain", files=files(*contents)).json()["images"]
    assert [answer["name"] for answer in answers] == ["0.png", "1.png", "2.png", "3.png"]
    assert answers[1] == {
        "name": "1.png",
        "status": 415,
        "error": "image 2 cannot be decoded: damaged, or not an image",
    }
    for answer, frame in zip([answers[0], *answers[2:]], frames, strict=True):
        image = decode_image(base64.b64decode(answer["image"]))
        np.testing.assert_array_equal(image, derained(frame))


@pytest.mark.parametrize("name", small_files())
def test_every_format_is_read_as_the_toolkit_reads_it(client, name):
    content = small_files()[name]
    answer = client.post("/v1/derain", content=content)
    assert answer.status_code == 200, answer.text
    np.testing.assert_array_equal(decode_image(answer.content), derained(decode_image(content)))


def bomb(width, height):
    """A PNG whose header asks for gigabytes, its pixels a few zeros."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(10_000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def pam(width, height):
    return f"P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH 3\nMAXVAL 255\nENDHDR\n".encode()


REFUSED = {
    "nothing": ("/v1/derain", b"", 400, "there is no image: send one as the body, or files of"),
    "text": ("/v1/derain", b"GET /etc/passwd", 415, "the image cannot be decoded: damaged"),
    "truncated": ("/v1/derain", png(lamps())[:200], 415, "the image is truncated"),
    "bomb": ("/v1/derain", bomb(30_000, 30_000), 413, "but this has 900"),
    "ppm bomb": ("/v1/detect", b"P6 30000 30000 255\n", 413, "but this has 900"),
    "unknown to Pillow": ("/v1/derain", pam(30_000, 30_000), 415, "cannot be decoded"),
    "too long": ("/v1/derain", bytes(200_001), 413, "a request may have at most 0.2 MB"),
    "too large": ("/v1/derain", png(np.zeros((320, 320, 3), np.uint8)), 413, "0.1 million pixels"),
    "unknown format": ("/v1/derain?format=gif", b"x", 422, "format: Input should be 'png',"),
    "unknown kind": ("/v1/detect?derain=perhaps", b"x", 422, "derain: Input should be a valid"),
    "no route": ("/v1/../../etc/passwd", b"x", 404, "Not Found"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_have_one_line(serve, case):
    path, content, status, text = REFUSED[case]
    client = serve(limits=SMALL)
    started = time.monotonic()
    answer = client.post(path, content=content)
    assert time.monotonic() - started < 1
    assert answer.status_code == status
    assert text in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert client.post("/v1/derain", content=png(lamps())).status_code == 200


def test_bodies_of_unknown_length_are_measured_as_they_come(serve):
    client = serve(limits=SMALL)
    answer = client.post("/v1/derain", content=(bytes(50_000) for _ in range(100)))
    assert (answer.status_code, answer.json()["error"]) == (
        413,
        "a request may have at most 0.2 MB",
    )


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ({"files": files(*[png(lamps())] * 4)}, "Maximum number of files is 3."),
        ({"files": files(png(lamps())), "data": {"x": "1"}}, "parts of a form must be files"),
        ({"files": [("image", (None, "text"))]}, "parts of a form must be files"),
        ({"content": b"-", "headers": {"Content-Type": "multipart/form-data"}}, "Missing boundary"),
    ],
)
def test_forms_that_are_refused(serve, form, text):
    answer = serve(limits=SMALL).post("/v1/detect", **form)
    assert answer.status_code == 400
    assert text in answer.json()["error"]


def test_a_full_queue_answers_503_and_loses_nothing(serve, detector):
    client = serve(limits=SMALL)
    detector.go.clear()
    answers = []

    def ask():
        answers.append(client.post("/v1/detect", content=png(lamps())))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    while len(answers) < 12 - SMALL.queue:
        time.sleep(0.01)
    detector.go.set()
    for thread in threads:
        thread.join()
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200] * SMALL.queue + [503] * (12 - SMALL.queue)
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    assert client.post("/v1/detect", content=png(lamps())).status_code == 200
    assert sum(detector.batches) == SMALL.queue + 1
    budget = client.app.state.service.worker._budget
    assert (budget.images, budget.memory) == (0, 0)


def test_an_answer_that_takes_too_long(serve, detector):
    limits = SMALL.__class__(**{**vars(SMALL), "seconds": 0.2})
    client = serve(limits=limits)
    detector.go.clear()
    answer = client.post("/v1/detect", content=png(lamps()))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    detector.go.set()
    assert client.post("/v1/detect", content=png(lamps())).status_code == 200


def test_one_frame_that_fails_does_not_take_others_with_it(client, detector):
    detector.go.clear()
    threading.Timer(0.2, detector.go.set).start()
    seven = np.full((48, 64, 3), 7, np.uint8)
    contents = [png(lamps()), png(seven), png(lamps(seed=1))]
    answers = client.post("/v1/detect", files=files(*contents)).json()["images"]
    assert answers[1] == {"name": "1.png", "status": 500, "error": "image 2 could not be processed"}
    assert [len(answer["boxes"]) for answer in (answers[0], answers[2])] == [2, 2]
    assert detector.batches == [3, 1, 1, 1]
    assert client.post("/v1/detect", content=png(seven)).status_code == 500


def test_without_a_token_only_this_machine_is_answered(client):
    for name in ("127.0.0.1:8000", "localhost", "[::1]:80"):
        assert client.get("/v1/live", headers={"Host": name}).status_code == 200
    for name in ("evil.example", "127.0.0.1.evil.example", "", "[::1"):
        answer = client.get("/v1/live", headers={"Host": name})
        assert answer.status_code == 403
    page = client.post("/v1/derain", content=b"x", headers={"Origin": "http://evil.example"})
    assert page.json() == {"error": "pages of other hosts may not ask this server"}


def test_tokens(serve):
    client = serve(token=SECRET)
    assert client.get("/v1/live", headers={"Authorization": f"Bearer {SECRET}"}).status_code == 200
    for wrong in ("", SECRET, f"Bearer {SECRET}x", "Bearer ", f"Basic {SECRET}", "Bearer \xe9"):
        answer = client.get("/v1/live", headers={"Authorization": wrong.encode("latin-1")})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    for path in ("/metrics", "/v1/live/x", "/nowhere"):
        assert client.get(path).status_code == 401
    for path in ("/", "/page.js", "/page.css", "/docs", "/openapi.json", "/healthz"):
        answer = client.get(path, headers={"Host": "any.example"})
        assert answer.status_code == 200
        assert SECRET not in answer.text


def test_the_page_and_the_documentation_need_no_other_host(client):
    for path in ("/", "/page.js", "/page.css", "/docs"):
        text = client.get(path).text
        outside = [word for word in text.replace('"', " ").split() if "//" in word[:9]]
        assert [
            word for word in outside if "www.w3.org/2000/svg" not in word and word != "//"
        ] == []
        assert "<script>" not in text
        assert " style=" not in text
    docs = client.get("/docs").text
    for path in client.get("/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in docs


@pytest.mark.parametrize(
    "path",
    ["/../../../etc/passwd", "/page.css/../../options.py", "/%2e%2e/%2e%2e/etc/passwd",
     "/v1/live/..%2f..%2fetc%2fpasswd", "//etc/passwd", "/options.py", "/page/page.js",
     "/v1/live/%00"],
)  # fmt: skip
def test_no_file_of_the_server_is_to_be_had(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_what_is_counted(client, detector):
    client.post("/v1/detect", files=files(png(lamps()), png(lamps(seed=2))))
    client.post("/v1/derain", content=b"x")
    client.get("/nowhere/1")
    numbers = dict(
        line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if line[0] != "#"
    )
    assert numbers['rainmer_requests_total{path="/v1/detect",status="200"}'] == "1.0"
    assert numbers['rainmer_requests_total{path="/v1/derain",status="415"}'] == "1.0"
    assert numbers['rainmer_requests_total{path="other",status="404"}'] == "1.0"
    assert numbers['rainmer_batch_frames_sum{kind="detect"}'] == "2.0"
    assert numbers["rainmer_queue_frames"] == "0.0"
    for stage in ("decode", "queue", "derain", "detect"):
        assert float(numbers[f'rainmer_stage_seconds_sum{{stage="{stage}"}}']) > 0


@pytest.fixture(scope="module")
def one_client():
    engine = Engine(Derainer("none", device="cpu"), Bright())
    with TestClient(make_app(engine, SMALL), base_url=URL) as client:
        yield client


@settings(max_examples=60)
@given(
    content=st.sampled_from(sorted(small_files().values())),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    end=st.integers(0, 3000),
)
def test_damaged_files_are_answered_in_one_line(one_client, content, changes, end):
    damaged = bytearray(content)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    answer = one_client.post("/v1/derain", content=bytes(damaged[: max(end, 1)]))
    assert answer.status_code in (200, 413, 415)
    assert answer.status_code == 200 or "\n" not in answer.json()["error"]
