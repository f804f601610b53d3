"""Rows put straight into the database: quicker than a run's way, and of any shape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select, update

from audioset_core.ontology.graph import load_default
from db.catalog.model_registry import register_model, register_parameters
from db.catalog.sources import path_digest
from db.engine import writing
from db.records import Model, Parameters
from db.schema.tables import (
    clip_scores,
    clips,
    detections,
    labellings,
    models,
    nodes,
    parameter_sets,
    sources,
)
from db.totals.keeping import keeping_clips
from db.types import path_text
from tests.db.build import NOW, load, sha

ANIMAL, DOG, CAT, GROWLING = "/m/0jbk", "/m/0bt9lr", "/m/01yrx", "/m/0ghcn6"
HISS, AMBIGUOUS, MUSIC, INSTRUMENT = "/m/07rjwbb", "/t/dd00098", "/m/04rlf", "/m/04szw"
MIDS = (ANIMAL, DOG, CAT, GROWLING, AMBIGUOUS, HISS, MUSIC)
# Growling has two parents; Hiss stands below a source and below what is ambiguous.
EDGES = (
    (ANIMAL, DOG),
    (ANIMAL, CAT),
    (DOG, GROWLING),
    (CAT, GROWLING),
    (CAT, HISS),
    (AMBIGUOUS, HISS),
    (MUSIC, INSTRUMENT),
)
CLASSES = (ANIMAL, DOG, CAT, GROWLING, HISS, MUSIC)
ROOTS = (ANIMAL, AMBIGUOUS, MUSIC)
FLOOR = 0.1


@dataclass(frozen=True, slots=True)
class Heard:
    """A class from the first to the last of some patches."""

    mid: str
    first: int
    last: int
    peak: float


def store_ontology(engine: Engine) -> None:
    """The nodes above, and AudioSet's other roots, which questions about everything name."""
    roots = [root.mid for root in load_default().roots]
    load(engine, tuple(dict.fromkeys((*MIDS, INSTRUMENT, *roots))), EDGES)


def store_model(
    engine: Engine, name: str, version: str, window_s: float, *, is_taught: bool = False
) -> int:
    categories = tuple((index, mid, mid) for index, mid in enumerate(CLASSES))
    digest = sha(name + version)
    return register_model(
        engine, Model(name, version, digest, 16_000, window_s, 8, categories, is_taught), NOW
    )


def store_parameters(engine: Engine, hop_s: float, framing: str = "reference") -> int:
    return register_parameters(engine, Parameters(hop_s, FLOOR, FLOOR, {"framing": framing}))


def forget_labels(engine: Engine) -> None:
    """Leave the ontology alone."""
    with writing(engine) as conn:
        for table in (labellings, sources, clips, models, parameter_sets):
            conn.execute(delete(table))


def store_clip(conn: Connection, name: str, n_samples: int, rate_hz: int = 16_000) -> int:
    row = {
        "sha256": sha(name),
        "size_bytes": 9,
        "duration_s": n_samples / rate_hz,
        "sample_rate_hz": rate_hz,
        "n_channels": 1,
        "n_samples": n_samples,
        "format": "wav",
        "first_seen_at": NOW,
    }
    return int(conn.execute(insert(clips).values(row).returning(clips.c.id)).scalar_one())


def store_source(conn: Connection, path: str | bytes, clip_id: int, **columns: Any) -> None:
    raw = path.encode() if isinstance(path, str) else path
    row = {
        "path_digest": path_digest(raw),
        "path": raw,
        "path_text": path_text(raw),
        "size_bytes": 9,
        "mtime_ns": 7,
        "status": "identified",
        "clip_id": clip_id,
        "first_seen_at": NOW,
    }
    conn.execute(insert(sources).values(row | columns))


def store_labelling(
    conn: Connection,
    clip_id: int,
    variant: tuple[int, int],
    heard: Iterable[Heard],
    hours_later: int = 0,
    **columns: Any,
) -> int:
    """The newest labelling of a clip, which speaks for it unless `is_current` is False."""
    with keeping_clips(conn, [clip_id]):
        if columns.get("is_current", True):
            of_clip = update(labellings).where(labellings.c.clip_id == clip_id)
            conn.execute(of_clip.values(is_current=False))
        row = {
            "clip_id": clip_id,
            "model_id": variant[0],
            "parameter_set_id": variant[1],
            "status": "done",
            "token": 1,
            "n_patches": 20,
            "scores_path": f"scores/{clip_id}-{variant[0]}-{variant[1]}.npy",
            "scores_sha256": sha(f"{clip_id} {variant}"),
            "is_current": True,
            "labelled_at": NOW + timedelta(hours=hours_later),
            "is_partial": False,
        }
        made = insert(labellings).values(row | columns).returning(labellings.c.id)
        key = int(conn.execute(made).scalar_one())
        node_of = {row.mid: row.id for row in conn.execute(select(nodes.c.mid, nodes.c.id))}
        peaks: dict[str, float] = {}
        rows = []
        for one in heard:
            peaks[one.mid] = max(one.peak, peaks.get(one.mid, 0.0))
            rows.append(
                {
                    "labelling_id": key,
                    "node_id": node_of[one.mid],
                    "start_patch": one.first,
                    "end_patch": one.last,
                    "peak": one.peak,
                    "mean": one.peak / 2,
                    "peak_patch": one.last,
                }
            )
        if rows:
            conn.execute(insert(detections), rows)
            conn.execute(
                insert(clip_scores),
                [
                    {"labelling_id": key, "node_id": node_of[mid], "peak": peak, "mean": peak / 2}
                    for mid, peak in peaks.items()
                ],
            )
        return key
