from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioset_core.errors import UserError
from audioset_core.recording_times import TimeRule, compiled, find_zone, rule_for, start_time

MORNING = datetime(2024, 5, 18, 4, 30, tzinfo=UTC)


def _ms(when: datetime) -> int:
    return round(when.timestamp() * 1000)


@pytest.mark.parametrize(
    "name",
    [
        "20240518_043000.wav",
        "SMU01234_20240518_043000.wav",
        "2024-05-18T04-30-00Z.flac",
        "2024-05-18 04.30.00.mp3",
        "20240518T043000+0000_site-3.wav",
        "20240518T063000+0200.wav",
        "20240518T000000-0430.wav",
        "rec-20240518043000.wav",
        "12345678_20240518_043000_001.wav",
        "66482EC8.WAV",
    ],
)
def test_names_of_recorders(name: str) -> None:
    found = start_time(f"/20010101_000000/{name}")
    assert found is not None
    assert found.unix_ms == _ms(MORNING)


@pytest.mark.parametrize(
    "name",
    [
        "20241318_043000.wav",
        "20240518_250000.wav",
        "20240518.wav",
        "0000000F.wav",
        "track 12.wav",
        "120240518_0430001.wav",
        "18991231_000000.wav",
        "deadbeef.wav",
        "2024-0518_043000.wav",
    ],
)
def test_what_tells_no_time(name: str) -> None:
    assert start_time(f"/a/{name}") is None


def test_fractions_of_a_second() -> None:
    found = start_time("/2024-05-18T04-30-00.250Z.wav")
    assert found is not None
    assert found.unix_ms == _ms(MORNING) + 250


def test_a_zone_counts_where_the_name_gives_none() -> None:
    berlin = TimeRule(timezone="Europe/Berlin")
    summer, winter = (
        start_time("/20240518_063000.wav", None, berlin),
        start_time("/20240118_053000.wav", None, berlin),
    )
    assert summer is not None
    assert winter is not None
    assert (summer.unix_ms, summer.utc_offset_s) == (_ms(MORNING), 7200)
    assert (winter.unix_ms, winter.utc_offset_s) == (_ms(MORNING.replace(month=1)), 3600)
    assert summer.found_by == "name, Europe/Berlin"
    given = start_time("/20240518_043000Z.wav", None, berlin)
    assert given is not None
    assert (given.unix_ms, given.found_by) == (_ms(MORNING), "name, zone given there")
    assumed = start_time("/20240518_043000.wav")
    assert assumed is not None
    assert assumed.found_by == "name, UTC assumed"


@pytest.mark.parametrize(
    "value",
    ["2024-05-18T04:30:00Z", "2024-05-18T06:30:00+02:00", MORNING.timestamp(), "1716006600"],
)
def test_a_manifest_comes_before_the_name(value: object) -> None:
    found = start_time("/20010101_000000.wav", {"start_time": value})
    assert found is not None
    assert found.unix_ms == _ms(MORNING)
    assert found.found_by == "manifest's start_time, zone given there"


@pytest.mark.parametrize("value", ["", "yesterday", None, True, [1], float("inf"), 1e300, {}])
def test_a_manifest_that_tells_no_time_leaves_it_to_the_name(value: object) -> None:
    found = start_time("/20240518_043000.wav", {"recorded_at": value})
    assert found is not None
    assert found.unix_ms == _ms(MORNING)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("%d.%m.%Y %Hh%M", "/a/18.05.2024 04h30 meadow.wav"),
        ("%Y/%m/%d/%H%M", "/a/2024/05/18/0430_meadow.wav"),
        ("%y%j-%H%M%S", "/a/x24139-043000.wav"),
        ("%d%b%Y_%I%M%p", "/a/18May2024_0430AM.wav"),
    ],
)
def test_a_pattern_of_ones_own(pattern: str, path: str) -> None:
    found = start_time(path, None, TimeRule(pattern=pattern))
    assert found is not None
    assert found.unix_ms == _ms(MORNING)
    assert start_time("/a/other.wav", None, TimeRule(pattern=pattern)) is None


@pytest.mark.parametrize("pattern", ["%Q", "%H%M", "", "plain", "%Y%m%d%", "%Y%Y%m%d", "%d%m"])
def test_patterns_that_cannot_be(pattern: str) -> None:
    with pytest.raises(UserError, match=r"pattern"):
        compiled(pattern)


def test_zones_that_are_none_are_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"nearest: .*Europe/Berlin"):
        find_zone("Europe/Berlim")
    for bad in ("", "../etc/passwd", "+99:00"):
        with pytest.raises(UserError, match="no time zone"):
            find_zone(bad)


def test_the_nearest_folder_decides() -> None:
    rules = (TimeRule("", timezone="UTC"), TimeRule("/a", timezone="Asia/Tokyo"), TimeRule("/a/b"))
    assert rule_for("/a/b/x.wav", rules) is rules[2]
    assert rule_for("/a/bc/x.wav", rules) is rules[1]
    assert rule_for("/ab/x.wav", rules) is rules[0]
    assert rule_for("/ab/x.wav", rules[1:]) == TimeRule()


@given(st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 31)), st.sampled_from("-_. "))
def test_every_time_written_is_read(when: datetime, between: str) -> None:
    found = start_time(f"/a/p_{when:%Y%m%d}{between}{when:%H%M%S}.wav")
    assert found is not None
    assert found.unix_ms == _ms(when.replace(microsecond=0, tzinfo=UTC))


@given(st.text("0123456789TZ+-_.:/a", max_size=30))
def test_any_name_is_harmless(name: str) -> None:
    start_time(name)
