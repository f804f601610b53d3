"""Putting the tables right, one short transaction each; a labelling run beside it is never harmed.

A run takes and commits its claims under a lock on the clip's row, and only while the claim's token
is the one that it holds. Everything here takes that lock first, changes finished labellings only if
they still are what was looked at, and raises the token of a claim that it takes away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, select, update

from db.catalog.clips import lock_clips, remove_unreferenced
from db.engine import upsert, writing
from db.integrity.audit import RESET, RESET_CURRENT, DoneLabelling, Labels
from db.ledger.claims import ENDED, NO_RESULT
from db.ledger.label_rows import delete_labels, insert_rows
from db.schema.tables import clip_scores, clips, detections, labellings, models
from db.totals.keeping import hold_labels, keeping_clips


def reset_labelling(engine: Engine, done: DoneLabelling) -> bool:
    """Make a finished labelling undone, so that the next run labels its clip again.

    Its rows go, its sources stay as they are, and another finished labelling, if there is one,
    represents the clip meanwhile. False if somebody changed it since it was read.
    """
    with writing(engine) as conn:
        lock_clips(conn, [done.clip_id])
        spoke = conn.execute(select(labellings.c.is_current).where(_as_seen(done))).scalar()
        # No run: nobody renews the lease or drops the claim, the next `claim_clip` takes it.
        values = NO_RESULT | {
            "status": "claimed",
            "token": labellings.c.token + 1,
            "lease_until": ENDED,
            "run_id": None,
            "source_id": None,
            "note": RESET_CURRENT if spoke else RESET,
            "is_current": False,
            "labelled_at": None,
        }
        undone = update(labellings).where(_as_seen(done)).values(values)
        with keeping_clips(conn, [done.clip_id]):
            if not conn.execute(undone).rowcount:
                return False
            delete_labels(conn, done.labelling_id)
            _choose_current(conn, done.clip_id)
        return True


def correct_labelling(engine: Engine, done: DoneLabelling, values: Mapping[str, Any]) -> bool:
    """Overwrite what a finished labelling says of its files; False if it changed meanwhile."""
    with writing(engine) as conn:
        lock_clips(conn, [done.clip_id])
        return bool(conn.execute(update(labellings).where(_as_seen(done)).values(values)).rowcount)


def rewrite_labels(engine: Engine, done: DoneLabelling, right: Labels) -> bool:
    """Replace a finished labelling's rows; False if it changed meanwhile."""
    with writing(engine) as conn:
        lock_clips(conn, [done.clip_id])
        if conn.execute(select(labellings.c.id).where(_as_seen(done))).one_or_none() is None:
            return False
        key = {"labelling_id": done.labelling_id}
        with keeping_clips(conn, [done.clip_id]):
            delete_labels(conn, done.labelling_id)
            insert_rows(conn, clip_scores, (key | row for row in right.scores.values()))
            insert_rows(conn, detections, (key | row for row in right.detections.values()))
        return True


def remove_stray_labels(engine: Engine, labelling_id: int) -> bool:
    """Delete the rows of an unfinished labelling; False if it is finished by now."""
    with writing(engine) as conn:
        own = select(labellings.c.clip_id).where(labellings.c.id == labelling_id)
        clip_id = conn.execute(own).scalar()
        if clip_id is None:
            return True
        lock_clips(conn, [clip_id])
        # Under the lock no commit comes between this look and the deletion.
        if conn.execute(own.where(labellings.c.status != "done")).scalar() is None:
            return False
        delete_labels(conn, labelling_id)
        return True


def choose_current(engine: Engine, clip_id: int) -> None:
    """Make one of the clip's finished labellings its current one, if none is."""
    with writing(engine) as conn:
        lock_clips(conn, [clip_id])
        wrong = update(labellings).where(
            labellings.c.clip_id == clip_id, labellings.c.is_current, labellings.c.status != "done"
        )
        with keeping_clips(conn, [clip_id]):
            conn.execute(wrong.values(is_current=False))
            _choose_current(conn, clip_id)


def restore_current(engine: Engine, pairs: Sequence[tuple[int, int]]) -> None:
    """Of (labelled again, current before): make the second, which the first replaced, current."""
    for again, before in pairs:
        with writing(engine) as conn:
            own = select(labellings.c.clip_id).where(labellings.c.id == again)
            clip_ids = conn.execute(own).scalars().all()
            lock_clips(conn, clip_ids)
            is_done = select(labellings.c.id).where(
                labellings.c.id == before, labellings.c.status == "done"
            )
            if conn.execute(is_done).scalar() is None:
                continue
            took = update(labellings).where(labellings.c.id == again, labellings.c.is_current)
            with keeping_clips(conn, clip_ids):
                if conn.execute(took.values(is_current=False)).rowcount:
                    give = update(labellings).where(labellings.c.id == before)
                    conn.execute(give.values(is_current=True))


@contextmanager
def holding_stray_file(
    engine: Engine, path: str, clip_sha256: str, silent_since: datetime, now: datetime
) -> Iterator[bool]:
    """Whether no row names the file, nor will; that stays so inside the block.

    A claim on the clip whose lease was in force after `silent_since` may still name it. Older
    claims are revoked here: a worker that wakes up late commits no file that is deleted meanwhile.
    """
    with writing(engine) as conn:
        clip_id = _hold_clip(conn, clip_sha256, now)
        hold_labels(conn)  # before the rows, as a promotion does
        own = select(labellings).where(labellings.c.clip_id == clip_id)
        rows = conn.execute(own.order_by(labellings.c.id).with_for_update()).all()
        claims = [row for row in rows if row.status != "done"]
        is_named = any(path in (row.scores_path, row.embeddings_path) for row in rows)
        is_silent = all(row.lease_until and row.lease_until <= silent_since for row in claims)
        is_unwanted = is_silent and not is_named
        if is_unwanted and claims:
            lost = update(labellings).where(labellings.c.id.in_([row.id for row in claims]))
            conn.execute(lost.values(token=labellings.c.token + 1))
        yield is_unwanted
        remove_unreferenced(conn, [clip_id])


def _as_seen(done: DoneLabelling) -> Any:
    return (
        (labellings.c.id == done.labelling_id)
        & (labellings.c.token == done.token)
        & (labellings.c.status == "done")
    )


def _choose_current(conn: Connection, clip_id: int) -> None:
    """One with scores, of the promoted model, of no taught one, the newest; if none is."""
    own = labellings.c.clip_id == clip_id
    if conn.execute(select(labellings.c.id).where(own, labellings.c.is_current)).first():
        return
    best = (
        select(labellings.c.id)
        .join(models, models.c.id == labellings.c.model_id)
        .where(own, labellings.c.status == "done")
        .order_by(
            labellings.c.scores_path.is_(None),
            models.c.is_promoted.desc(),
            models.c.is_taught,
            labellings.c.labelled_at.desc(),
            labellings.c.id.desc(),
        )
        .limit(1)
    )
    chosen = conn.execute(best).scalar()
    if chosen is not None:
        one = update(labellings).where(labellings.c.id == chosen)
        conn.execute(one.values(is_current=True))


def _hold_clip(conn: Connection, clip_sha256: str, now: datetime) -> int:
    """The locked row of a clip; an unknown clip has one until the transaction ends.

    Without it, somebody could claim, write and commit that clip between a look and a deletion.
    """
    unknown = {"size_bytes": 0, "duration_s": 0.0, "sample_rate_hz": 0, "n_channels": 0}
    row = {**unknown, "n_samples": 0, "format": "", "sha256": clip_sha256, "first_seen_at": now}
    held = upsert(conn, clips).values(row).on_conflict_do_update(
        index_elements=["sha256"], set_={"size_bytes": clips.c.size_bytes}
    )  # fmt: skip
    return int(conn.execute(held.returning(clips.c.id)).scalar_one())
