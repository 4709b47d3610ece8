"""Sound and subtitles of a video, copied into another file packet by packet."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import av
import av.container
from av.stream import Stream

from rainmer.frames.video.reading import VideoInfo, open_input

__all__ = ["CopiedStreams"]

_KINDS = ("audio", "subtitle")
# Written anew, or true of the source only.
_OWN_METADATA = frozenset({"compatible_brands", "encoder", "major_brand", "minor_version"})

_logger = logging.getLogger(__name__)


class CopiedStreams:
    """The sound and the subtitles of a file on their way into another one, nothing re-encoded.

    Streams that the other container cannot hold are named in a warning and left out.

    Args:
        source: The file.
        output: Where they go; its header must not be written yet.
        target: Its name, for messages.
    """

    def __init__(
        self, source: VideoInfo, output: av.container.OutputContainer, target: Path
    ) -> None:
        self._source = source
        self._output = output
        self._container = open_input(source.path)
        self._streams: dict[int, Stream] = {}
        self._last_dts: dict[int, int] = {}
        self._dropped = 0
        for stream in self._container.streams:
            if stream.type in _KINDS:
                self._add(stream, target)
        own = {k: v for k, v in self._container.metadata.items() if k not in _OWN_METADATA}
        output.metadata.update(own)
        self._packets = self._read()
        self._waiting: av.Packet[Stream] | None = None

    def __enter__(self) -> CopiedStreams:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._container.close()
        if self._dropped:
            _logger.warning(
                "%s: %d packets of sound or subtitles have no usable time: left out",
                self._source.path,
                self._dropped,
            )

    def copy(self, until_s: float | None) -> None:
        """Copy what belongs before a time in seconds; None: the rest."""
        while (packet := self._waiting or next(self._packets, None)) is not None:
            stamp = packet.dts if packet.dts is not None else packet.pts
            if stamp is None or packet.time_base is None:
                self._dropped += 1
                self._waiting = None
                continue
            time_s = float(stamp * packet.time_base - self._source.start_s)
            if until_s is not None and time_s > until_s:
                self._waiting = packet
                return
            self._waiting = None
            self._mux(packet)

    def _add(self, stream: Stream, target: Path) -> None:
        try:
            if stream.codec_context is None:
                raise ValueError("of an unknown codec")
            copy = self._output.add_stream_from_template(stream)
        except (ValueError, av.FFmpegError):
            codec = stream.codec_context.name if stream.codec_context else "of an unknown codec"
            _logger.warning(
                "%s cannot hold stream %d of %s (%s, %s): left out",
                *(target, stream.index, self._source.path, stream.type, codec),
            )
            return
        copy.metadata.update(stream.metadata)
        self._streams[stream.index] = copy

    def _read(self) -> Iterator[av.Packet[Stream]]:
        # A damaged file ends here where its video ends; that is told for the video.
        chosen = [self._container.streams[index] for index in self._streams]
        with contextlib.suppress(av.FFmpegError):
            for packet in self._container.demux(chosen) if chosen else ():
                if packet.size:
                    yield packet

    def _mux(self, packet: av.Packet[Stream]) -> None:
        index = packet.stream.index
        start = round(self._source.start_s / packet.time_base)
        stamp = packet.dts if packet.dts is not None else packet.pts
        assert stamp is not None
        if stamp <= self._last_dts.get(index, stamp - 1):
            self._dropped += 1  # muxers refuse times that do not rise
            return
        self._last_dts[index] = stamp
        if packet.pts is not None:
            packet.pts -= start
        packet.dts = stamp - start
        packet.stream = self._streams[index]
        self._output.mux(packet)
