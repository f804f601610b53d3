"""Days of recordings as a picture for a page: bars of hours, a row of shares per branch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from db.reports.collection import DayHours

WIDTH, BAR_HEIGHT, ROW_HEIGHT = 1000.0, 130.0, 20.0
LEFT = 190.0
_MOST_BINS = 120
_MOST_TICKS = 8
_UNITS = ((1, "day"), (7, "week"), (28, "four weeks"), (91, "quarter"), (364, "year"))
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Bar:
    """A unit of time: where its bar is drawn, and the text of the bar."""

    x: float
    width: float
    height: float
    says: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A unit's share of clips with a branch."""

    x: float
    width: float
    share: float
    says: str


@dataclass(frozen=True, slots=True)
class Row:
    """A branch of the ontology over time."""

    name: str
    branch: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """Bars, rows, and dates under them; a bar stands for one `unit`."""

    unit: str
    most_hours: float
    bars: tuple[Bar, ...]
    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, str], ...]


def timeline(
    days: Sequence[DayHours],
    branches: Sequence[tuple[str, str, int]],
    by_branch: Mapping[str, Sequence[tuple[int, int]]],
) -> Timeline | None:
    """Days in order, joined so that there are at most 120 bars; None without days.

    `branches` are (MID, name, number), `by_branch` maps a MID to (day, clips).
    """
    if not days:
        return None
    first, span = days[0].day, days[-1].day - days[0].day + 1
    unit_days, unit = unit_of_days(span)
    n_bins = math.ceil(span / unit_days)
    width = (WIDTH - LEFT) / n_bins
    hours, clips = [0.0] * n_bins, [0] * n_bins
    for day in days:
        hours[(day.day - first) // unit_days] += day.hours
        clips[(day.day - first) // unit_days] += day.n_clips
    most = max(*hours, 1e-9) if n_bins > 1 else max(hours[0], 1e-9)
    begins = [shown_day(first + i * unit_days) for i in range(n_bins)]
    bars = tuple(
        Bar(LEFT + i * width, width, BAR_HEIGHT * hours[i] / most,
            f"{begins[i]}: {clips[i]:,} clips, {hours[i]:.2f} h")
        for i in range(n_bins) if clips[i]
    )  # fmt: skip
    rows = tuple(
        _row(name, branch, _summed(by_branch.get(mid, ()), first, unit_days, n_bins), clips, begins)
        for mid, name, branch in branches
    )
    step = max(1, math.ceil(n_bins / _MOST_TICKS))
    ticks = tuple((LEFT + (i + 0.5) * width, begins[i]) for i in range(0, n_bins, step))
    return Timeline(unit, most, bars, rows, ticks)


def unit_of_days(span_days: int) -> tuple[int, str]:
    """How many days are joined so that a span has at most 120 parts, and what that is called."""
    for unit_days, name in _UNITS:
        if span_days <= unit_days * _MOST_BINS:
            return unit_days, name
    n_years = math.ceil(span_days / 364 / _MOST_BINS)
    return 364 * n_years, f"{n_years} years"


def _summed(days: Sequence[tuple[int, int]], first: int, unit_days: int, n_bins: int) -> list[int]:
    counts = [0] * n_bins
    for day, n_clips in days:
        counts[(day - first) // unit_days] += n_clips
    return counts


def _row(name: str, branch: int, counts: list[int], clips: list[int], begins: Sequence[str]) -> Row:
    width = (WIDTH - LEFT) / len(counts)
    cells = tuple(
        Cell(LEFT + i * width, width, n / clips[i], f"{name}, {begins[i]}: {n:,} of {clips[i]:,}")
        for i, n in enumerate(counts)
        if n
    )  # fmt: skip
    return Row(name, branch, cells)


def shown_day(day: int) -> str:
    """A day counted from 1970, as people write it."""
    return (_EPOCH + timedelta(days=day)).isoformat()
