"""Days by hours of the day as a picture for a page: the darker, the more was recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from flows.pages.timeline import LEFT, WIDTH, Cell, shown_day, unit_of_days

HOURS = 24
_MOST_TICKS = 8


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A row of cells for each hour of the day; a cell stands for one `unit` of days.

    Columns begin at `left` and are `width` wide; `days` has the day in the middle of each, as it is
    counted from 1970.
    """

    unit: str
    left: float
    width: float
    days: tuple[int, ...]
    rows: tuple[tuple[Cell, ...], ...]
    ticks: tuple[tuple[float, str], ...]


def heat_map(seconds: Mapping[int, float]) -> HeatMap | None:
    """Of seconds by hour since 1970; days are joined so that there are at most 120 columns.

    A cell's share is of the cell in which most was recorded. None where nothing is known.
    """
    if not seconds:
        return None
    first, last = min(seconds) // HOURS, max(seconds) // HOURS
    unit_days, unit = unit_of_days(last - first + 1)
    n_columns = math.ceil((last - first + 1) / unit_days)
    width = (WIDTH - LEFT) / n_columns
    sums: dict[tuple[int, int], float] = {}
    for at, amount_s in seconds.items():
        key = at % HOURS, (at // HOURS - first) // unit_days
        sums[key] = sums.get(key, 0.0) + amount_s
    most = max(sums.values())
    begins = [shown_day(first + i * unit_days) for i in range(n_columns)]
    rows = tuple(
        tuple(
            Cell(LEFT + i * width, width, sums[hour, i] / most,
                 f"{begins[i]}, {hour:02d}:00 to {hour + 1:02d}:00: {sums[hour, i] / 60:,.1f} min")
            for i in range(n_columns) if (hour, i) in sums
        )
        for hour in range(HOURS)
    )  # fmt: skip
    step = max(1, math.ceil(n_columns / _MOST_TICKS))
    ticks = tuple((LEFT + (i + 0.5) * width, begins[i]) for i in range(0, n_columns, step))
    days = tuple(first + i * unit_days + unit_days // 2 for i in range(n_columns))
    return HeatMap(unit, LEFT, width, days, rows, ticks)
