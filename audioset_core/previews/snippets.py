"""Short pieces of recordings for a page: decoded, resampled, and encoded in memory.

MP3 because every browser plays it; mono, at a rate that is enough to judge a sound.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import soundfile

from audioset_core.arrays import F32
from audioset_core.audio.decoders import DecodeOptions
from audioset_core.audio.resample import resampled
from audioset_core.previews.spans import SeenFile, read_span
from audioset_core.previews.waveform_overview import overview_of

RATE_HZ = 24_000
_COMPRESSION = 0.75
"""On libsndfile's scale from 0 (best) to 1 (smallest): about 40 kbit/s here."""


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of a recording.

    Shape:
        samples: [n], mono at `RATE_HZ`; log_mel: [n_columns, 64]
    """

    start_s: float
    length_s: float
    samples: F32
    log_mel: F32


def centred_span(
    peak_s: float | None, window_s: float, duration_s: float, length_s: float
) -> tuple[float, float]:
    """Start and end of a piece of a clip, around the patch at `peak_s` and inside the clip.

    The piece has the whole of the patch's window, even if that is longer than `length_s`: the score
    says that the class is somewhere in the window, so a person has to hear all of it.

    >>> centred_span(60.0, 0.96, 600.0, 6.0), centred_span(60.0, 10.0, 600.0, 6.0)
    ((57.48, 63.48), (60.0, 70.0))
    """
    length_s = max(length_s, window_s)
    middle = (peak_s or 0.0) + window_s / 2
    start_s = max(0.0, min(middle - length_s / 2, duration_s - length_s))
    return start_s, min(duration_s, start_s + length_s)


def read_snippet(
    path: bytes,
    seen: tuple[int, int],
    start_s: float,
    end_s: float,
    n_columns: int,
    options: DecodeOptions | None = None,
) -> Snippet:
    """Decode a piece of a file; `seen` is its size and time of change (ns) when it was labelled.

    Raises:
        AudioError: the file is gone, has changed, is unreadable, or is too short.
    """
    track = (options or DecodeOptions()).track
    samples, rate_hz = read_span(SeenFile(path, *seen, track), start_s, end_s)
    log_mel = overview_of(iter([samples]), rate_hz, len(samples), n_columns).log_mel
    heard = np.concatenate([*resampled(iter([samples]), rate_hz, RATE_HZ)])
    return Snippet(start_s, len(samples) / rate_hz, heard, log_mel)


def mp3_bytes(snippet: Snippet) -> bytes:
    """The samples as an MP3 file."""
    stream = io.BytesIO()
    samples = np.clip(snippet.samples, -1, 1)
    soundfile.write(stream, samples, RATE_HZ, format="MP3", compression_level=_COMPRESSION)
    return stream.getvalue()
