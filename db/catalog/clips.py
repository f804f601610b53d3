"""Clips: one row per content, kept as long as a source or a labelling refers to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, func, select, update

from db.engine import Prepared, upsert
from db.paging import batches, rows_where_in
from db.records import Clip
from db.schema.tables import clips, labellings, sources

_NOTES = ("told_start", "told_by", "latitude_deg", "longitude_deg")
_FIGURES = (
    "size_bytes", "duration_s", "sample_rate_hz", "n_channels", "n_samples", "format", *_NOTES,
)  # fmt: skip
_WRITE_FIGURES = update(clips).where(clips.c.id == bindparam("key"))


def store_clip(conn: Connection, clip: Clip, now: datetime) -> int:
    """Store a clip; its id. The row is locked: the failure of a copy cannot remove it meanwhile."""
    row = {**_figures(clip), "first_seen_at": now}
    return int(_STORE.execute(conn, row).scalar_one())


def write_figures(conn: Connection, found: Sequence[tuple[int, Clip]]) -> None:
    """Replace the header's figures of (clip id, clip) by the decoder's."""
    rows = [{"key": clip_id, **_figures(clip)} for clip_id, clip in found]
    for row in rows:
        del row["sha256"]  # the clip's identity
    if rows:
        conn.execute(_WRITE_FIGURES, rows)


def lock_clips(conn: Connection, clip_ids: Iterable[int]) -> None:
    """Hold the rows until the transaction ends (SQLite's write lock does already)."""
    for batch in batches(sorted(set(clip_ids))):
        some = select(clips.c.id).where(clips.c.id.in_(batch))
        conn.execute(some.order_by(clips.c.id).with_for_update())


def clip_ids(conn: Connection, wanted: Sequence[str]) -> dict[str, int]:
    """Ids of the clips with these SHA-256, as far as there are such clips."""
    query = select(clips.c.sha256, clips.c.id)
    return {row.sha256: row.id for row in rows_where_in(conn, query, clips.c.sha256, wanted)}


def remove_unreferenced(conn: Connection, clip_ids: Iterable[int]) -> None:
    """Delete those (locked) clips that no source and no labelling refers to."""
    for batch in batches(sorted(set(clip_ids))):
        conn.execute(
            delete(clips).where(
                clips.c.id.in_(batch),
                ~exists().where(sources.c.clip_id == clips.c.id),
                ~exists().where(labellings.c.clip_id == clips.c.id),
            )
        )


def _storing(conn: Connection) -> Any:
    names = ("sha256", "first_seen_at", *_FIGURES)
    statement = upsert(conn, clips).values({name: bindparam(name) for name in names})
    told = {name: func.coalesce(statement.excluded[name], clips.c[name]) for name in _NOTES}
    statement = statement.on_conflict_do_update(
        index_elements=["sha256"], set_={"size_bytes": statement.excluded.size_bytes, **told}
    )
    return statement.returning(clips.c.id)


_STORE = Prepared(_storing)


def _figures(clip: Clip) -> dict[str, Any]:
    return {"sha256": clip.sha256, **{name: getattr(clip, name) for name in _FIGURES}}
