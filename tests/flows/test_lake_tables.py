"""Where the rows of a labelling are in a lake, and what DuckDB's views read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from db.reports.lake_rows import LakeRow
from tasks.lake.tables import partition_of
from tests.db.build import NOW

ROW = LakeRow(
    40_001, "a" * 64, True, "yamnet", "1", "set", None, NOW, 3, False, 9.0, "/a.wav",
    "identified", None, None, None,
)  # fmt: skip
LAST_MS = 1_711_929_599_999  # 2024-03-31, the last millisecond in UTC


@pytest.mark.parametrize(
    ("unix_ms", "offset_s", "where"),
    [
        (LAST_MS, 0, "day=2024-03-31/part-0"),
        (LAST_MS, 7_200, "day=2024-04-01/part-0"),
        (LAST_MS + 1, -3_600, "day=2024-03-31/part-0"),
        (LAST_MS + 1, None, "day=2024-04-01/part-0"),
        (-1, 0, "day=1969-12-31/part-0"),
        (None, 3_600, "day=unknown/part-2"),
    ],
)
def test_the_day_is_that_of_the_recorders_clock(
    unix_ms: int | None, offset_s: int | None, where: str
) -> None:
    row = replace(ROW, recorded_unix_ms=unix_ms, recorded_utc_offset_s=offset_s)
    assert partition_of(row) == f"model=yamnet/{where}"
