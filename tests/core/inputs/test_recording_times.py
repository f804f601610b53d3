from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioset_core.errors import UserError
from audioset_core.inputs.name_times import Series, needs_neighbours
from audioset_core.inputs.start_times import (
    StartTime,
    TimeRule,
    compiled,
    find_zone,
    rule_for,
    start_time,
    unread_starts,
)

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
    assert found.found_by == "manifest's start_time; name differs, zone given there"


@pytest.mark.parametrize(
    ("told", "start", "found_by"),
    [
        ([("GUANO Timestamp", "2024-05-18T06:30:30+02:00")], "06:30:30+02:00",
         "GUANO Timestamp, zone given there"),
        ([("GUANO Timestamp", "2024-05-18T04:30:30+02:00")], "04:30:30+02:00",
         "GUANO Timestamp, zone given there"),
        ([("GUANO Timestamp", "2024-05-18T08:30:30+02:00")], "08:30:30+02:00",
         "GUANO Timestamp; name differs, zone given there"),
        ([("container creation_time", "2024-05-18T09:30:00+00:00")], "04:30:00+00:00",
         "name; container creation_time differs, UTC assumed"),
        ([("bext OriginationDate", "2024-05-18T04:30:02"), ("GUANO Timestamp", None)],
         "04:30:02+00:00",
         "bext OriginationDate; GUANO Timestamp is not plausible, UTC assumed"),
        ([("bext TimeReference", None), ("INFO ICMT", None)], "04:30:00+00:00",
         "name, UTC assumed"),
    ],
)  # fmt: skip
def test_what_the_file_states_has_its_place_in_the_order(
    told: list[tuple[str, str | None]], start: str, found_by: str
) -> None:
    """A name without a zone agrees with a clock, and with UTC."""
    found = start_time("/20240518_043000.wav", told=told)
    assert found is not None
    assert found.unix_ms == _ms(datetime.fromisoformat(f"2024-05-18T{start}"))
    assert found.found_by == found_by


def test_in_a_stated_zone_a_name_agrees_with_one_moment_alone() -> None:
    told = [("GUANO Timestamp", "2024-05-18T04:30:30+02:00")]
    found = start_time("/20240518_043000.wav", None, TimeRule(timezone="UTC"), told=told)
    assert found is not None
    assert found.found_by == "GUANO Timestamp; name differs, zone given there"


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
        with pytest.raises(UserError, match="unknown time zone"):
            find_zone(bad)


def test_the_nearest_folder_decides_on_zone_and_pattern_each() -> None:
    rules = (
        TimeRule("", timezone="UTC"),
        TimeRule("/a", "%Y%j", "Asia/Tokyo"),
        TimeRule("/a/b", pattern="%y%j"),
        TimeRule("/a/b/c", timezone="+02:00"),
    )

    def told(path: str, rules: tuple[TimeRule, ...] = rules) -> tuple[str | None, str | None]:
        rule = rule_for(path, rules)
        return rule.pattern, rule.timezone

    assert told("/a/b/c/x.wav") == ("%y%j", "+02:00")
    assert told("/a/b/x.wav") == ("%y%j", "Asia/Tokyo")
    assert told("/a/bc/x.wav") == ("%Y%j", "Asia/Tokyo")
    assert told("/ab/x.wav") == (None, "UTC")
    assert rule_for("/ab/x.wav", rules[1:]) == TimeRule()


@pytest.mark.parametrize(
    "name",
    [
        "20240518_0430.wav",
        "202405180430.wav",
        "2024-05-18T04:30+00:00.wav",
        "2024-05-18_04h30.flac",
        "PXL_20240518_043000123.mp4",
        "PXL_20240518_043000123.TS.mp4",
        "2024-05-18-birdnet-04:30:00.wav",
        "2024-05-18-birdnet-RTSP_1-04:30:00.wav",
        "Common_Blackbird-85-2024-05-18-birdnet-04:30:00.mp3",
        "Gray_Wagtail-84-2024-05-18-birdnet-RTSP_12-04_30_00.mp3",
        "2024-05-18-birdnet-04:30:00am.wav",
        "turdus_merula_85p_20240518T043000Z.wav",
        "WhatsApp Audio 2024-05-18 at 04.30.00.ogg",
        "WhatsApp Ptt 2024-05-18 at 4.30.00 AM.ogg",
        "Screen Recording 2024-05-18 at 4.30.00\u202fAM.mov",
        "20240518$043000.wav",
        "SM3_0+1_20240518$043000.wav",
        "S20240518T043000946+0000_E20240518T044446501+0000_-08.0000+000.0000.wav",
        "S20240518T063000.982648+0200_E20240518T063051.967555+0200_-12.34567+78.98102.wav",
        "Queens_20240518_043000_Z.WAV",
        "20240518T063000+02.wav",
        "20240518_003000_-0400.wav",
        "24F319055FDF2902_20240518_043000.WAV",
        "20240518_043000T.WAV",
        "20240518_043000_000.wav",
        "MF01-01_SMM119_20240518_043000.wav",
    ],
)
def test_names_of_more_recorders_phones_and_programs(name: str) -> None:
    found = start_time(f"/a/{name}")
    assert found is not None
    assert found.unix_ms // 1_000 == _ms(MORNING) // 1_000


@pytest.mark.parametrize(
    "name",
    [
        "AUD-20240518-WA0001.opus",
        "PTT-20240518-WA0012.opus",
        "ZOOM0001.WAV",
        "240518_0001.wav",
        "240518-103045.wav",
        "TASCAM_0012.wav",
        "STE-000.wav",
        "55667788.wav",
        "20240518_0001.wav",
        "20240518_2430.wav",
        "20240518_0430kHz.wav",
        "2024-05-18 at 13.30.00 PM.wav",
    ],
)
def test_what_looks_like_a_time_and_is_none(name: str) -> None:
    assert start_time(f"/a/{name}") is None


def _series(*names: str) -> Series:
    series = Series()
    for name in names:
        series.add(name)
    return series


def _found(name: str, *others: str, rule: TimeRule | None = None) -> StartTime | None:
    return start_time(f"/a/{name}", None, rule or TimeRule(), _series(name, *others))


def test_eight_digits_are_a_time_only_beside_names_in_hex() -> None:
    assert _found("66480000.WAV", "66490000.WAV") is None
    found = _found("66480000.WAV", "66482EC8.WAV")
    assert found is not None
    assert found.unix_ms == 0x66480000 * 1000


def test_a_running_number_behind_a_time_is_no_zone() -> None:
    as_zone = _ms(MORNING) + 3_600_000
    alone = _found("20240518_043000-0100.wav")
    assert alone is not None
    assert alone.unix_ms == as_zone
    numbered = _found("20240518_043000-0100.wav", "20240518_044000-0101.wav")
    assert numbered is not None
    assert (numbered.unix_ms, numbered.found_by) == (_ms(MORNING), "name, UTC assumed")
    by_quarters = [f"20240518_04{n:02}00-{n // 4:02}{n % 4 * 15:02}.wav" for n in range(8)]
    counted = _found("20240518_043000-0100.wav", *by_quarters)
    assert counted is not None
    assert counted.unix_ms == _ms(MORNING)
    # Winter and summer time are two zones.
    two = _found("20240518_043000-0500.wav", "20241218_043000-0600.wav")
    assert two is not None
    assert two.utc_offset_s == -18_000


@pytest.mark.parametrize(
    "others",
    [
        ["20240518_0002.wav", "20240518_0003.wav"],
        ["20240518_0075.wav"],
        ["20240519_0002.wav", "20240519_0003.wav"],
    ],
)
def test_a_running_number_behind_a_day_is_no_time(others: list[str]) -> None:
    assert _found("20240518_0001.wav", *others) is None


def test_hours_and_minutes_of_a_series() -> None:
    found = _found("20240518_0430.wav", "20240518_0500.wav", "20240518_0000.wav")
    assert found is not None
    assert found.unix_ms == _ms(MORNING)
    assert _found("20240518_0000.wav", "20240519_0000.wav") is not None


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("%Y%m%d", "20240518_043000.wav", "2024-05-18T04:30:00+00:00"),
        ("%Y%m%d_%H%M%S", "20240518_063000+0200.wav", "2024-05-18T04:30:00+00:00"),
        ("%d%m%Y-%H%M", "20240518_043000.wav", "2024-05-18T04:30:00+00:00"),
        ("%d%m%Y-%H%M", "18052024-0430.wav", "2024-05-18T04:30:00+00:00"),
        ("x%Y%m%d", "20230101_010101 x20240518.wav", "2024-05-18T00:00:00+00:00"),
        ("%Y%m%d_%H%M%S%z", "20240518_063000+0200.wav", "2024-05-18T04:30:00+00:00"),
        ("%y%m%d_%H%M%S", "PXL_20240518_043000123.mp4", "2024-05-18T04:30:00.123+00:00"),
    ],
)
def test_a_pattern_adds_to_what_names_tell(pattern: str, name: str, expected: str) -> None:
    found = start_time(f"/a/{name}", None, TimeRule(pattern=pattern))
    assert found is not None
    assert found.unix_ms == _ms(datetime.fromisoformat(expected))


def test_a_pixel_phone_names_files_by_utc() -> None:
    found = start_time("/a/PXL_20240518_043000123.mp4", None, TimeRule(timezone="Asia/Tokyo"))
    assert found is not None
    assert (found.unix_ms, found.found_by) == (_ms(MORNING) + 123, "name, zone given there")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1716006600123, 1716006600123),
        ("1716006600123", 1716006600123),
        (1716006600123456, 1716006600123),
        (1716006600123456789, 1716006600123),
        (1716006600.5, 1716006600500),
        ("20240518_043000", 1716006600000),
        ("20240518043000", 1716006600000),
        (20240518, 1715990400000),
        ("2024:05:18 04:30:00", 1716006600000),
        ("2024/5/18 4:30", 1716006600000),
        ("2024-05-18 06:30:00 +0200", 1716006600000),
        ("2024-05-18 04:30:00.25 UTC", 1716006600250),
        (" 2024-05-18T04:30:00Z ", 1716006600000),
    ],
)
def test_starts_in_a_manifest(value: object, expected: int) -> None:
    found = start_time("/a/x.wav", {"Recorded at": value})
    assert found is not None
    assert found.unix_ms == expected
    assert list(unread_starts({"Recorded at": value})) == []


@pytest.mark.parametrize(
    "value", ["18.05.2024 04:30", "5/18/24 4:30", "45430.1875", 12.5, "yesterday", True, 0]
)
def test_a_start_that_is_not_understood_is_said(value: object) -> None:
    assert list(unread_starts({"recorded_at": value, "n": 1})) == [("recorded_at", value)]
    found = start_time("/a/20240518_043000.wav", {"recorded_at": value})
    assert found is not None
    assert found.found_by == "name; manifest's recorded_at not understood, UTC assumed"
    assert list(unread_starts({"recorded_at": value, "start_time": "2024-05-18"})) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [("GMT+2", "+02:00"), ("UTC-5:30", "-05:30"), ("utc +10", "+10:00"), ("+2", "+02:00"),
     ("UTC\u22123", "-03:00"), ("GMT+0530", "+05:30")],
)  # fmt: skip
def test_a_distance_written_otherwise_is_answered_with_the_right_one(name: str, meant: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"did you mean {meant}?")):
        find_zone(name)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 31)), st.sampled_from("-_. "))
def test_every_time_written_is_read(when: datetime, between: str) -> None:
    found = start_time(f"/a/p_{when:%Y%m%d}{between}{when:%H%M%S}.wav")
    assert found is not None
    assert found.unix_ms == _ms(when.replace(microsecond=0, tzinfo=UTC))


@given(st.text("0123456789TZ+-_.:/a", max_size=30))
def test_any_name_is_harmless(name: str) -> None:
    start_time(name)
    needs_neighbours(name)
