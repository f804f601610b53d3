"""Recorded time by hour of the recorder's clock, on both databases; and its picture."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, update

from db.engine import writing
from db.reports.recorded_hours import recorded_hours
from db.schema.tables import clips, sources
from flows.pages.heat_map import heat_map
from tests.db.build import labelled, make_world, sha

HOUR = int(datetime(2024, 5, 1, 6, tzinfo=UTC).timestamp()) // 3600


@pytest.mark.parametrize("offset_s", [0, 7200, -12_600])
def test_a_recording_counts_in_each_hour_by_its_part(fresh_db: Engine, offset_s: int) -> None:
    world = make_world(fresh_db)
    starts = {  # minutes after 06:00 on the recorder's clock, length in seconds
        "short": (10, 30.0), "other": (59, 60.0), "over": (59, 60.25), "long": (30, 3 * 3600.0),
        "unknown": (None, 100.0),
    }  # fmt: skip
    for name, (minute, length_s) in starts.items():
        labelled(world, name, {"/b": 0.9})
        with writing(fresh_db) as conn:
            own = clips.c.sha256 == sha(name)
            conn.execute(update(clips).where(own).values(duration_s=length_s))
            if minute is None:
                continue
            at_ms = (HOUR * 3600 + minute * 60 - offset_s) * 1000
            conn.execute(
                update(sources).where(sources.c.path_text == f"/audio/{name}.wav")
                .values(recorded_unix_ms=at_ms, recorded_utc_offset_s=offset_s, recorded_by="name")
            )  # fmt: skip
    assert recorded_hours(fresh_db) == pytest.approx({
        HOUR: 30 + 60 + 60 + 1800, HOUR + 1: 0.25 + 3600, HOUR + 2: 3600, HOUR + 3: 1800,
    })  # fmt: skip


def test_days_are_joined_until_they_fit() -> None:
    assert heat_map({}) is None
    day = heat_map({HOUR: 3600.0, HOUR + 24: 1800.0, HOUR + 25: 60.0})
    assert day is not None
    assert day.unit == "day"
    six, seven = day.rows[6], day.rows[7]
    assert [cell.share for cell in six] == [1.0, 0.5]
    assert six[1].says == "2024-05-02, 06:00 to 07:00: 30.0 min"
    assert [cell.x for cell in seven] == [six[1].x]
    assert day.rows[8] == ()
    years = heat_map({HOUR: 60.0, HOUR + 24 * 3650: 60.0})
    assert years is not None
    assert years.unit == "quarter"
    assert len(years.ticks) <= 9
