from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, insert, select, update

from db.engine import reading, writing
from db.errors import InvalidValueError
from db.schema.tables import nodes, runs
from db.types import SCORE_SCALE, ScoreType, path_text
from tests.db.build import NOW, RUN, make_world

HOSTILE = ["'; DROP TABLE clips; --", "100%s %(x)s :y", "a\nb\tc", "日本語 😀", '"', "\\", ""]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_comes_back(fresh_db: Engine, text: str) -> None:
    row = {"mid": text, "name": text, "position": 0, "is_abstract": False, "is_blacklisted": True}
    with writing(fresh_db) as conn:
        conn.execute(insert(nodes), row)
    with reading(fresh_db) as conn:
        found = conn.execute(select(nodes).where(nodes.c.name == text)).one()
    assert (found.mid, found.is_abstract, found.is_blacklisted) == (text, False, True)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("started_at", datetime(2024, 1, 1), "time without a time zone"),
        ("host", "a\0b", "NUL"),
        ("host", "\ud800", "not valid Unicode"),
        ("audio_s", float("nan"), "not finite"),
        ("audio_s", float("inf"), "not finite"),
        ("summary", {"x": float("nan")}, "not JSON"),
        ("summary", {"x": b"bytes"}, "not JSON"),
    ],
)
def test_values_that_one_database_would_not_keep_are_refused(
    fresh_db: Engine, column: str, value: object, message: str
) -> None:
    make_world(fresh_db)
    with pytest.raises(InvalidValueError, match=message), writing(fresh_db) as conn:
        conn.execute(update(runs).values({column: value}))


def test_json_with_nul_and_lone_surrogates_comes_back(fresh_db: Engine) -> None:
    make_world(fresh_db)
    value = {"nul \0": "\ud800", "list": [1, 2.5, None, True], "é": {"nested": "😀"}}
    with writing(fresh_db) as conn:
        conn.execute(update(runs).values(summary=value))
    with reading(fresh_db) as conn:
        assert conn.execute(select(runs.c.summary)).scalar_one() == value


def test_times_come_back_in_utc(fresh_db: Engine) -> None:
    make_world(fresh_db)
    local = NOW.astimezone(timezone(timedelta(hours=9))) + timedelta(microseconds=123_456)
    with writing(fresh_db) as conn:
        conn.execute(update(runs).where(runs.c.id == RUN).values(ended_at=local))
    with reading(fresh_db) as conn:
        found = conn.execute(select(runs.c.ended_at)).scalar_one()
    assert found == local
    assert found.tzinfo == UTC


@pytest.mark.parametrize("score", [-0.0001, 1.0001, float("nan"), float("inf")])
def test_scores_out_of_range_are_refused(score: float) -> None:
    with pytest.raises(InvalidValueError, match="is not in"):
        ScoreType().process_bind_param(score, None)  # type: ignore[arg-type]


@given(st.floats(0, 1))
def test_scores_keep_four_digits(score: float) -> None:
    stored = ScoreType().process_bind_param(score, None)  # type: ignore[arg-type]
    assert isinstance(stored, int)
    back = ScoreType().process_result_value(stored, None)  # type: ignore[arg-type]
    assert abs(back - score) <= 0.5 / SCORE_SCALE + 1e-12


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"/a/b.wav", "/a/b.wav"),
        ("/日本/😀.wav".encode(), "/日本/😀.wav"),
        (b"/a\xff.wav", "/a\\xff.wav"),
        (b"/a\0\n\x1b[31m.wav", "/a\\x00\\x0a\\x1b[31m.wav"),
    ],
)
def test_path_text_is_one_readable_line(path: bytes, text: str) -> None:
    assert path_text(path) == text
