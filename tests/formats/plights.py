"""What happens to recordings: written to a pipe, cut, tagged, spoilt, interrupted, joined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tests.formats.kinds import Kind
from tests.formats.makers import F32, Take, mux
from tests.torture.makers import id3

LENGTH_S = 6.0
BURSTS_S = tuple(n + 0.25 for n in range(6))
"""When the bursts of the test sound begin: each has a pitch of its own and lasts 0.3 s."""
BURST_S = 0.3
LOST_S = (1.7, 3.7)
LATE_S = 2.5


def bursts(rate_hz: int, n_channels: int, pitch: float = 1.0) -> F32:
    """Six bursts over silence that is not quite silent. Shape: ``[n, n_channels]``."""
    t = np.arange(round(LENGTH_S * rate_hz)) / rate_hz
    sound = 1e-4 * np.random.default_rng(0).standard_normal(len(t))
    for n, start_s in enumerate(BURSTS_S):
        inside = (t >= start_s) & (t < start_s + BURST_S)
        sound += inside * 0.5 * np.sin(2 * np.pi * pitch * (400 + 150 * n) * t)
    return np.repeat(sound[:, np.newaxis], n_channels, axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Plight:
    """``make`` gives the file, or None where the kind cannot come into it.

    ``missing``: something of the sound is not in the file any more.
    """

    name: str
    make: Callable[[Kind], bytes | None]
    missing: bool = False
    bursts_s: tuple[float, ...] = BURSTS_S
    length_s: float = LENGTH_S


def _take(kind: Kind, **how: object) -> Take:
    return Take(bursts(kind.rate_hz, kind.n_channels), kind.rate_hz, **how)  # type: ignore[arg-type]


@lru_cache(maxsize=4)
def written(kind: Kind) -> bytes:
    """The kind as its muxer writes it."""
    return mux(kind.muxer, kind.codec, [_take(kind)])


def _piped(kind: Kind) -> bytes:
    options = {"movflags": "empty_moov+frag_keyframe"} if kind.muxer in _MP4 else {}
    return mux(kind.muxer, kind.codec, [_take(kind)], is_piped=True, options=options)


def _cut(share: float) -> Callable[[Kind], bytes]:
    return lambda kind: (data := written(kind))[: int(len(data) * share)]


def _spoilt(kind: Kind) -> bytes:
    data = bytearray(written(kind))
    at = len(data) * 55 // 100
    data[at : at + 40] = np.random.default_rng(1).bytes(40)
    return bytes(data)


def _lost(kind: Kind) -> bytes | None:
    return mux(kind.muxer, kind.codec, [_take(kind, lost=LOST_S)]) if kind.stamps else None


def _late(kind: Kind) -> bytes | None:
    """A second track begins at once, as a camera's picture does."""
    if not kind.stamps:
        return None
    early = Take(bursts(kind.rate_hz, kind.n_channels) * 0, kind.rate_hz)
    late = _take(kind, start_s=LATE_S, is_default=True)
    return mux(kind.muxer, kind.codec, [early, late])


def _two_tracks(kind: Kind) -> bytes | None:
    if not kind.stamps and kind.muxer not in ("avi", "ogg"):
        return None
    other = Take(bursts(kind.rate_hz, kind.n_channels, 2.0), kind.rate_hz)
    return mux(kind.muxer, kind.codec, [_take(kind), other])


def _with_size(value: Callable[[int], int]) -> Callable[[Kind], bytes | None]:
    """The file with another size of its samples in the header."""

    def make(kind: Kind) -> bytes | None:
        place = _SIZES.get(kind.muxer)
        if place is None:
            return None
        mark, offset, n_bytes, order = place
        data = bytearray(written(kind))
        at = data.find(mark) + offset
        own = int.from_bytes(data[at : at + n_bytes], order)  # type: ignore[arg-type]
        data[at : at + n_bytes] = value(own).to_bytes(n_bytes, order)  # type: ignore[arg-type]
        return bytes(data)

    return make


_SIZES = {
    "wav": (b"data", 4, 4, "little"), "aiff": (b"SSND", 4, 4, "big"),
    "au": (b".snd", 8, 4, "big"),
}  # fmt: skip
_MP4 = frozenset({"mov", "mp4", "ipod", "3gp", "3g2", "psp", "f4v"})
_COVER = np.random.default_rng(2).bytes(70_000)
_ID3V1 = b"TAG" + b"A title".ljust(125, b"\0")
_APE = b"APETAGEX" + (2000).to_bytes(4, "little") + (32).to_bytes(4, "little") + bytes(16)

PLIGHTS: tuple[Plight, ...] = (
    Plight("as written", written),
    Plight("piped", _piped),
    Plight("ID3v2 before", lambda kind: id3(500, bytes(500)) + written(kind)),
    Plight("cover before", lambda kind: id3(70_000, _COVER) + written(kind)),
    Plight("zeros before", lambda kind: bytes(4_096) + written(kind)),
    Plight("ID3v1 behind", lambda kind: written(kind) + _ID3V1),
    Plight("APE tag behind", lambda kind: written(kind) + _APE),
    Plight("zeros behind", lambda kind: written(kind) + bytes(4_096)),
    Plight("cut at 40 %", _cut(0.4), missing=True),
    Plight("cut at 75 %", _cut(0.75), missing=True),
    Plight("cut at 97 %", _cut(0.97), missing=True),
    Plight("size 0", _with_size(lambda own: 0)),
    Plight("size all ones", _with_size(lambda own: 2**32 - 1)),
    Plight("size wrapped", _with_size(lambda own: own // 10 // 4 * 4)),
    Plight("size 16 too large", _with_size(lambda own: own + 16)),
    Plight("size 16 too small", _with_size(lambda own: own - 16)),
    Plight("spoilt amid", _spoilt),
    Plight("2 s lost", _lost, missing=True),
    Plight(
        "late start", _late, bursts_s=tuple(at + LATE_S for at in BURSTS_S),
        length_s=LENGTH_S + LATE_S,
    ),
    Plight("two tracks", _two_tracks),
    Plight(
        "joined twice", lambda kind: written(kind) * 2, length_s=2 * LENGTH_S,
        bursts_s=(*BURSTS_S, *(at + LENGTH_S for at in BURSTS_S)),
    ),
)  # fmt: skip
