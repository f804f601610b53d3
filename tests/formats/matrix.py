"""A cell of the matrix: a kind of recording in a plight, what becomes of it, is that right.

Right is that the bursts of the test sound stand where FFmpeg's command line puts them
(``-af aresample=async=1:first_pts=0``), or that a remark or a documented reason says why not.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from audioset_core.audio.recording import Recording
from audioset_core.audio.remarks import Remark, is_partial
from audioset_core.errors import AudioError, Reason
from tests.formats.kinds import KINDS, Kind
from tests.formats.makers import F32
from tests.formats.plights import PLIGHTS, Plight

PATCH_HOP_S = 0.48
_FRAME_S = 0.01


UNTOLD = {
    "s16le": "raw samples: nothing in the file tells their rate",
    "g722": "frames without a header: nothing in the file tells them",
    "rso": "nothing but the ending tells the format",
}
"""Formats that are refused although FFmpeg's command line plays them, and why."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was decoded: its length, when bursts begin, and what is said of it."""

    length_s: float
    bursts_s: tuple[float, ...]
    remarks: tuple[Remark, ...] = ()
    refusal: str = ""

    @property
    def verdict(self) -> str:
        """In a word or two: ``whole``, the kinds of its remarks, or the reason of refusal."""
        if self.refusal:
            return f"refused: {self.refusal}"
        kinds = ", ".join(sorted({remark.kind for remark in self.remarks}))
        return ("partial: " if is_partial(self.remarks) else "") + kinds or "whole"


def ours(path: Path) -> Heard:
    """As a run of audioset reads it."""
    try:
        with Recording(os.fsencode(path)) as recording:
            samples = np.concatenate([*recording.blocks()])
            rate_hz = recording.info.sample_rate_hz
            return Heard(len(samples) / rate_hz, _bursts(samples, rate_hz), recording.remarks)
    except AudioError as error:
        return Heard(0.0, (), refusal=str(error.reason))


def theirs(path: Path) -> Heard | None:
    """As FFmpeg's command line plays it; None where there is none."""
    if shutil.which("ffmpeg") is None:
        return None
    rate_hz = 16_000
    found = subprocess.run(
        ["ffmpeg", "-v", "quiet", "-threads", "1", "-i", str(path), "-vn", "-af",
         "aresample=async=1:first_pts=0", "-ac", "1", "-ar", str(rate_hz), "-f", "f32le", "-"],
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    samples = np.frombuffer(found.stdout[: len(found.stdout) // 4 * 4], np.float32)
    return Heard(len(samples) / rate_hz, _bursts(samples, rate_hz))


def cells() -> Iterator[tuple[Kind, Plight]]:
    """Every kind in every plight, though some cannot come into each."""
    return itertools.product(KINDS, PLIGHTS)


def made(kind: Kind, plight: Plight) -> bytes | None:
    """The file of a cell; None where there is none, or FFmpeg does not write it."""
    try:
        return plight.make(kind)
    except (av.FFmpegError, ValueError):
        return None


def fault(kind: Kind, plight: Plight, heard: Heard, oracle: Heard | None) -> str:
    """What is wrong with a cell; empty if nothing is."""
    if heard.refusal:
        is_documented = kind.muxer in UNTOLD or heard.refusal == Reason.NOT_FINITE
        if is_documented or oracle is None or not oracle.bursts_s:
            return ""
        return f"refused ({heard.refusal}), though FFmpeg plays it"
    if plight.missing and kind.ends and not is_partial(heard.remarks):
        return "a part is missing, and nothing says so"
    if _agree(heard, Heard(plight.length_s, plight.bursts_s)):
        return ""
    if oracle is None:
        is_told = bool(heard.remarks) or (plight.missing and not kind.ends)
        return "" if is_told else f"bursts at {heard.bursts_s}, without a remark"
    if _agree(heard, oracle):
        return ""
    if len(heard.bursts_s) >= len(oracle.bursts_s) or is_partial(heard.remarks):
        return "" if heard.remarks else f"unlike FFmpeg ({oracle}), without a remark"
    return f"less than FFmpeg gives ({oracle})"


def _agree(one: Heard, other: Heard) -> bool:
    """Whether lengths are the same within a hop, and bursts begin within half of one."""
    is_as_long = abs(one.length_s - other.length_s) <= PATCH_HOP_S
    return (
        is_as_long
        and len(one.bursts_s) == len(other.bursts_s)
        and all(
            abs(a - b) <= PATCH_HOP_S / 2 for a, b in zip(one.bursts_s, other.bursts_s, strict=True)
        )
    )


def _bursts(samples: F32, rate_hz: int) -> tuple[float, ...]:
    """When the sound becomes loud."""
    n = max(1, round(_FRAME_S * rate_hz))
    frames = samples[: len(samples) // n * n].reshape(-1, n)
    loud = np.sqrt(np.mean(frames.astype(np.float64) ** 2, axis=1)) > 0.1
    # Shorter holes are a coder's or a tone's own.
    starts: list[float] = []
    last = -1.0
    for at in np.flatnonzero(loud) * _FRAME_S:
        if at - last > 0.1:
            starts.append(round(float(at), 2))
        last = float(at)
    return tuple(starts)
