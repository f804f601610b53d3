"""Times are written as people write them, and lead back to the patches that they came from."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal

import numpy as np
import pytest
from sqlalchemy import Double, Engine, Integer, bindparam, select

from audioset_core.export_formats.sed_scores import frame_borders
from audioset_core.scores.coverage import end_s
from db.engine import reading
from db.query.time_spans import rounded_s
from flows.terminal import print_csv, print_json

HOPS_S = [round(k / 100, 2) for k in range(1, 97)]
PATCHES = [0, 1, 2, 3, 7, 13, 29, 113, 3_599, 75_000, 8_640_000]  # a day at the shortest hop
WINDOW_S = 0.96


def test_sql_writes_products_of_the_hop_as_people_do(fresh_db: Engine) -> None:
    query = select(rounded_s(bindparam("patch", type_=Integer) * bindparam("hop_s", type_=Double)))
    stray = 0
    with reading(fresh_db) as conn:
        for patch, hop_s in itertools.product(PATCHES, HOPS_S):
            at_s = conn.execute(query, {"patch": patch, "hop_s": hop_s}).scalar_one()
            assert Decimal(repr(at_s)) == patch * Decimal(repr(hop_s))
            assert round(at_s / hop_s) == patch
            stray += repr(patch * hop_s) != repr(at_s)
    assert stray > 100


def test_python_writes_ends_as_people_do() -> None:
    for hop_s in HOPS_S:
        ends = end_s(np.array(PATCHES), hop_s=hop_s, window_s=WINDOW_S, duration_s=np.inf)
        for patch, at_s in zip(PATCHES, ends.tolist(), strict=True):
            assert Decimal(repr(at_s)) == patch * Decimal(repr(hop_s)) + Decimal(repr(WINDOW_S))


@pytest.mark.parametrize("hop_s", HOPS_S)
def test_borders_of_frames(hop_s: float) -> None:
    for at_s in frame_borders(500, hop_s, WINDOW_S, 481.123456789):
        assert len(repr(at_s).partition(".")[2]) <= 6


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    hours, score = 0.1 + 0.2, float(np.float32(0.99586606))
    print_json({"rows": [(13 * 0.48, hours)], "score": score, "n": 3, "none": None})
    print_csv(("start_s", "hours"), [(13 * 0.48, hours), (None, "text")])
    printed, _, lines = capsys.readouterr().out.partition("start_s")
    assert json.loads(printed) == {
        "rows": [[6.24, 0.3]], "score": 0.99586606, "n": 3, "none": None,
    }  # fmt: skip
    assert lines == ",hours\n6.24,0.3\n,text\n"
