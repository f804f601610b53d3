"""The same question, asked in every way that can express it, on one corpus.

A row of `QUESTIONS` is a question with the ways to ask it; all give one answer. To add a way, or a
question, add it there.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from db.engine import open_engine
from db.overview import failure_reasons, node_hours, places, recorded_days
from db.queries import top_clips
from db.spans import Span
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
from tests.answers.corpus import CLIPS, DAY_MS, HOUR_MS, ODD, store_corpus
from tests.answers.rows import ANIMAL, CAT, CLASSES, DOG, MIDS, MUSIC, ROOTS
from tests.db.build import sha
from tests.db.conftest import a_database

Way = Callable[[Asker], Any]

ALL_SCORES = ("--min-score", "0", "--ambiguous")
MANY = ("--limit", "9999")
QUERY = ("query", *EVERYTHING, *ALL_SCORES, *MANY)
SPAN = (DAY_MS + 9 * HOUR_MS // 2, DAY_MS + 31 * HOUR_MS)
BETWEEN = ("--between", "2024-05-18T04:30", "2024-05-19T07:00", "--timezone", "UTC")
DIFF = ("diff", "a", "b")
DAILY = ("--between", "06:00", "07:00")  # on a clock that is two hours ahead
COMMON = ("--source", "moved.wav", "--source", "partial.wav", "--source", "company.wav")


def _show_intervals(ask: Asker) -> set[tuple[Any, ...]]:
    rows = ({**one, "clip": clip["clip"]["sha256"]} for clip in ask.shown()
            for one in clip["detections"])  # fmt: skip
    return picked(rows, *INTERVAL)


def _queried(*options: str) -> Way:
    return lambda ask: picked(ask.rows(*QUERY, "--intervals", *options), *INTERVAL, peak="score")


def _framed(**conditions: Any) -> Way:
    asked = {"under": ROOTS, "with_ambiguous": True, "limit": None} | conditions
    return lambda ask: picked(records(ask.labels.intervals(**asked)), *INTERVAL, peak="score")


def _exported(*options: str) -> Way:
    return lambda ask: picked(ask.exported("csv", "--missing", *options), *INTERVAL)


def _labelled(**conditions: Any) -> Way:
    """What exports are made of, with conditions for which they have no option."""

    def way(ask: Asker) -> set[tuple[Any, ...]]:
        rows = (
            {"clip": row.clip, "mid": e.mid, "start_s": e.start_s, "end_s": e.end_s, "peak": e.peak}
            for row, events in ask.labelled(**conditions)
            for e in events
        )
        return picked(rows, *INTERVAL)

    return way


def _viewed(query: str) -> Way:
    return lambda ask: picked(ask.sql(query), *INTERVAL)


def _sounds(where: str) -> str:
    return f"SELECT * FROM sound_times WHERE {where}"


_IN_SPAN = (
    f"heard_unix_s < {SPAN[1] // 1000} AND heard_unix_s + end_s - start_s > {SPAN[0] // 1000}"
)


def _best(rows: Any, score: str = "score") -> dict[Any, float]:
    best: dict[Any, float] = {}
    for row in rows:
        best[row["clip"]] = max(best.get(row["clip"], 0.0), round(row[score], 4))
    return best


def _days(ask: Asker, where: str) -> dict[Any, float]:
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


def _curve_hours(ask: Asker) -> dict[Any, float]:
    curves = (
        row for mid in CLASSES for row in ask.json("curve", "--under", mid, "--min-score", "0")
    )
    return hours(curves)


def _tree(ask: Asker) -> dict[str, dict[str, Any]]:
    """The nodes of the report by MID."""
    found = {}
    todo = list(ask.page("report", "--examples", "0"))
    while todo:
        node = todo.pop()
        found[node["m"]] = node
        todo += node["k"]
    return found


def _clips_by_query(ask: Asker) -> dict[str, int]:
    found = {mid: len(ask.rows("query", "--under", mid, *MANY)) for mid in MIDS}
    return {mid: n for mid, n in found.items() if n}


def _clips_by_curve(ask: Asker) -> dict[str, int]:
    found = {mid: ask.json("curve", "--under", mid)[0]["n_clips_at_least"] for mid in MIDS}
    return {mid: n for mid, n in found.items() if n}


def _branch_hours_by_query(ask: Asker) -> dict[str, float]:
    seconds = {}
    for mid in MIDS:
        rows = ask.rows("query", "--intervals", "--under", mid, *MANY)
        seconds[mid] = sum(union_s(spans_by(rows, "clip")).values())
    return {mid: round(s, 2) for mid, s in seconds.items() if s}


def _clips_of(ask: Asker, rows: Any, path: str) -> set[str]:
    """The clips of some paths."""
    of = {row["path"]: row["clip"] for row in ask.sql("SELECT path, clip FROM clip_sources")}
    return {of[row[path]] for row in rows}


def _source(*patterns: str) -> dict[str, Way]:
    options = tuple(part for pattern in patterns for part in ("--source", pattern))
    return {
        "query": lambda ask: {row["clip"] for row in ask.rows(*QUERY, *options)},
        "hours": lambda ask: _clips_of(
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


def _by_set(name: str) -> dict[str, Way]:
    asked = ("--threshold-set", name)
    view = f"SELECT * FROM interval_times WHERE threshold_set = '{name}'"
    return {"query": _queried(*asked), "view": _viewed(view)}


def _best_by_set(name: str) -> dict[str, Way]:
    view = f"SELECT * FROM interval_times WHERE threshold_set = '{name}'"
    return {
        "query": lambda ask: _best(ask.rows(*QUERY, "--threshold-set", name)),
        "view": lambda ask: _best(ask.sql(view), "peak"),
    }


def _diff(ask: Asker, side: str) -> dict[str, float]:
    changes = ask.json(*DIFF)["changes"]
    found = {c["mid"]: round(c[f"minutes_{side}"] * 60, 3) for c in changes}
    return {mid: seconds for mid, seconds in found.items() if seconds}


def _of_model(model: str) -> dict[str, Way]:
    asked = ("hours", "--by", "class", "--model", model, *ALL_SCORES, *COMMON)
    return {
        "hours": lambda ask: hours(ask.rows(*asked)),
        "diff": lambda ask: _diff(ask, model),
    }


def _remarks(ask: Asker) -> set[tuple[Any, ...]]:
    rows = ({**one, "clip": clip["clip"]["sha256"]} for clip in ask.shown()
            for one in clip["remarks"])  # fmt: skip
    return picked(rows, "clip", "kind", "detail", "start_s")


def _json_export(ask: Asker, model: str) -> list[dict[str, Any]]:
    out = ask.out / "predictions.json"
    said = ask.said("export", "json", out, "--model", model)
    assert said.code == 0, said
    return list(json.loads(out.read_text())["predictions"])


def _partial_of_model(ask: Asker) -> set[str]:
    return {row["clip"] for row in _json_export(ask, "a") if row["is_partial"]}


def _days_by_view(ask: Asker) -> dict[int, int]:
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


HOURS = ("hours", "--by", "class", *ALL_SCORES)
QUESTIONS: dict[str, dict[str, Way]] = {
    "every interval": {
        "query": _queried(),
        "frame": _framed(),
        "export": _exported(),
        "detection_times": _viewed("SELECT * FROM detection_times"),
        "sound_times": _viewed("SELECT * FROM sound_times"),
        "show": _show_intervals,
    },
    "intervals of files that are there": {
        "frame": _framed(there_only=True),
        "export": lambda ask: picked(ask.exported("csv"), *INTERVAL),
        "sound_times": _viewed(
            "SELECT s.* FROM sound_times AS s JOIN clip_sources AS c ON c.path = s.path "
            "WHERE c.status <> 'missing'"
        ),
    },
    "intervals of another model": {
        "query": _queried("--model", "a"),
        "frame": _framed(model="a"),
        "export": _exported("--model", "a"),
    },
    "intervals in company": {
        "query": lambda ask: picked(
            ask.rows("query", "--intervals", "--under", CAT, "--min-score", "0", *MANY),
            *INTERVAL, peak="score",
        ),
        "frame": _framed(under=CAT, with_ambiguous=False),
        "export": _exported("--under", CAT),
    },
    "intervals at a score, not beside another sound": {
        "query": lambda ask: picked(
            ask.rows("query", "--intervals", "--under", ANIMAL, "--not-under", MUSIC,
                     "--min-score", "0.7", *MANY), *INTERVAL, peak="score"),
        "frame": _framed(under=ANIMAL, not_under=MUSIC, min_score=0.7, with_ambiguous=False),
        "export": _exported("--under", ANIMAL, "--not-under", MUSIC, "--min-score", "0.7"),
    },
    "intervals beside other sounds": {
        "query": _queried("--all-of", DOG, "--all-of", MUSIC),
        "frame": _framed(all_of=(DOG, MUSIC)),
        "export": _labelled(all_of=(DOG, MUSIC)),
        "view": _viewed(
            "SELECT * FROM detection_times WHERE clip IN (SELECT clip FROM subtree_labels "
            f"WHERE ancestor_mid = '{DOG}') AND clip IN (SELECT clip FROM subtree_labels "
            f"WHERE ancestor_mid = '{MUSIC}')"
        ),
    },
    "intervals that last": {
        "query": _queried("--min-duration", "1.44"),
        "frame": _framed(min_duration_s=1.44),
        "export": _labelled(min_duration_s=1.44),
        "view": _viewed("SELECT * FROM detection_times WHERE end_s - start_s > 1.4399999"),
    },
    "intervals at a time": {
        "query": _queried(*BETWEEN),
        "export": _labelled(span=Span(*SPAN)),
        "view": _viewed(_sounds(_IN_SPAN)),
    },
    "intervals at an hour of every day": {
        "query": _queried(*DAILY),
        "view": _viewed(_sounds("heard_hour = 6")),
    },
    "intervals of a set": _by_set("own"),
    "intervals of a set of a model": _by_set("of-a"),
    "clips of a set": _best_by_set("own"),
    "clips of a set of a model": _best_by_set("of-a"),
    "clips and their scores": {
        "query": lambda ask: _best(ask.rows("query", "--under", ANIMAL, *ALL_SCORES, *MANY)),
        "frame": lambda ask: _best(records(ask.labels.clips(ANIMAL, with_ambiguous=True))),
        "view": lambda ask: _best(
            ask.sql(f"SELECT * FROM subtree_labels WHERE ancestor_mid = '{ANIMAL}'"), "peak"
        ),
        "rank": lambda ask: _best(
            ask.rows("rank", "--under", ANIMAL, "--ambiguous", "--window", "0.5", "--top", "9999")
        ),
    },
    "how many clips have what is below a node": {
        "query": _clips_by_query,
        "python": lambda ask: {
            mid: len(found) for mid in MIDS if (found := top_clips(ask.engine, mid, (), 0.5))
        },
        "curve": _clips_by_curve,
        "report": lambda ask: {mid: node["c"] for mid, node in _tree(ask).items()},
    },
    "how long each node is heard": {
        "intervals": _branch_hours_by_query,
        "report": lambda ask: {
            mid: round(node["h"] * 3600, 2) for mid, node in _tree(ask).items()
        },
        "overview": lambda ask: {
            node.mid: round(node.hours * 3600, 2) for node in node_hours(ask.engine, 0.5)
        },
    },
    "hours of branches": {
        "hours": lambda ask: hours(ask.rows("hours", "--under", ANIMAL)),
        "frame": lambda ask: hours(records(ask.labels.hours(under=ANIMAL))),
        "report": lambda ask: {
            kid["m"]: round(kid["h"] * 3600, 3) for kid in _tree(ask)[ANIMAL]["k"]
        },
    },
    "hours by class": {
        "hours": lambda ask: hours(ask.rows(*HOURS)),
        "frame": lambda ask: hours(
            records(ask.labels.hours("class", min_score=0.0, with_ambiguous=True))
        ),
        "class_hours": lambda ask: hours(ask.sql("SELECT * FROM class_hours")),
        "curve": _curve_hours,
        "export": lambda ask: union_s(spans_by(ask.exported("csv", "--missing"), "mid", "clip")),
    },
    "hours by class in company": {
        "hours": lambda ask: hours(ask.rows("hours", "--by", "class", "--under", CAT)),
        "curve": lambda ask: hours(ask.json("curve", "--under", CAT)),
        "query": lambda ask: union_s(
            spans_by(ask.rows("query", "--intervals", "--under", CAT, *MANY), "mid", "clip")
        ),
    },
    "hours by class, to the patch": {
        "hours": lambda ask: hours(ask.rows("hours", "--by", "class")),
        "exact": lambda ask: hours(ask.rows("hours", "--by", "class", "--exact")),
        "frame": lambda ask: hours(records(ask.labels.hours("class", exact=True))),
    },
    "hours by class at a time": {
        "hours": lambda ask: hours(ask.rows(*HOURS, *BETWEEN)),
        "query": lambda ask: union_s(
            spans_by(ask.rows(*QUERY, "--intervals", *BETWEEN), "mid", "clip")
        ),
        "view": lambda ask: union_s(spans_by(ask.sql(_sounds(_IN_SPAN)), "mid", "clip")),
    },
    "hours by class of some files": {
        "hours": lambda ask: hours(ask.rows(*HOURS, "--source", "site-1")),
        "audioset-strong": lambda ask: union_s(
            spans_by(
                (
                    {"mid": row["label"], "file": row["segment_id"],
                     "start_s": row["start_time_seconds"], "end_s": row["end_time_seconds"]}
                    for row in ask.exported(
                        "audioset-strong", "--missing", "--source", "site-1", "--root", "/"
                    )
                ),
                "mid", "file",
            )
        ),
    },
    "hours by day": {
        "hours": lambda ask: hours(ask.rows("hours", "--by", "day", *ALL_SCORES), "what"),
        "frame": lambda ask: hours(
            records(ask.labels.hours("day", min_score=0.0, with_ambiguous=True)), "what"
        ),
        "sound_times": lambda ask: _days(ask, "s.peak >= 0"),
    },
    "hours by day at a time": {
        "hours": lambda ask: hours(ask.rows("hours", "--by", "day", *ALL_SCORES, *BETWEEN), "what"),
        "sound_times": lambda ask: _days(ask, _IN_SPAN),
    },
    "hours by file": {
        "hours": lambda ask: hours(ask.rows("hours", "--by", "source", *ALL_SCORES), "what"),
        "exact": lambda ask: hours(
            ask.rows("hours", "--by", "source", "--ambiguous", "--min-score", "0.11", "--exact"),
            "what",
        ),
        "query": lambda ask: union_s(spans_by(ask.rows(*QUERY, "--intervals"), "path")),
    },
    "model a": _of_model("a"),
    "model b": _of_model("b"),
    "a folder from any folder on": _source("site-1"),
    "a folder and a wildcard": _source("site-1/*"),
    "a whole path": _source("/data/site-2"),
    "a folder of that name somewhere else": _source("else/*"),
    "several patterns": _source("*.wav*", "/nowhere"),
    "a path that is gone": _source("old/*"),
    "from the current folder": _source("./site-2"),
    "files there or not": {
        "a folder": lambda ask: _source("site-1")["export"](ask),
        "a wildcard": lambda ask: _source("site-1/*")["query"](ask),
        "here": lambda ask: _source("./site-1")["hours"](ask),
        "the readable path": lambda ask: _source("/data/site-1")["frame"](ask),
    },
    "windows": {
        "rank": lambda ask: picked(
            ask.rows("rank", *EVERYTHING, "--window", "2", "--top", "50"),
            "score", "mid", "start_s", "end_s", "clip", "path",
        ),
        "frame": lambda ask: picked(
            records(ask.labels.rank(ROOTS, window_s=2.0, top=50)),
            "score", "mid", "start_s", "end_s", "clip", "path",
        ),
    },
    "what is like a moment": {
        "similar": lambda ask: picked(
            ask.rows("similar", f"{sha('partial')}@2"), "cosine", "start_s", "end_s", "clip", "path"
        ),
        "frame": lambda ask: picked(
            records(ask.labels.similar(sha("partial"), 2.0)),
            "cosine", "start_s", "end_s", "clip", "path",
        ),
    },
    "what is like a clip, in a folder": {
        "similar": lambda ask: picked(
            ask.rows("similar", sha("partial"), "--source", "site-1"), "cosine", "clip", "path"
        ),
        "frame": lambda ask: picked(
            records(ask.labels.similar(sha("partial"), paths="site-1")), "cosine", "clip", "path"
        ),
        "of all": lambda ask: picked(
            (row for row in ask.rows("similar", sha("partial")) if "site-1" in row["path"]),
            "cosine", "clip", "path",
        ),
    },
    "labels of clips": {
        "view": lambda ask: picked(ask.sql("SELECT * FROM labels"), "clip", "mid", "peak", "mean"),
        "show": lambda ask: picked(
            ({**one, "clip": clip["clip"]["sha256"]} for clip in ask.shown()
             for one in clip["labels"]), "clip", "mid", "peak", "mean"),
    },
    "remarks": {
        "view": lambda ask: picked(
            ask.sql("SELECT * FROM remarks"), "clip", "kind", "detail", "start_s"
        ),
        "show": _remarks,
    },
    "partial clips": {
        "view": lambda ask: {r["clip"] for r in ask.sql("SELECT * FROM remarks WHERE is_partial")},
        "export": lambda ask: {
            r["clip"] for r in ask.exported("csv") if r["is_partial"] in ("True", "true", 1.0)
        },
        "json": _partial_of_model,
    },
    "failures": {
        "command": lambda ask: picked(ask.rows("failures"), "path", "reason"),
        "view": lambda ask: picked(ask.sql("SELECT * FROM failures"), "path", "reason"),
        "report": lambda ask: {
            (path, each.reason)
            for each in failure_reasons(ask.engine)
            for path, _ in each.examples
        },
        "clip_sources": lambda ask: picked(
            ask.sql("SELECT * FROM clip_sources WHERE status = 'failed'"), "path", "reason"
        ),
    },
    "days of recordings": {
        "report": lambda ask: {day.day: day.n_clips for day in recorded_days(ask.engine)},
        "clip_sources": _days_by_view,
    },
}  # fmt: skip


def _paths(rows: Any, path: str = "path") -> dict[str, str]:
    return {row["clip"]: row[path] for row in rows}


PATHS: dict[str, Way] = {
    "query": lambda ask: _paths(ask.rows(*QUERY)),
    "query by set": lambda ask: _paths(ask.rows(*QUERY, "--threshold-set", "own")),
    "frame": lambda ask: _paths(records(ask.labels.clips(ROOTS, with_ambiguous=True))),
    "rank": lambda ask: _paths(ask.rows("rank", *EVERYTHING, "--ambiguous")),
    "similar": lambda ask: _paths(ask.rows("similar", sha("partial"))),
    "frame's similar": lambda ask: _paths(records(ask.labels.similar(sha("partial")))),
    "diff": lambda ask: _paths(
        ask.json(*DIFF)["disagreements"], "path_text"
    ),
    "export json": lambda ask: _paths(_json_export(ask, "a")),
    "pages": lambda ask: {
        sha(name): places(ask.engine, sha(name))[0].path_text for name in CLIPS
    },
    "review": lambda ask: _paths(ask.page("review", "--under", ANIMAL)["items"]),
    "sound_times": lambda ask: _paths(
        reversed(ask.sql("SELECT s.path, s.clip FROM sound_times AS s JOIN sources AS f "
                         "ON f.path_text = s.path ORDER BY f.id"))
    ),
}  # fmt: skip
"""Whoever names one file for a clip."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def corpus(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Engine, Path, dict[str, Any]]]:
    """Only read, and so made once for all questions."""
    home = tmp_path_factory.mktemp("answers")
    if request.param == "sqlite":
        url = f"sqlite:///{home / 'labels.db'}"
        shutil.copy(request.getfixturevalue("sqlite_template"), home / "labels.db")
        yield from _made(url, home)
        return
    template = request.getfixturevalue("postgres_template")
    with a_database(request.getfixturevalue("postgres_server"), template) as url:
        yield from _made(url, home)


def _made(url: str, home: Path) -> Iterator[tuple[Engine, Path, dict[str, Any]]]:
    engine = open_engine(url)
    store_corpus(engine, home)
    yield engine, home, {}
    engine.dispose()


@pytest.fixture
def ask(
    corpus: tuple[Engine, Path, dict[str, Any]],
    audioset: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Asker:
    monkeypatch.setattr("os.getcwd", lambda: "/data")
    engine, home, kept = corpus
    return Asker(engine, home, audioset, tmp_path, kept)


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_way_has_the_same_answer(ask: Asker, question: str) -> None:
    answers = {name: way(ask) for name, way in QUESTIONS[question].items()}
    first, *others = answers
    assert answers[first]
    for name in others:
        assert answers[name] == answers[first], f"{name} is not {first}"


def test_a_folder_from_here_is_no_other_of_that_name(ask: Asker) -> None:
    for way in ("query", "export", "rank", "hours", "frame"):
        here, anywhere = (_source(name)[way](ask) for name in ("./site-2", "site-2"))
        assert anywhere - here == {sha("short")}, way


@pytest.mark.parametrize("way", PATHS)
def test_the_path_of_a_clip_is_the_first_that_show_tells(ask: Asker, way: str) -> None:
    shown = {c["clip"]["sha256"]: c["sources"][0]["path_text"] for c in ask.shown()}
    assert shown[sha("moved")] == "/data/site-1/moved.wav"
    assert shown[sha("odd")] == ODD.decode(errors="backslashreplace").replace("\n", "\\x0a")
    found = PATHS[way](ask)
    assert found
    assert found == {clip: shown[clip] for clip in found}
