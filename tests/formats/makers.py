"""Recordings in any container and coding, written by FFmpeg's own muxers and encoders."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Take:
    """A track to be written. Shape of samples: ``[n, n_channels]``.

    ``start_s``: its first time stamp; ``lost``: (from, to) seconds that are left out, while the
    time stamps go on.
    """

    samples: F32
    rate_hz: int
    start_s: float = 0.0
    lost: tuple[float, float] | None = None
    is_default: bool = field(default=False)


def mux(
    container: str,
    codec: str,
    takes: Sequence[Take],
    *,
    is_piped: bool = False,
    options: dict[str, str] | None = None,
) -> bytes:
    """The takes as a file; ``is_piped``: nothing that was written can be changed any more."""
    target: Any = _Pipe() if is_piped else io.BytesIO()
    with av.open(target, "w", format=container, options=options or {}) as file:
        streams = [_stream(file, codec, take) for take in takes]
        packets: list[tuple[float, Any]] = []
        for take, stream in zip(takes, streams, strict=True):
            packets += _packets(take, stream)
        packets.sort(key=lambda timed: timed[0])
        for _, packet in packets:
            file.mux(packet)
    return bytes(target.getvalue())


def _stream(file: Any, codec: str, take: Take) -> Any:
    layout = {1: "mono", 2: "stereo"}[take.samples.shape[1]]
    stream = file.add_stream(codec, rate=take.rate_hz, layout=layout)
    if codec == "vorbis":
        stream.codec_context.options = {"strict": "experimental"}
    stream.codec_context.bit_rate = 128_000 if take.rate_hz > 16_000 else 12_200
    if take.is_default:
        stream.disposition = 1
    return stream


def _packets(take: Take, stream: Any) -> Iterator[tuple[float, Any]]:
    """Encoded packets with their times in seconds."""
    context = stream.codec_context
    layout = context.layout
    fit = av.AudioResampler(
        context.format, layout, take.rate_hz, frame_size=context.frame_size or 1024
    )
    whole = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(take.samples.T), format="fltp", layout=layout.name
    )
    whole.sample_rate, whole.pts = take.rate_hz, 0
    for frame in [*fit.resample(whole), *fit.resample(None), None]:
        if frame is not None:
            frame.pts = frame.pts + round(take.start_s * take.rate_hz)
        for packet in stream.encode(frame):
            at_s = float((packet.pts or 0) * packet.time_base)
            lost = take.lost
            if lost is None or not lost[0] <= at_s - take.start_s < lost[1]:
                yield at_s, packet


class _Pipe(io.RawIOBase):
    """A file that only goes forward, as a pipe does."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: Any) -> int:
        self._data += bytes(data)
        return len(data)

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def getvalue(self) -> bytes:
        return bytes(self._data)
