"""The state of recordings as they were decoded, and the clips of which no state is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    bindparam,
    exists,
    func,
    insert,
    select,
)

from audioset_core.records import Health
from db.engine import Prepared, upsert, writing
from db.paging import page_of, pages
from db.records import Remark
from db.schema.tables import clip_health, clips, labelling_remarks, labellings

MEASURES = tuple(field.name for field in fields(Health))


def write_health(conn: Connection, found: Sequence[tuple[int, Health]]) -> None:
    """Replace what is stored of (clip id, state); a loudness stays where none was measured now."""
    rows = [{"clip_id": clip_id, **asdict(health)} for clip_id, health in found]
    if rows:
        _STORE.execute(conn, rows)


def health_of(conn: Connection, clip_id: int) -> Health | None:
    """The stored state of a clip."""
    query = select(*(clip_health.c[name] for name in MEASURES))
    row = conn.execute(query.where(clip_health.c.clip_id == clip_id)).one_or_none()
    return None if row is None else Health(**row._mapping)


def clips_without_health(engine: Engine, *, with_loudness: bool) -> Iterator[Sequence[Row[Any]]]:
    """(id, SHA-256) in pages of labelled clips without a state, or also without loudness."""
    known = exists().where(clip_health.c.clip_id == clips.c.id)
    if with_loudness:
        known = known.where(clip_health.c.loudness_lufs.is_not(None))
    is_labelled = exists().where(labellings.c.clip_id == clips.c.id, labellings.c.is_current)
    query = select(clips.c.id, clips.c.sha256).where(~known, is_labelled)
    yield from pages(engine, page_of(query, clips.c.id))


def add_health(
    engine: Engine, clip_id: int, health: Health, remarks: Sequence[Remark] = ()
) -> None:
    """Store the state of a clip that was labelled before, and remarks beside its current labels."""
    current = select(labellings.c.id).where(
        labellings.c.clip_id == clip_id, labellings.c.is_current
    )
    of_labelling = labelling_remarks.c.labelling_id
    with writing(engine) as conn:
        write_health(conn, [(clip_id, health)])
        labelling_id = conn.execute(current).scalar_one_or_none()
        if labelling_id is None:
            return
        own = of_labelling == labelling_id
        at = select(func.coalesce(func.max(labelling_remarks.c.position), -1)).where(own)
        known = set(conn.execute(select(labelling_remarks.c.kind).where(own)).scalars())
        first = conn.execute(at).scalar_one() + 1
        new = [remark for remark in remarks if remark.kind not in known]
        rows = [
            {"labelling_id": labelling_id, "position": first + n, **asdict(remark)}
            for n, remark in enumerate(new)
        ]
        if rows:
            conn.execute(insert(labelling_remarks), rows)


def _storing(conn: Connection) -> Any:
    names = ("clip_id", *MEASURES)
    statement = upsert(conn, clip_health).values({name: bindparam(name) for name in names})
    new = {name: statement.excluded[name] for name in MEASURES}
    kept = func.coalesce(new["loudness_lufs"], clip_health.c.loudness_lufs)
    return statement.on_conflict_do_update(
        index_elements=["clip_id"], set_=new | {"loudness_lufs": kept}
    )


_STORE = Prepared(_storing)
