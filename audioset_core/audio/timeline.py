"""Samples at their container's time stamps: where silence is put, and what is left out.

Source: https://ffmpeg.org/ffmpeg.html (-dts_delta_threshold),
https://ffmpeg.org/ffmpeg-resampler.html (async, min_hard_comp).
"""

from __future__ import annotations

from audioset_core.audio.remarks import RemarkKind, Remarks

JITTER_S = 0.1
"""Stamps may differ so much from the count of samples, as in FFmpeg's own resampler."""
_OVERLAP_S = 1.0
"""A jump back of up to so much is the drift of a clock; after a longer one a new part begins."""
_DRIFT = 0.01
"""At most this part of the sound is dropped to follow such a clock; then its stamps are ignored."""
_DISCONTINUITY_S = 10.0
"""In streams whose stamps may jump (MPEG-TS), a longer jump forward gets no silence."""
_LONGEST_GAP_S = 12 * 3600.0


class Timeline:
    """Counts samples, and compares the count with their time stamps."""

    def __init__(
        self, rate_hz: int, origin_s: float, remarks: Remarks, *, may_jump: bool = False
    ) -> None:
        self._rate_hz, self._origin_s, self._remarks = rate_hz, origin_s, remarks
        self._may_jump = may_jump
        self._n, self._shift_s, self._dropped_s = 0, 0.0, 0.0

    def place(
        self, stamp_s: float | None, n_samples: int, is_behind_loss: bool = False
    ) -> tuple[int, int]:
        """(samples of silence to put before these samples, how many of these to leave out)."""
        n_silent, n_dropped = 0, 0
        if stamp_s is not None:
            here_s = self._n / self._rate_hz
            ahead_s = stamp_s - self._origin_s + self._shift_s - here_s
            least_s = n_samples / self._rate_hz / 2 if is_behind_loss else JITTER_S
            if ahead_s > least_s:
                n_silent = self._silence(here_s, ahead_s, is_behind_loss)
            elif ahead_s < -_OVERLAP_S:
                self._shift_s -= ahead_s
                detail = f"time stamps jump back by {-ahead_s:.2f} s; what follows is labelled, too"
                self._remarks.add(RemarkKind.JOINED, detail, here_s)
            elif ahead_s < -JITTER_S and self._dropped_s > _OVERLAP_S + _DRIFT * here_s:
                self._shift_s -= ahead_s
                self._remarks.add(RemarkKind.DAMAGED, "time stamps fall behind the sound")
            elif ahead_s < -JITTER_S:
                n_dropped = min(n_samples, round(-ahead_s * self._rate_hz))
                self._dropped_s += n_dropped / self._rate_hz
        self._n += n_silent + n_samples - n_dropped
        return n_silent, n_dropped

    def _silence(self, here_s: float, ahead_s: float, is_behind_loss: bool) -> int:
        """Samples of silence for a jump forward."""
        longest_s = _DISCONTINUITY_S if self._may_jump and self._n else _LONGEST_GAP_S
        if ahead_s > longest_s:
            self._shift_s -= ahead_s
            self._remarks.add(
                RemarkKind.GAP,
                f"time stamps jump by {ahead_s:,.2f} s; no silence is put there",
                here_s,
            )
            return 0
        end_s = here_s + ahead_s
        if not self._n:
            detail = f"the sound begins {ahead_s:.2f} s after the recording"
            self._remarks.add(RemarkKind.LATE, detail, 0.0, end_s)
        elif not is_behind_loss:
            detail = "nothing was recorded here; silence is put in its place"
            self._remarks.add(RemarkKind.GAP, detail, here_s, end_s)
        return round(ahead_s * self._rate_hz)
