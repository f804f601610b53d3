"""The decoded length of a recording against the length that its header states."""

from __future__ import annotations

from audioset_core.audio.header_facts import HeaderFacts
from audioset_core.audio.mono import StreamInfo
from audioset_core.audio.remarks import RemarkKind, Remarks

_SLACK_SAMPLES = 4 * 1152
"""MP3 and AAC encoders round lengths to frames of 1,152 and 1,024, and their delays differ."""
_ROUNDED = ("MP3/", "MPEG/", "MP4/", "Matroska/", "OGG/", "APM/", "AST/")
_SLIGHT_S = 0.1
"""A recording that lacks less than this is not partial."""
_ESTIMATED = frozenset({"MP3", "AAC", "AC-3", "ID3 tag", "WAV", "AVI", None})
"""Formats whose length FFmpeg estimates by the first frames, or by a size that is checked."""
_MUCH = 0.5
"""At least this part of the length that an index or a container states should be decoded."""


def compare_lengths(n_samples: int, info: StreamInfo, seen: HeaderFacts, remarks: Remarks) -> None:
    """Compare the decoded samples with the length that the header states, and add the remarks."""
    rate_hz = info.sample_rate_hz
    here_s = n_samples / rate_hz
    promised = max(info.promised_samples or 0, seen.tagged_samples or 0)
    if seen.missing is not None:
        stated, present = seen.missing
        promised = max(promised, -(-n_samples * stated // max(1, present)))
    elif seen.tagged_samples and n_samples > seen.tagged_samples + slack_samples(info):
        detail = f"the MP3's tag counts {seen.tagged_samples / rate_hz:.2f} s, more follows it"
        remarks.add(RemarkKind.JOINED, detail, seen.tagged_samples / rate_hz)
    if seen.fault == "cut":
        detail = f"the Ogg stream breaks off after {here_s:.2f} s"
        remarks.add(RemarkKind.TRUNCATED, detail, here_s)
    elif promised > n_samples + (0 if seen.missing else slack_samples(info)):
        detail = f"the header states {promised / rate_hz:.2f} s, {here_s:.2f} s are there"
        remarks.drop_end(RemarkKind.DAMAGED, here_s - _SLIGHT_S)
        remarks.drop_end(RemarkKind.TRUNCATED, here_s - _SLIGHT_S)
        if remarks.has(RemarkKind.DAMAGED):
            remarks.add(RemarkKind.DAMAGED, detail)  # the missing part was in the middle
        else:
            is_slight = (promised - n_samples) / rate_hz < _SLIGHT_S
            kind = RemarkKind.SIZE if is_slight else RemarkKind.TRUNCATED
            remarks.add(kind, detail, here_s, promised / rate_hz)
    elif promised:
        # The stated length is there: what cannot be decoded after it is not sound.
        remarks.drop_end(RemarkKind.TRUNCATED, here_s - _SLIGHT_S)
    elif seen.kind not in _ESTIMATED and here_s < _MUCH * (info.expected_s or 0.0):
        detail = f"the container lasts {info.expected_s:.2f} s, {here_s:.2f} s are there"
        remarks.add(RemarkKind.TRUNCATED, detail, here_s, info.expected_s)
    if seen.fault == "chained" and not remarks.has(RemarkKind.JOINED):
        detail = f"another Ogg stream follows the first, which is {here_s:.2f} s long"
        remarks.add(RemarkKind.UNREAD, detail, here_s)


def slack_samples(info: StreamInfo) -> int:
    """Samples by which the stated length may be rounded."""
    return _SLACK_SAMPLES if info.format.startswith(_ROUNDED) else 0
