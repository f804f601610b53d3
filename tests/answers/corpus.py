"""A corpus in which answers could differ: overlaps, copies, files that are gone, partial clips.

Two models, and a taught one that counts beside them; three hops, labellings that no longer speak,
two sets of thresholds with intervals that are stale or superseded; score files as a run leaves
them.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, Engine, insert, select

from audioset_core.records import Threshold, ThresholdSet
from audioset_core.storage.score_files import npy_bytes
from db.engine import writing
from db.ledger.runs import start_run
from db.schema.tables import labelling_remarks, nodes, sources
from db.schema.threshold_tables import derivations, intervals
from db.thresholds.sets import store_set
from tests.answers.rows import (
    CAT,
    CLASSES,
    HISS,
    MUSIC,
    Heard,
    store_clip,
    store_labelling,
    store_model,
    store_ontology,
    store_parameters,
    store_source,
)
from tests.db.build import NOW, RUN, sha

DAY_MS = 1_715_990_400_000  # 2024-05-18 00:00 UTC
HOUR_MS = 3_600_000
OFFSET_S = 7_200
ODD = b"/data/site-1/o\xff\n.wav"
WINDOWS_S = {"a": 0.96, "b": 2.0, "taught": 0.96}
HOPS_S = (0.1, 0.48, 0.96)

# Length in seconds, then the files of each clip: path, hours after DAY_MS, whether it is gone.
# The file that was seen first comes first.
CLIPS: dict[str, tuple[float, list[tuple[str | bytes, float | None, bool]]]] = {
    "park": (10.0, [("/data/site-1/park.wav", 4, False),
                    ("/data/site-2/park copy.wav", 28, False)]),
    "moved": (8.0, [("/data/old/moved.wav", 100, True), ("/data/site-1/moved.wav", 5, False)]),
    "gone": (6.0, [("/data/site-1/gone.wav", 6, True)]),
    "partial": (5.3, [("/data/site-2/partial.wav", None, False)]),
    "odd": (4.0, [("/data/old/odd.wav", 30, True), (ODD, None, False)]),
    "hiss": (3.0, [("/data/site-2/hiss.wav", None, False)]),
    "company": (3.0, [("/data/site-2/company.wav", 22.5, False)]),
    "short": (0.5, [("/else/site-2/short.wav", None, False)]),
}  # fmt: skip

# Clip, model, hop, in the order in which they were made, and whether it speaks for the clip.
LABELLINGS = (
    ("park", "a", 0.48, False),
    ("park", "a", 0.1, True),
    ("moved", "a", 0.48, False),
    ("moved", "b", 0.96, True),
    ("gone", "a", 0.48, True),
    ("partial", "a", 0.48, True),
    ("partial", "b", 0.96, False),
    ("odd", "a", 0.48, True),
    ("hiss", "a", 0.48, True),
    ("company", "a", 0.48, False),
    ("company", "b", 0.96, True),
    ("short", "a", 0.48, True),
    ("park", "taught", 0.96, False),
    ("park", "taught", 0.48, False),
    ("moved", "taught", 0.48, False),
    ("gone", "taught", 0.48, False),
    ("partial", "taught", 0.96, False),
    ("company", "taught", 0.48, False),
)
SETS = {
    "own": ThresholdSet(None, Threshold(0.5, 0.3), {}),
    "of-a": ThresholdSet("a", Threshold(0.6, 0.3), {CAT: Threshold(0.2, 0.15)}),
}


def store_corpus(engine: Engine, home: Path) -> None:
    """Everything above, with scores by a fixed chance."""
    store_ontology(engine)
    start_run(engine, RUN, "host", 1, {}, NOW)
    variants = {
        (name, hop): (
            store_model(engine, name, "1", window, is_taught=name == "taught"),
            store_parameters(engine, hop),
        )
        for name, window in WINDOWS_S.items()
        for hop in HOPS_S
    }
    sets = {name: store_set(engine, name, values, NOW) for name, values in SETS.items()}
    rng = random.Random(4)
    with writing(engine) as conn:
        clip_ids = {
            name: store_clip(conn, name, round(length * 16_000))
            for name, (length, _) in CLIPS.items()
        }
        _store_sources(conn, clip_ids)
        for hours, (name, model, hop, speaks) in enumerate(LABELLINGS):
            duration_s = CLIPS[name][0]
            n_patches = 1 + max(0, int((duration_s - WINDOWS_S[model]) / hop + 1 - 1e-9))
            heard = _heard(rng, name, n_patches)
            path = f"scores/{name}-{model}-{hop:g}.npy"
            key = store_labelling(
                conn, clip_ids[name], variants[model, hop], heard, hours, is_current=speaks,
                n_patches=n_patches, scores_path=path, score_dtype="float32", run_id=RUN,
                is_partial=name == "partial",
            )  # fmt: skip
            _write_scores(home / path, heard, n_patches)
            if name == "partial":
                _store_remark(conn, key)
            for one in sets.values():
                if one.values.model in (None, model):
                    scores = sha(f"{clip_ids[name]} {variants[model, hop]}")
                    stale = name == "gone" and one.name == "own"
                    _store_intervals(conn, key, one.set_id, heard, sha("x") if stale else scores)


def _store_sources(conn: Connection, clip_ids: dict[str, int]) -> None:
    for name, (_, files) in CLIPS.items():
        for path, hours, is_gone in files:
            store_source(
                conn, path, clip_ids[name],
                status="missing" if is_gone else "identified",
                missing_at=NOW if is_gone else None,
                recorded_unix_ms=None if hours is None else DAY_MS + round(hours * HOUR_MS),
                recorded_utc_offset_s=None if hours is None else OFFSET_S,
                recorded_by="not found" if hours is None else "name",
                mtime_ns=86_400_000_000_000 * (100 if is_gone else 200),
            )  # fmt: skip
    broken = {"status": "failed", "reason": "damaged", "reason_detail": "spoilt"}
    store_source(conn, "/data/site-2/broken.wav", clip_ids["park"], **broken)
    conn.execute(
        sources.update().where(sources.c.status == "failed").values(clip_id=None, last_read_at=NOW)
    )


def _heard(rng: random.Random, name: str, n_patches: int) -> list[Heard]:
    """By chance, no two with one peak; Hiss alone, Hiss beside Cat, or without Hiss."""
    if name == "short":
        return [Heard(MUSIC, 0, 0, 0.8)]
    wanted = {"hiss": [HISS], "company": [CAT, HISS]}.get(name, [m for m in CLASSES if m != HISS])
    found = []
    for mid in wanted:
        at = rng.randint(0, 1)
        while at < n_patches:
            last = min(n_patches - 1, at + rng.choice((0, 0, 1, 2, 5)))
            found.append(Heard(mid, at, last, round(rng.uniform(0.12, 0.99), 4)))
            at = last + rng.choice((2, 2, 3, 9))
    return found


def _write_scores(path: Path, heard: list[Heard], n_patches: int) -> None:
    logits = np.full((n_patches, len(CLASSES)), -12.0, np.float32)
    for one in heard:
        logits[one.first : one.last + 1, CLASSES.index(one.mid)] = np.log(one.peak / (1 - one.peak))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(npy_bytes(logits))


def _store_remark(conn: Connection, labelling_id: int) -> None:
    row = {"kind": "truncated", "detail": "ends early", "start_s": 5.0, "end_s": None}
    conn.execute(insert(labelling_remarks).values(labelling_id=labelling_id, position=0, **row))


def _store_intervals(
    conn: Connection, labelling_id: int, set_id: int, heard: list[Heard], scores_sha256: str
) -> None:
    """What the set made of the scores: here, what peaks high enough."""
    node_of = {row.mid: row.id for row in conn.execute(select(nodes.c.mid, nodes.c.id))}
    rows = [
        {"labelling_id": labelling_id, "threshold_set_id": set_id, "node_id": node_of[one.mid],
         "start_patch": one.first, "end_patch": one.last, "peak": one.peak, "mean": one.peak,
         "peak_patch": one.last}
        for one in heard if one.peak >= 0.4
    ]  # fmt: skip
    if rows:
        conn.execute(insert(intervals), rows)
    conn.execute(
        insert(derivations).values(
            labelling_id=labelling_id, threshold_set_id=set_id, scores_sha256=scores_sha256,
            n_intervals=len(rows), derived_at=NOW,
        )
    )  # fmt: skip
