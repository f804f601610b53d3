"""Ways to ask that take more than a line, for the table of questions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.answers.asking import (
    EVERYTHING,
    INTERVAL,
    Asker,
    hours,
    picked,
    records,
    spans_by,
    union_s,
)
from tests.answers.corpus import DAY_MS, HOUR_MS
from tests.answers.rows import CLASSES, MIDS, ROOTS

Way = Callable[[Asker], Any]

ALL_SCORES = ("--min-score", "0", "--ambiguous")
MANY = ("--limit", "9999")
QUERY = ("query", *EVERYTHING, *ALL_SCORES, *MANY)
SPAN = (DAY_MS + 9 * HOUR_MS // 2, DAY_MS + 31 * HOUR_MS)
BETWEEN = ("--between", "2024-05-18T04:30", "2024-05-19T07:00", "--timezone", "UTC")
DIFF = ("diff", "a", "b")
DAILY = ("--between", "06:00", "07:00")  # on a clock that is two hours ahead
COMMON = ("--source", "moved.wav", "--source", "partial.wav", "--source", "company.wav")


def show_intervals(ask: Asker) -> set[tuple[Any, ...]]:
    rows = ({**one, "clip": clip["clip"]["sha256"]} for clip in ask.shown()
            for one in clip["detections"])  # fmt: skip
    return picked(rows, *INTERVAL)


def queried(*options: str) -> Way:
    return lambda ask: picked(ask.rows(*QUERY, "--intervals", *options), *INTERVAL, peak="score")


def framed(**conditions: Any) -> Way:
    asked = {"under": ROOTS, "with_ambiguous": True, "limit": None} | conditions
    return lambda ask: picked(records(ask.labels.intervals(**asked)), *INTERVAL, peak="score")


def exported(*options: str) -> Way:
    return lambda ask: picked(ask.exported("csv", "--missing", *options), *INTERVAL)


def labelled(**conditions: Any) -> Way:
    """What exports are made of, with conditions for which they have no option."""

    def way(ask: Asker) -> set[tuple[Any, ...]]:
        rows = (
            {"clip": row.clip, "mid": e.mid, "start_s": e.start_s, "end_s": e.end_s, "peak": e.peak}
            for row, events in ask.labelled(**conditions)
            for e in events
        )
        return picked(rows, *INTERVAL)

    return way


def viewed(query: str) -> Way:
    return lambda ask: picked(ask.sql(query), *INTERVAL)


def sounds(where: str) -> str:
    return f"SELECT * FROM sound_times WHERE {where}"


IN_SPAN = f"heard_unix_s < {SPAN[1] // 1000} AND heard_unix_s + end_s - start_s > {SPAN[0] // 1000}"


def best(rows: Any, score: str = "score") -> dict[Any, float]:
    best: dict[Any, float] = {}
    for row in rows:
        best[row["clip"]] = max(best.get(row["clip"], 0.0), round(row[score], 4))
    return best


def days(ask: Asker, where: str) -> dict[Any, float]:
    rows = ask.sql(
        "SELECT s.clip, s.start_s, s.end_s, s.heard_unix_s, c.recorded_utc_offset_s AS offset_s "
        f"FROM sound_times AS s JOIN clip_sources AS c ON c.path = s.path WHERE {where}"
    )
    for row in rows:
        known = row["heard_unix_s"] is not None
        day = int((row["heard_unix_s"] + row["offset_s"]) // 86_400) if known else None
        first = DAY_MS // 86_400_000
        row["day"] = "unknown" if day is None else f"2024-05-{18 + day - first:02}"
    return union_s(spans_by(rows, "day", "clip"))


def curve_hours(ask: Asker) -> dict[Any, float]:
    curves = (
        row for mid in CLASSES for row in ask.json("curve", "--under", mid, "--min-score", "0")
    )
    return hours(curves)


def tree(ask: Asker) -> dict[str, dict[str, Any]]:
    """The nodes of the report by MID."""
    found = {}
    todo = list(ask.page("report", "--examples", "0"))
    while todo:
        node = todo.pop()
        found[node["m"]] = node
        todo += node["k"]
    return found


def clips_by_query(ask: Asker) -> dict[str, int]:
    found = {mid: len(ask.rows("query", "--under", mid, *MANY)) for mid in MIDS}
    return {mid: n for mid, n in found.items() if n}


def clips_by_curve(ask: Asker) -> dict[str, int]:
    found = {mid: ask.json("curve", "--under", mid)[0]["n_clips_at_least"] for mid in MIDS}
    return {mid: n for mid, n in found.items() if n}


def branch_hours_by_query(ask: Asker) -> dict[str, float]:
    seconds = {}
    for mid in MIDS:
        rows = ask.rows("query", "--intervals", "--under", mid, *MANY)
        seconds[mid] = sum(union_s(spans_by(rows, "clip")).values())
    return {mid: round(s, 2) for mid, s in seconds.items() if s}


def clips_of(ask: Asker, rows: Any, path: str) -> set[str]:
    """The clips of some paths."""
    of = {row["path"]: row["clip"] for row in ask.sql("SELECT path, clip FROM clip_sources")}
    return {of[row[path]] for row in rows}


def source(*patterns: str) -> dict[str, Way]:
    options = tuple(part for pattern in patterns for part in ("--source", pattern))
    return {
        "query": lambda ask: {row["clip"] for row in ask.rows(*QUERY, *options)},
        "hours": lambda ask: clips_of(
            ask, ask.rows("hours", "--by", "source", *ALL_SCORES, *options), "what"
        ),
        "rank": lambda ask: {
            row["clip"] for row in ask.rows("rank", *EVERYTHING, "--ambiguous", *options)
        },
        "export": lambda ask: {
            row["clip"] for row in ask.exported("csv", "--missing", *options)
        },
        "frame": lambda ask: set(
            ask.labels.clips(ROOTS, with_ambiguous=True, paths=patterns)["clip"]
        ),
    }  # fmt: skip


def by_set(name: str) -> dict[str, Way]:
    asked = ("--threshold-set", name)
    view = f"SELECT * FROM interval_times WHERE threshold_set = '{name}'"
    return {"query": queried(*asked), "view": viewed(view)}


def best_by_set(name: str) -> dict[str, Way]:
    view = f"SELECT * FROM interval_times WHERE threshold_set = '{name}'"
    return {
        "query": lambda ask: best(ask.rows(*QUERY, "--threshold-set", name)),
        "view": lambda ask: best(ask.sql(view), "peak"),
    }


def diff(ask: Asker, side: str) -> dict[str, float]:
    changes = ask.json(*DIFF)["changes"]
    found = {c["mid"]: round(c[f"minutes_{side}"] * 60, 3) for c in changes}
    return {mid: seconds for mid, seconds in found.items() if seconds}


def of_model(model: str) -> dict[str, Way]:
    asked = ("hours", "--by", "class", "--model", model, *ALL_SCORES, *COMMON)
    return {
        "hours": lambda ask: hours(ask.rows(*asked)),
        "diff": lambda ask: diff(ask, model),
    }


def remarks(ask: Asker) -> set[tuple[Any, ...]]:
    rows = ({**one, "clip": clip["clip"]["sha256"]} for clip in ask.shown()
            for one in clip["remarks"])  # fmt: skip
    return picked(rows, "clip", "kind", "detail", "start_s")


def json_export(ask: Asker, model: str) -> list[dict[str, Any]]:
    out = ask.out / "predictions.json"
    said = ask.said("export", "json", out, "--model", model)
    assert said.code == 0, said
    return list(json.loads(out.read_text())["predictions"])


def partial_of_model(ask: Asker) -> set[str]:
    return {row["clip"] for row in json_export(ask, "a") if row["is_partial"]}


def days_by_view(ask: Asker) -> dict[int, int]:
    """Of each clip the days that its files tell; else the day of the file that stands for it."""
    found: Counter[int] = Counter()
    for clip in ask.shown():
        sha256 = clip["clip"]["sha256"]
        files = ask.sql(f"SELECT * FROM clip_sources WHERE clip = '{sha256}'")
        telling = [f for f in files if f["status"] != "missing"] or files
        known = [f for f in telling if f["recorded_unix_s"]]
        days = {int((f["recorded_unix_s"] + f["recorded_utc_offset_s"]) // 86_400) for f in known}
        first = next(f for f in files if f["path"] == clip["sources"][0]["path_text"])
        found.update(days or {int(first["modified_unix_s"] // 86_400)})
    return dict(found)
