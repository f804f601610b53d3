"""Sound of spans: to be played, as the page's script puts them one after the other, and to be kept.

A browser plays only some formats, finds places in some of these wrongly (MP3 of variable rate),
and keeps all that it decodes: so spans are decoded here, and sent as WAV at a rate that every
browser takes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from audioset_core.cuts.recording_cuts import Cut, LabelledFile, write_cuts
from audioset_core.errors import AudioError
from audioset_core.previews.spans import SeenFile, SpanReader
from db.records import Clip
from flows.app.recording.overviews import GONE

SLOWED = 10
MOST_CUT_S = 3600.0
"""Of one file; for more there is `audioset clips export`."""
_LEAST_HZ, _MOST_HZ, _RAISED_HZ = 8_000, 48_000, 16_000
# The resampler's filter is shorter than this, at either rate.
_BEFORE_S = 0.05


def played_hz(rate_hz: int, slowed: int) -> int:
    """The rate of what is sent: the recording's own, by `slowed`, where browsers play that.

    >>> played_hz(44_100, 1), played_hz(192_000, 1), played_hz(192_000, 10), played_hz(4_000, 1)
    (44100, 48000, 19200, 16000)
    """
    stated = rate_hz / slowed
    if stated > _MOST_HZ:
        return _MOST_HZ
    return round(stated) if stated >= _LEAST_HZ else _RAISED_HZ


def wav_of_span(
    spans: SpanReader,
    files: Sequence[SeenFile],
    clip: Clip,
    start_s: float,
    end_s: float,
    slowed: int,
) -> bytes:
    """A span as WAV, 16 bits, two channels if there are two, else mono; `slowed` times as long.

    Spans that follow each other are equal to the whole: the first sample of each is at the first
    moment of a common grid that is not before its start.

    Raises:
        AudioError: none of the files can be read.
    """
    rate_hz = clip.sample_rate_hz
    sent_hz = played_hz(rate_hz, slowed)
    # So many samples that are sent stand for so many that are stored.
    common = math.gcd(rate_hz, sent_hz * slowed)
    sent, stored = sent_hz * slowed // common, rate_hz // common
    first, last = round(start_s * rate_hz), min(clip.n_samples, round(end_s * rate_hz))
    margin = 0 if sent == stored else math.ceil(_BEFORE_S * rate_hz)
    begin = max(0, first - margin) // stored * stored
    samples = _read(
        spans,
        files,
        begin / rate_hz,
        min(clip.n_samples, last + margin) / rate_hz,
        clip.n_channels == 2,
    )
    if sent != stored:
        samples = soxr.resample(samples, stored, sent, quality="HQ")
    kept = [-(-at * sent // stored) - begin * sent // stored for at in (first, last)]
    stream = io.BytesIO()
    heard = np.clip(samples[kept[0] : kept[1]], -1, 1 - 2**-15)
    soundfile.write(stream, heard, sent_hz, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def _read(
    spans: SpanReader, files: Sequence[SeenFile], start_s: float, end_s: float, all_channels: bool
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    failed = GONE
    for file in files:
        try:
            samples, _ = spans.read(file, start_s, end_s, all_channels=all_channels)
        except AudioError as error:
            failed = error
        else:
            return np.asarray(samples, np.float32)
    raise failed


def write_cut(files: Sequence[SeenFile], clip: Clip, first: int, last: int, folder: Path) -> Path:
    """Samples ``[first, last)`` of a recording as FLAC, or as WAV where only that holds them, as
    `audioset clips export` writes them.

    Raises:
        AudioError: none of the files can be read.
    """
    failed = GONE
    for file in files:
        source = LabelledFile(
            file.path, file.size_bytes, file.mtime_ns, clip.sha256, clip.sample_rate_hz,
            file.track, file.is_partial,
        )  # fmt: skip
        for _, result in write_cuts(source, [Cut(first, last, folder / "cut")], "flac"):
            if not isinstance(result, AudioError):
                return result.path
            failed = result
    raise failed
