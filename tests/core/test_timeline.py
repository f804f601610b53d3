"""Samples at their time stamps, and the remarks that say what stands between them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioset_core.audio.remarks import (
    MOST_REMARKS,
    RemarkKind,
    Remarks,
    is_partial,
    refuse_partial,
)
from audioset_core.audio.timeline import Timeline
from audioset_core.errors import AudioError, Reason

RATE_HZ = 16_000
FRAME = 1_024


def placed(stamps_s: list[float | None], **about: bool) -> tuple[list[float], Remarks]:
    """When each frame of 1,024 samples begins, in seconds."""
    remarks = Remarks()
    timeline = Timeline(RATE_HZ, 0.0, remarks, may_jump=about.get("may_jump", False))
    starts, n = [], 0
    for stamp_s in stamps_s:
        n_silent, n_dropped = timeline.place(stamp_s, FRAME)
        n += n_silent
        starts.append(n / RATE_HZ)
        n += FRAME - n_dropped
    return starts, remarks


@given(
    st.lists(st.floats(0.0, 30.0), min_size=1, max_size=30),
    st.floats(-0.004, 0.004),
)
def test_gaps_of_any_length_add_up(gaps_s: list[float], jitter_s: float) -> None:
    """Every frame stands where its stamp says, within FFmpeg's own tolerance."""
    stamps, at_s = [], 0.0
    for number, gap_s in enumerate(gaps_s):
        at_s += gap_s
        stamps.append(at_s + jitter_s * (-1) ** number)
        at_s += FRAME / RATE_HZ
    starts, _ = placed(list(stamps))
    for start_s, stamp_s in zip(starts, stamps, strict=True):
        assert start_s == pytest.approx(stamp_s, abs=0.101)


def test_frames_without_stamps_follow_each_other() -> None:
    starts, remarks = placed([None] * 5)
    assert starts == [n * FRAME / RATE_HZ for n in range(5)]
    assert remarks.all() == ()


def test_a_late_start_and_a_gap_are_said() -> None:
    starts, remarks = placed([6.0, 6.064, 11.0])
    assert starts == pytest.approx([6.0, 6.064, 11.0])
    late, gap = remarks.all()
    assert (late.kind, late.start_s, late.end_s) == (RemarkKind.LATE, 0.0, 6.0)
    assert (gap.kind, gap.start_s, gap.end_s) == (RemarkKind.GAP, 6.128, 11.0)


def test_what_begins_anew_stands_behind_what_was_there() -> None:
    stamps: list[float | None] = [n * 0.064 for n in range(50)]
    starts, remarks = placed(stamps + stamps)
    assert starts == pytest.approx([n * 0.064 for n in range(100)])
    assert [remark.kind for remark in remarks.all()] == [RemarkKind.JOINED]


def test_a_clock_that_is_fast_by_half_a_percent_is_followed() -> None:
    stamps: list[float | None] = [n * 0.064 * 0.995 for n in range(5_000)]
    starts, remarks = placed(stamps)
    assert starts[-1] == pytest.approx(stamps[-1], abs=0.2)
    assert remarks.all() == ()


def test_stamps_that_make_no_sense_cost_no_sound() -> None:
    starts, remarks = placed([n * 0.001 for n in range(2_000)])
    assert starts[-1] > 0.95 * 2_000 * 0.064 - 2.0
    assert is_partial(remarks.all())


@pytest.mark.parametrize(("may_jump", "expected_s"), [(False, 3_600.0), (True, 0.064)])
def test_where_stamps_may_jump_a_long_gap_is_closed_up(may_jump: bool, expected_s: float) -> None:
    starts, remarks = placed([0.0, 3_600.0], may_jump=may_jump)
    assert starts[1] == pytest.approx(expected_s)
    assert [remark.kind for remark in remarks.all()] == [RemarkKind.GAP]


def test_parts_that_touch_are_one_remark() -> None:
    remarks = Remarks()
    for start_s in (1.0, 1.5, 2.0, 7.0):
        remarks.add(RemarkKind.OPPOSED, "they cancel", start_s, start_s + 0.5)
    assert [(r.start_s, r.end_s) for r in remarks.all()] == [(1.0, 2.5), (7.0, 7.5)]


def test_thousands_of_remarks_are_counted() -> None:
    remarks = Remarks()
    for n in range(1_000):
        remarks.add(RemarkKind.GAP, "nothing", float(n), n + 0.5)
    found = remarks.all()
    assert len(found) == MOST_REMARKS + 1
    assert found[-1].detail == "950 more of these"


def test_who_is_strict_gets_the_first_reason() -> None:
    remarks = Remarks()
    remarks.add(RemarkKind.TRACKS, "another")
    refuse_partial(remarks.all())
    remarks.add(RemarkKind.GAP, "nothing", 3.0, 4.0)
    with pytest.raises(AudioError, match="nothing; refused by --strict") as caught:
        refuse_partial(remarks.all())
    assert caught.value.reason is Reason.DAMAGED
