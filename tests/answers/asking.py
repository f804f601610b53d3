"""Ways to ask: commands, Python, plain SQL, exports, pages; answers that can be compared."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from db.answer_records import Interval
from db.engine import reading
from db.query.question import Question
from db.reports.export_rows import RecordingRow, labelled
from flows.analysis.dataframes import Labels
from tests.answers.corpus import CLIPS
from tests.answers.rows import ROOTS
from tests.db.build import sha

Said = Any
Spans = dict[tuple[Any, ...], list[tuple[float, float]]]

INTERVAL = ("clip", "mid", "start_s", "end_s", "peak")
EVERYTHING = tuple(part for mid in ROOTS for part in ("--under", mid))


@dataclass(frozen=True, slots=True)
class Asker:
    """One corpus, and everything that answers questions about it."""

    engine: Engine
    home: Path
    command: Callable[..., Said]
    out: Path
    kept: dict[str, Any]
    """What was told before of this corpus."""

    def said(self, *arguments: object) -> Said:
        url = self.engine.url.render_as_string(hide_password=False)
        return self.command(*arguments, "--home", self.home, "--db", url)

    def rows(self, *arguments: object) -> list[dict[str, Any]]:
        """The CSV of a command."""
        said = self.said(*arguments, "--csv")
        assert said.code in (0, 1), said
        return [_typed(row) for row in csv.DictReader(io.StringIO(said.out))]

    def json(self, *arguments: object) -> Any:
        said = self.said(*arguments, "--json")
        assert said.code == 0, said
        return json.loads(said.out)

    def shown(self) -> list[dict[str, Any]]:
        """Every clip in full, as ``audioset show`` has it."""
        if "shown" not in self.kept:
            self.kept["shown"] = [self.json("show", sha(name)) for name in CLIPS]
        return list(self.kept["shown"])

    def exported(self, form: str, *arguments: object) -> list[dict[str, Any]]:
        """The rows of a delimited export."""
        said = self.said("export", form, "-", *arguments)
        assert said.code == 0, said
        delimiter = "," if form == "csv" else "\t"
        return [_typed(row) for row in csv.DictReader(io.StringIO(said.out), delimiter=delimiter)]

    def sql(self, query: str) -> list[dict[str, Any]]:
        with reading(self.engine) as conn:
            return [dict(row._mapping) for row in conn.execute(text(query))]

    def page(self, *arguments: object) -> Any:
        """The data in a page."""
        out = self.out / "page.html"
        said = self.said(*arguments, "-o", out)
        assert said.code == 0, said
        found = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', out.read_text())
        assert found is not None
        return json.loads(found[1])

    def labelled(self, **conditions: Any) -> Iterable[tuple[RecordingRow, list[Interval]]]:
        """What every export is made of."""
        with reading(self.engine) as conn:
            return [(row, list(events)) for row, events in labelled(conn, Question(**conditions))]

    @property
    def labels(self) -> Labels:
        return Labels(self.home, self.engine)


def _typed(row: dict[str, str]) -> dict[str, Any]:
    return {key: _number(value) for key, value in row.items()}


def _number(value: str) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


def picked(rows: Iterable[Any], *names: str, **renamed: str) -> set[tuple[Any, ...]]:
    """The columns of rows, each row once, times to a tenth of a millisecond.

    `renamed`: the column's name in these rows, where that differs.
    """
    return {tuple(_rounded(row[renamed.get(name, name)]) for name in names) for row in rows}


def _rounded(value: Any) -> Any:
    if value is None or value == "" or value != value:
        return None
    return round(value, 4) if isinstance(value, float) else value


def records(frame: Any) -> list[dict[str, Any]]:
    return list(frame.to_dict("records"))


def union_s(spans: Spans) -> dict[Any, float]:
    """Seconds covered, by the first part of the key; what overlaps within a key counts once."""
    seconds: dict[Any, float] = defaultdict(float)
    for key, its in spans.items():
        reached = float("-inf")
        for start_s, end_s in sorted(its):
            seconds[key[0]] += max(0.0, end_s - max(reached, start_s))
            reached = max(reached, end_s)
    return {key: round(found, 3) for key, found in seconds.items()}


def spans_by(rows: Iterable[Any], *keys: str) -> Spans:
    spans: Spans = defaultdict(list)
    for row in rows:
        spans[tuple(row[key] for key in keys)].append((row["start_s"], row["end_s"]))
    return spans


def hours(rows: Iterable[Any], key: str = "mid") -> dict[Any, float]:
    """Rows with hours as seconds, those without any left out."""
    return {row[key]: round(row["hours"] * 3600, 3) for row in rows if row["hours"]}
