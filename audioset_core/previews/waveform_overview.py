"""Envelope and log-mel of a recording of any length, for a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from audioset_core.arrays import F32
from audioset_core.audio.decoders import DecodeOptions
from audioset_core.audio.recording import Recording
from audioset_core.audio.resample import resampled
from audioset_core.errors import AudioError, Reason
from audioset_core.features.config import YAMNET
from audioset_core.features.log_mel import LogMelStream
from audioset_core.features.mel import hz_to_htk
from audioset_core.previews.columns import ColumnPeaks

FRAME_S = YAMNET.frame_hop_samples / YAMNET.sample_rate_hz


@dataclass(frozen=True, slots=True)
class Overview:
    """Columns of equal width over ``duration_s``; NaN for a column without data.

    Log-mel ends at ``mel_end_s``, the end of the last frame's hop.

    Shape:
        low, high: [n_columns], samples; log_mel: [n_mel_columns, 64], YAMNet's front end
    """

    duration_s: float
    mel_end_s: float
    low: F32
    high: F32
    log_mel: F32


def read_overview(
    path: bytes,
    sha256: str,
    n_samples: int,
    n_columns: int,
    options: DecodeOptions | None = None,
) -> Overview:
    """Decode a recording once, in bounded memory. Log-mel shows YAMNet's input.

    Raises:
        AudioError: the file is unreadable, or its content has another digest.
    """
    with Recording(path, options) as recording:
        if recording.sha256 != sha256:
            raise AudioError(Reason.CHANGED, "the file's content is not what was labelled")
        rate_hz = recording.info.sample_rate_hz
        return overview_of(recording.blocks(), rate_hz, n_samples, n_columns)


def overview_of(blocks: Iterator[F32], rate_hz: int, n_samples: int, n_columns: int) -> Overview:
    """As `read_overview`, of mono blocks from any source with ``n_samples`` in all."""
    duration_s = n_samples / rate_hz
    wave = ColumnPeaks(n_samples, n_columns)
    n_frames = max(1, math.ceil(duration_s / FRAME_S - 1e-9))
    mel = ColumnPeaks(n_frames, n_columns, YAMNET.n_mels)
    stream = LogMelStream(YAMNET)
    for block in resampled(_tapped(blocks, wave), rate_hz, YAMNET.sample_rate_hz):
        mel.push(stream.push(block))
    mel.push(stream.finish())
    return Overview(duration_s, n_frames * FRAME_S, wave.low, wave.high, mel.high)


def band_of_hz(frequency_hz: float) -> float:
    """The position of a frequency among the mel bands, whose centres are 0, 1, ... (HTK mel).

    >>> round(band_of_hz(1000.0), 2)
    19.46

    Source: audioset_core.features.mel; centres are evenly spaced in mel, the two ends left out.
    """
    at, low, high = hz_to_htk(np.array([frequency_hz, YAMNET.mel_min_hz, YAMNET.mel_max_hz]))
    return float((at - low) / (high - low) * (YAMNET.n_mels + 1) - 1)


def _tapped(blocks: Iterator[F32], wave: ColumnPeaks) -> Iterator[F32]:
    for block in blocks:
        wave.push(block)
        yield block
