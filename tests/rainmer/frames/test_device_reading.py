"""Videos that torchcodec decodes onto a device: frames, numbers and times of the other reader."""

import importlib.util
import logging
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from rainmer.errors import ImageError
from rainmer.frames.video import DeviceFrame, DeviceReader, open_video
from tests.videos import record

CPU = torch.device("cpu")
CHANGING = [i / 30 for i in range(12)] + [0.4 + i / 10 for i in range(8)]


class StandIn:
    """torchcodec's decoder by its documentation, on frames that PyAV decodes.

    Attributes:
        fails_at: The frame that it cannot decode; None: it decodes all.
    """

    fails_at = None

    def __init__(self, source, *, stream_index, device):
        assert isinstance(source, str)
        assert isinstance(device, str)
        with open_video(source) as video:
            self.start_s, self.frames = float(video.info.start_s), list(video)
            assert stream_index == video.stream_index
        self.cpu_fallback = False

    def __len__(self):
        return len(self.frames)

    def get_frames_in_range(self, start, stop):
        if self.fails_at is not None and start <= self.fails_at < stop:
            raise RuntimeError("Could not push packet to decoder\nlong text")
        frames = self.frames[start:stop]
        return SimpleNamespace(
            data=torch.from_numpy(np.stack([f.image for f in frames])).permute(0, 3, 1, 2),
            pts_seconds=torch.tensor([self.start_s + f.time_s for f in frames]).double(),
            duration_seconds=torch.tensor([f.duration_s or 0.0 for f in frames]).double(),
        )


@pytest.fixture
def decoder(monkeypatch):
    module = ModuleType("torchcodec.decoders")
    module.VideoDecoder = type("VideoDecoder", (StandIn,), {})
    monkeypatch.setitem(sys.modules, "torchcodec", ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    return module.VideoDecoder


def pixels(frame):
    if isinstance(frame, DeviceFrame):
        return frame.image.permute(1, 2, 0).numpy()
    return frame.image


def assert_same(path, levels=0):
    """Compare both readers; return how many frames came as tensors."""
    with open_video(path) as video:
        wanted = list(video)
    with DeviceReader(path, CPU) as reader:
        assert reader.info == video.info
        got = list(reader)
    assert [f.number for f in got] == [f.number for f in wanted]
    assert [f.time_s for f in got] == [f.time_s for f in wanted]
    for one, other in zip(got, wanted, strict=True):
        assert one.duration_s == pytest.approx(other.duration_s)
        assert np.abs(pixels(one).astype(int) - other.image).max() <= levels
    return sum(isinstance(f, DeviceFrame) for f in got)


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv"])
@pytest.mark.usefixtures("decoder")
def test_frames_and_times_are_those_of_the_other_reader(tmp_path, suffix):
    assert assert_same(record(tmp_path / f"a{suffix}", CHANGING)) == 20


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_torchcodec_itself_agrees(tmp_path, suffix):
    if importlib.util.find_spec("torchcodec") is None:
        pytest.skip("torchcodec is not installed")
    try:
        importlib.import_module("torchcodec.decoders")
    except (OSError, RuntimeError) as error:
        pytest.skip(f"torchcodec finds no FFmpeg: {str(error).splitlines()[0]}")
    assert assert_same(record(tmp_path / f"a{suffix}", CHANGING), levels=2) == 20


def test_from_a_frame_on_that_fails_the_cpu_decodes(tmp_path, decoder, caplog):
    decoder.fails_at = 10
    with caplog.at_level(logging.WARNING):
        assert assert_same(record(tmp_path / "a.mp4", CHANGING)) == 8
    [line] = caplog.records
    assert line.message.endswith(
        "a.mp4: decoded without torchcodec: Could not push packet to decoder"
    )


def test_without_torchcodec_the_cpu_decodes(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with caplog.at_level(logging.WARNING):
        assert assert_same(record(tmp_path / "a.mp4", CHANGING)) == 0
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("decoder")
def test_what_decoders_show_in_different_ways_is_left_to_the_cpu(tmp_path, caplog):
    deep = record(tmp_path / "deep.mkv", CHANGING, codec="ffv1", pixels="yuv444p")
    with caplog.at_level(logging.WARNING):
        assert assert_same(deep) == 0
    [line] = caplog.records
    assert line.message.endswith("turned, interlaced, or not 8 bits of 4:2:0")


def test_a_file_that_is_no_video_is_refused_as_ever(tmp_path):
    with pytest.raises(ImageError, match="no video file"):
        DeviceReader(tmp_path / "none.mp4", CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_gpu_decodes_alike(tmp_path):
    pytest.importorskip("torchcodec")
    path = record(tmp_path / "a.mp4", CHANGING, size_hw=(240, 320))
    with open_video(path) as video:
        wanted = list(video)
    with DeviceReader(path, torch.device("cuda")) as reader:
        got = list(reader)
    assert [f.time_s for f in got] == [f.time_s for f in wanted]
    for one, other in zip(got, wanted, strict=True):
        assert one.image.device.type == "cuda"
        difference = one.image.permute(1, 2, 0).cpu().numpy().astype(int) - other.image
        assert np.abs(difference).mean() < 2
