"""Thresholds as a CSV file, to look at and to change in a spreadsheet.

    mid,name,high,low,min_duration_s,merge_gap_s,model
    *,every other class,0.5,0.3,0.0,0.5,yamnet
    /m/0bt9lr,Dog,0.34,0.2,,,

The row `*` is for every class that is not listed (without a high, they are not detected). Only
this row has the last three columns. A class is named by `mid` or by `name`; an empty low means the
value of high.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from audioset_core.errors import UnknownNodeError, UserError
from audioset_core.ontology.graph import Ontology
from audioset_core.records import Threshold, ThresholdSet
from audioset_core.scores.thresholds import IntervalRules

COLUMNS = ("mid", "name", "high", "low", "min_duration_s", "merge_gap_s", "model")
EVERY_OTHER = "*"


def read_thresholds(path: Path, ontology: Ontology) -> ThresholdSet:
    """Read a file as `rows_of` writes it; further columns are ignored.

    Raises:
        UserError: it cannot be read or says something impossible; the message names the line.
    """
    default: Threshold | None = None
    settings: dict[str, Any] = {}
    by_mid: dict[str, Threshold] = {}
    for line, row in _rows(path):
        where = f"{path}, line {line}"
        if (row["mid"] or row["name"]) == EVERY_OTHER:
            default = _threshold(row, where) if row["high"] else None
            durations = ("min_duration_s", "merge_gap_s")
            settings = {name: _number(row, name, where) for name in durations if row[name]}
            settings["model"] = row["model"] or None
            continue
        try:
            mid = ontology.find(row["mid"] or row["name"]).mid
        except UnknownNodeError as error:
            raise UserError(f"{where}: {error}") from None
        if mid in by_mid:
            raise UserError(f"{where}: {mid} ({ontology.nodes[mid].name}) is listed twice")
        by_mid[mid] = _threshold(row, where)
    try:
        IntervalRules(None, {}, *(settings.get(n, 0.0) for n in ("min_duration_s", "merge_gap_s")))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return ThresholdSet(settings.pop("model", None), default, by_mid, **settings)


def rows_of(thresholds: ThresholdSet, ontology: Ontology) -> Iterator[tuple[Any, ...]]:
    """The rows of the file, below `COLUMNS`."""
    other = thresholds.default
    pair = ("", "") if other is None else (other.high, other.low)
    settings = (thresholds.min_duration_s, thresholds.merge_gap_s, thresholds.model or "")
    yield (EVERY_OTHER, "every other class", *pair, *settings)
    for mid, threshold in thresholds.by_mid.items():
        name = ontology.nodes[mid].name if mid in ontology.nodes else ""
        yield (mid, name, threshold.high, threshold.low, "", "", "")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            named = set(reader.fieldnames or ())
            if "high" not in named or not named & {"mid", "name"}:
                raise UserError(
                    f"{path} is not a table of thresholds: it needs the columns mid (or name), "
                    "high and low"
                )
            for row in reader:
                yield reader.line_num, {each: (row.get(each) or "").strip() for each in COLUMNS}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _threshold(row: Mapping[str, str], where: str) -> Threshold:
    high = _number(row, "high", where)
    try:
        return Threshold(high, _number(row, "low", where) if row["low"] else high)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _number(row: Mapping[str, str], column: str, where: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: the {column} {row[column]!r} is not a number")
    return value
