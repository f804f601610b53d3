"""Questions, each with the ways to ask it, which all give one answer.

To add a way, or a question, add it here.
"""

from __future__ import annotations

from typing import Any

from db.query.time_spans import Span
from db.reports.collection import failure_reasons, node_hours, places, recorded_days
from tests.answers.asking import EVERYTHING, INTERVAL, hours, picked, records, spans_by, union_s
from tests.answers.corpus import CLIPS
from tests.answers.rows import ANIMAL, CAT, DOG, MIDS, MUSIC, ROOTS
from tests.answers.ways import (
    ALL_SCORES,
    BETWEEN,
    DAILY,
    DIFF,
    IN_SPAN,
    MANY,
    QUERY,
    SPAN,
    Way,
    best,
    best_by_set,
    branch_hours_by_query,
    by_set,
    clips_by_curve,
    clips_by_query,
    curve_hours,
    days,
    days_by_view,
    exported,
    framed,
    json_export,
    labelled,
    of_model,
    partial_of_model,
    queried,
    remarks,
    show_intervals,
    sounds,
    source,
    tree,
    viewed,
)
from tests.db.build import sha, top_clips

HOURS = ("hours", "--by", "class", *ALL_SCORES)
QUESTIONS: dict[str, dict[str, Way]] = {
    "every interval": {
        "query": queried(),
        "frame": framed(),
        "export": exported(),
        "detection_times": viewed("SELECT * FROM detection_times"),
        "sound_times": viewed("SELECT * FROM sound_times"),
        "show": show_intervals,
    },
    "intervals of files that are there": {
        "frame": framed(there_only=True),
        "export": lambda ask: picked(ask.exported("csv"), *INTERVAL),
        "sound_times": viewed(
            "SELECT s.* FROM sound_times AS s JOIN clip_sources AS c ON c.path = s.path "
            "WHERE c.status <> 'missing'"
        ),
    },
    "intervals of another model": {
        "query": queried("--model", "a"),
        "frame": framed(model="a"),
        "export": exported("--model", "a"),
    },
    "intervals in company": {
        "query": lambda ask: picked(
            ask.rows("query", "--intervals", "--under", CAT, "--min-score", "0", *MANY),
            *INTERVAL, peak="score",
        ),
        "frame": framed(under=CAT, with_ambiguous=False),
        "export": exported("--under", CAT),
    },
    "intervals at a score, not beside another sound": {
        "query": lambda ask: picked(
            ask.rows("query", "--intervals", "--under", ANIMAL, "--not-under", MUSIC,
                     "--min-score", "0.7", *MANY), *INTERVAL, peak="score"),
        "frame": framed(under=ANIMAL, not_under=MUSIC, min_score=0.7, with_ambiguous=False),
        "export": exported("--under", ANIMAL, "--not-under", MUSIC, "--min-score", "0.7"),
    },
    "intervals beside other sounds": {
        "query": queried("--all-of", DOG, "--all-of", MUSIC),
        "frame": framed(all_of=(DOG, MUSIC)),
        "export": labelled(all_of=(DOG, MUSIC)),
        "view": viewed(
            "SELECT * FROM detection_times WHERE clip IN (SELECT clip FROM subtree_labels "
            f"WHERE ancestor_mid = '{DOG}') AND clip IN (SELECT clip FROM subtree_labels "
            f"WHERE ancestor_mid = '{MUSIC}')"
        ),
    },
    "intervals that last": {
        "query": queried("--min-duration", "1.44"),
        "frame": framed(min_duration_s=1.44),
        "export": labelled(min_duration_s=1.44),
        "view": viewed("SELECT * FROM detection_times WHERE end_s - start_s > 1.4399999"),
    },
    "intervals at a time": {
        "query": queried(*BETWEEN),
        "export": labelled(span=Span(*SPAN)),
        "view": viewed(sounds(IN_SPAN)),
    },
    "intervals at an hour of every day": {
        "query": queried(*DAILY),
        "view": viewed(sounds("heard_hour = 6")),
    },
    "intervals of a set": by_set("own"),
    "intervals of a set of a model": by_set("of-a"),
    "clips of a set": best_by_set("own"),
    "clips of a set of a model": best_by_set("of-a"),
    "clips and their scores": {
        "query": lambda ask: best(ask.rows("query", "--under", ANIMAL, *ALL_SCORES, *MANY)),
        "frame": lambda ask: best(records(ask.labels.clips(ANIMAL, with_ambiguous=True))),
        "view": lambda ask: best(
            ask.sql(f"SELECT * FROM subtree_labels WHERE ancestor_mid = '{ANIMAL}'"), "peak"
        ),
        "rank": lambda ask: best(
            ask.rows("rank", "--under", ANIMAL, "--ambiguous", "--window", "0.5", "--top", "9999")
        ),
    },
    "how many clips have what is below a node": {
        "query": clips_by_query,
        "python": lambda ask: {
            mid: len(found) for mid in MIDS if (found := top_clips(ask.engine, mid, min_score=0.5))
        },
        "curve": clips_by_curve,
        "report": lambda ask: {mid: node["c"] for mid, node in tree(ask).items()},
    },
    "how long each node is heard": {
        "intervals": branch_hours_by_query,
        "report": lambda ask: {
            mid: round(node["h"] * 3600, 2) for mid, node in tree(ask).items()
        },
        "overview": lambda ask: {
            node.mid: round(node.hours * 3600, 2) for node in node_hours(ask.engine, 0.5)
        },
    },
    "hours of branches": {
        "hours": lambda ask: hours(ask.rows("hours", "--under", ANIMAL)),
        "frame": lambda ask: hours(records(ask.labels.hours(under=ANIMAL))),
        "report": lambda ask: {
            kid["m"]: round(kid["h"] * 3600, 3) for kid in tree(ask)[ANIMAL]["k"]
        },
    },
    "hours by class": {
        "hours": lambda ask: hours(ask.rows(*HOURS)),
        "frame": lambda ask: hours(
            records(ask.labels.hours("class", min_score=0.0, with_ambiguous=True))
        ),
        "class_hours": lambda ask: hours(ask.sql("SELECT * FROM class_hours")),
        "curve": curve_hours,
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
        "view": lambda ask: union_s(spans_by(ask.sql(sounds(IN_SPAN)), "mid", "clip")),
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
        "sound_times": lambda ask: days(ask, "s.peak >= 0"),
    },
    "hours by day at a time": {
        "hours": lambda ask: hours(ask.rows("hours", "--by", "day", *ALL_SCORES, *BETWEEN), "what"),
        "sound_times": lambda ask: days(ask, IN_SPAN),
    },
    "hours by file": {
        "hours": lambda ask: hours(ask.rows("hours", "--by", "source", *ALL_SCORES), "what"),
        "exact": lambda ask: hours(
            ask.rows("hours", "--by", "source", "--ambiguous", "--min-score", "0.11", "--exact"),
            "what",
        ),
        "query": lambda ask: union_s(spans_by(ask.rows(*QUERY, "--intervals"), "path")),
    },
    "model a": of_model("a"),
    "model b": of_model("b"),
    "a folder from any folder on": source("site-1"),
    "a folder and a wildcard": source("site-1/*"),
    "a whole path": source("/data/site-2"),
    "a folder of that name somewhere else": source("else/*"),
    "several patterns": source("*.wav*", "/nowhere"),
    "a path that is gone": source("old/*"),
    "from the current folder": source("./site-2"),
    "files there or not": {
        "a folder": lambda ask: source("site-1")["export"](ask),
        "a wildcard": lambda ask: source("site-1/*")["query"](ask),
        "here": lambda ask: source("./site-1")["hours"](ask),
        "the readable path": lambda ask: source("/data/site-1")["frame"](ask),
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
        "view": lambda ask: picked(
            ask.sql(
                "SELECT * FROM labels AS l WHERE peak = (SELECT MAX(peak) FROM labels AS best "
                "WHERE best.clip = l.clip AND best.mid = l.mid)"
            ), "clip", "mid", "peak", "mean",
        ),
        "show": lambda ask: picked(
            ({**one, "clip": clip["clip"]["sha256"]} for clip in ask.shown()
             for one in clip["labels"]), "clip", "mid", "peak", "mean"),
    },
    "remarks": {
        "view": lambda ask: picked(
            ask.sql("SELECT * FROM remarks"), "clip", "kind", "detail", "start_s"
        ),
        "show": remarks,
    },
    "partial clips": {
        "view": lambda ask: {r["clip"] for r in ask.sql("SELECT * FROM remarks WHERE is_partial")},
        "export": lambda ask: {
            r["clip"] for r in ask.exported("csv") if r["is_partial"] in ("True", "true", 1.0)
        },
        "json": partial_of_model,
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
        "clip_sources": days_by_view,
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
    "export json": lambda ask: _paths(json_export(ask, "a")),
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
