"""Clips: one row per content, kept as long as a source or a labelling refers to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnClause,
    Connection,
    Engine,
    Row,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from audioset_core.records import Statement
from db.catalog.health import write_health
from db.engine import Prepared, reading, upsert, writing
from db.paging import batches, page_of, pages, rows_where_in
from db.records import Clip
from db.schema.tables import clips, labellings, recording_notes, sources

_NOTES = ("told_start", "told_by", "latitude_deg", "longitude_deg", "device", "serial")
_FIGURES = (
    "size_bytes", "duration_s", "sample_rate_hz", "n_channels", "n_samples", "format", *_NOTES,
)  # fmt: skip
_INSERT_NOTES = insert(recording_notes)
_WRITE_FIGURES = update(clips).where(clips.c.id == bindparam("key"))


def store_clip(conn: Connection, clip: Clip, now: datetime) -> int:
    """Store a clip; its id. The row is locked: the failure of a copy cannot remove it meanwhile."""
    row = {**_figures(clip), "first_seen_at": now}
    clip_id, has_notes = _STORE.execute(conn, row).one()
    _write_notes(conn, clip_id, clip.notes, may_be_known=has_notes)
    return int(clip_id)


def clips_without_notes(engine: Engine) -> Iterator[Sequence[Row[Any]]]:
    """(clip id, path, size, time) of a file of every clip of which no statement is stored."""
    one = func.min(sources.c.id).label("source_id")
    query = select(clips.c.id, one).join(sources, sources.c.clip_id == clips.c.id)
    has_notes = exists().where(recording_notes.c.clip_id == clips.c.id)
    query = query.where(sources.c.status == "identified", ~has_notes).group_by(clips.c.id)
    for page in pages(engine, page_of(query, clips.c.id)):
        about = (sources.c.clip_id, sources.c.path, sources.c.size_bytes, sources.c.mtime_ns)
        ids = [row.source_id for row in page]
        with reading(engine) as conn:
            files = conn.execute(
                select(*about).where(sources.c.id.in_(ids)).order_by(sources.c.id)
            ).all()
        yield files


def add_notes(
    engine: Engine, clip_id: int, told: dict[str, Any], notes: Sequence[Statement]
) -> None:
    """Store what the file of a labelled clip says; its start is looked for again."""
    with writing(engine) as conn:
        conn.execute(update(clips).where(clips.c.id == clip_id).values(**told))
        _write_notes(conn, clip_id, tuple(notes))
        of_clip = update(sources).where(sources.c.clip_id == clip_id)
        conn.execute(of_clip.values(recorded_by=None))


def notes_of(
    conn: Connection, clip_ids: Sequence[int], *, of_start: bool = False
) -> dict[int, tuple[Statement, ...]]:
    """What the files of these clips say, by clip; with `of_start` only what is of their start."""
    query = select(recording_notes).order_by(recording_notes.c.clip_id, recording_notes.c.position)
    if of_start:
        query = query.where(or_(recording_notes.c.start != "", recording_notes.c.doubt != ""))
    found: dict[int, tuple[Statement, ...]] = {}
    for clip_id, _, *said in rows_where_in(conn, query, recording_notes.c.clip_id, clip_ids):
        found[clip_id] = (*found.get(clip_id, ()), Statement(*said))
    return found


def write_figures(conn: Connection, found: Sequence[tuple[int, Clip]]) -> None:
    """Replace the header's figures of (clip id, clip) by the decoder's, and store its state."""
    rows = [{"key": clip_id, **_figures(clip)} for clip_id, clip in found]
    for row in rows:
        del row["sha256"]  # the clip's identity
    if rows:
        conn.execute(_WRITE_FIGURES, rows)
    write_health(conn, [(clip_id, clip.health) for clip_id, clip in found if clip.health])


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


def _write_notes(
    conn: Connection, clip_id: int, notes: tuple[Statement, ...], *, may_be_known: bool = True
) -> None:
    stored = notes_of(conn, [clip_id]).get(clip_id) if notes and may_be_known else None
    if stored == notes or not notes:
        return
    if stored:
        conn.execute(delete(recording_notes).where(recording_notes.c.clip_id == clip_id))
    places = ({"clip_id": clip_id, "position": at} for at in range(len(notes)))
    rows = [place | asdict(note) for place, note in zip(places, notes, strict=True)]
    conn.execute(_INSERT_NOTES, rows)


def _storing(conn: Connection) -> Any:
    names = ("sha256", "first_seen_at", *_FIGURES)
    statement = upsert(conn, clips).values({name: bindparam(name) for name in names})
    told = {name: func.coalesce(statement.excluded[name], clips.c[name]) for name in _NOTES}
    statement = statement.on_conflict_do_update(
        index_elements=["sha256"], set_={"size_bytes": statement.excluded.size_bytes, **told}
    )
    own: ColumnClause[int] = literal_column("clips.id")  # SQLAlchemy would add clips to the FROM
    has_notes = exists().where(recording_notes.c.clip_id == own)
    return statement.returning(clips.c.id, has_notes)


_STORE = Prepared(_storing)


def _figures(clip: Clip) -> dict[str, Any]:
    return {"sha256": clip.sha256, **{name: getattr(clip, name) for name in _FIGURES}}
