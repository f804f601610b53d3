"""Exactly once: claims with a lease and a token, and the one transaction that makes a labelling.

A claim is taken in a short transaction, inference runs outside any, and the commit succeeds only
while the token still matches: a worker that lost its lease writes nothing. Rows are locked in
one order everywhere (clips by id, sources by path digest, labellings by id): no deadlocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, fields
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, delete, select, update

from db.catalog.clips import lock_clips, remove_unreferenced, store_clip, write_figures
from db.catalog.copies import are_of_one_run, copies_of_failed
from db.engine import Prepared, repeatable, upsert, writing
from db.errors import DatabaseError
from db.ledger.added_embeddings import add_embeddings, is_labelled_with_more
from db.ledger.label_rows import category_nodes, insert_rows, label_rows
from db.ledger.unasked import leave_unasked
from db.records import (
    Claim,
    Clip,
    Committed,
    FailedSource,
    Failure,
    KnownClip,
    Labelling,
    Lease,
    NotClaimed,
    Variant,
)
from db.schema.tables import (
    clip_scores,
    detections,
    labelling_remarks,
    labellings,
    models,
    runs,
    sources,
)
from db.totals.keeping import keeping_clips

LEASE_S = 600.0
"""Seconds that a claim holds after its run's last heartbeat. A shard takes 10 to 30 s."""

ENDED = datetime(1970, 1, 1, tzinfo=UTC)
"""The end of a lease that is over, whatever the clock says."""

NO_RESULT: dict[str, Any] = {
    field.name: None if field.default is MISSING else field.default
    for field in fields(Labelling)
    if field.name in labellings.c
}
"""The columns that a commit writes, as they are before it: fields of `Labelling`, by name."""


@repeatable
def claim_clip(
    engine: Engine,
    source_id: int,
    clip: Clip,
    variant: Variant,
    lease: Lease,
    *,
    mtime_ns: int | None = None,
) -> Claim | NotClaimed:
    """Record which clip the source holds, and claim its labelling if nobody has it.

    `mtime_ns` is the file's time when it was read (None keeps the one from discovery). A claim that
    the same run took for the same source is taken over: its task died, and is tried again. So is
    one whose lease ends later than any lease can: it was taken before the clock was set back.
    """
    with writing(engine) as conn:
        clip_id = store_clip(conn, clip, lease.begins_at)
        _identify(conn, source_id, clip, clip_id, mtime_ns, lease.begins_at)
        if is_labelled_with_more(conn, clip_id, variant):
            return NotClaimed.DONE
        claim = _claim(conn, KnownClip(clip_id, clip.sha256, source_id), variant, lease)
        if claim is not None:
            return claim
        held = conn.execute(
            select(labellings.c.status, labellings.c.run_id, labellings.c.source_id).where(
                labellings.c.clip_id == clip_id,
                labellings.c.model_id == variant.model_id,
                labellings.c.parameter_set_id == variant.parameter_set_id,
            )
        ).one()
        if held.status != "done":
            is_copy = are_of_one_run(conn, lease.run_id, held.run_id)
            return NotClaimed.COPY if is_copy else NotClaimed.BUSY
        is_again = (held.run_id, held.source_id) == (lease.run_id, source_id)
        return NotClaimed.AGAIN if is_again else NotClaimed.DONE


@repeatable
def claim_known(
    engine: Engine, wanted: Sequence[KnownClip], variant: Variant, lease: Lease
) -> list[Claim | None]:
    """Claim the labellings of clips whose files are not read again; None where one is not free."""
    with writing(engine) as conn:
        lock_clips(conn, [clip.clip_id for clip in wanted])
        return [_claim(conn, clip, variant, lease) for clip in wanted]


@repeatable
def commit_labellings(
    engine: Engine,
    variant: Variant,
    batch: Sequence[Labelling],
    run_id: str,
    now: datetime,
    named: Sequence[Variant] = (),
) -> list[Committed]:
    """Make labellings done, all in one transaction; false where the claim was lost.

    The labelling becomes its clip's current one, unless that has scores and this one has none
    (embeddings only, or too short for a patch), or that is the promoted model's and this one is
    not, or this one is a taught model's and that is not. `named` has the run's variants in the
    order of their naming: none replaces one that was named before it, so that it does not matter
    which is committed first. Nothing is written for a lost claim. Labels that only lack embeddings
    stay, and get those.
    """
    if not batch:
        return []
    with writing(engine) as conn:
        lock_clips(conn, (labelling.claim.clip_id for labelling in batch))
        node_of = category_nodes(conn, variant.model_id)
        # Committed in the order of ids; the answer is in the order given.
        order = sorted(range(len(batch)), key=lambda at: batch[at].claim.labelling_id)
        with keeping_clips(conn, (labelling.claim.clip_id for labelling in batch)):
            still_held = _still_held(conn, [each.claim for each in batch])
            kept = [at for at in order if batch[at].claim in still_held]
            marked = [batch[at] for at in kept]
            _mark_done(conn, marked, run_id, now)
            added = add_embeddings(conn, variant, marked, run_id)
            done = [each for each in marked if each.claim.labelling_id not in added]
            if done:
                _make_current(conn, variant, done, named)
                write_figures(conn, [(each.claim.clip_id, each.clip) for each in done if each.clip])
                _write_rows(conn, done, node_of)
                leave_unasked(conn, [each.claim.labelling_id for each in done])
    outcomes = [Committed.LOST] * len(batch)
    for at in kept:
        is_added = batch[at].claim.labelling_id in added
        outcomes[at] = Committed.ADDED if is_added else Committed.LABELLED
    return outcomes


@repeatable
def renew_leases(engine: Engine, lease: Lease) -> int:
    """Extend the leases that a run still holds, and record that it is at work; returns how many."""
    with writing(engine) as conn:
        held = _held_by(conn, lease.run_id)
        _set_leases(conn, held, lease.ends_at)
        is_own = runs.c.id == lease.run_id
        conn.execute(update(runs).where(is_own).values(seen_at=lease.begins_at))
    return len(held)


@repeatable
def release_claims(engine: Engine, claims: Sequence[Claim]) -> None:
    """Release claims, so that the next `claim_clip` of their clips succeeds at once."""
    with writing(engine) as conn:
        for claim in _in_order(claims):
            conn.execute(update(labellings).where(_held(claim)).values(lease_until=ENDED))


@repeatable
def record_failures(
    engine: Engine, failures: Sequence[Failure], now: datetime, run_id: str | None = None
) -> list[FailedSource]:
    """Mark sources as failed, drop their claims and the clips that nothing refers to any more.

    Copies that the run left to one of these claims fail with it; they are returned.
    """
    if not failures:
        return []
    with writing(engine) as conn:
        linked = conn.execute(
            select(sources.c.clip_id).where(sources.c.id.in_([f.source_id for f in failures]))
        )
        touched = {clip_id for (clip_id,) in linked if clip_id is not None}
        touched.update(failure.claim.clip_id for failure in failures if failure.claim)
        lock_clips(conn, touched)
        copies = copies_of_failed(conn, run_id, failures) if run_id is not None else []
        failed = [*failures, *(copy.failure for copy in copies)]
        by_path = select(sources.c.id).where(sources.c.id.in_([f.source_id for f in failed]))
        conn.execute(by_path.order_by(sources.c.path_digest).with_for_update())
        conn.execute(
            update(sources)
            .where(sources.c.id == bindparam("key"))
            .values(status="failed", clip_id=None, last_read_at=now),
            [
                {"key": f.source_id, "reason": f.reason, "reason_detail": f.detail or None}
                for f in failed
            ],
        )
        for claim in _in_order(failure.claim for failure in failures):
            conn.execute(delete(labellings).where(_held(claim)))
        remove_unreferenced(conn, touched)
    return copies


def end_leases(conn: Connection, run_id: str) -> None:
    """Let others claim at once what a dead run had claimed."""
    _set_leases(conn, _held_by(conn, run_id), ENDED)


def drop_claims(conn: Connection, run_id: str) -> None:
    """Remove the claims that a finished run left, with clips that nothing else refers to."""
    held = (labellings.c.run_id == run_id) & (labellings.c.status == "claimed")
    touched = set(conn.execute(select(labellings.c.clip_id).where(held)).scalars())
    lock_clips(conn, touched)
    conn.execute(delete(labellings).where(held))
    remove_unreferenced(conn, touched)


def _in_order(claims: Iterable[Claim | None]) -> list[Claim]:
    return sorted((c for c in claims if c is not None), key=lambda claim: claim.labelling_id)


def _held(claim: Claim) -> Any:
    return (
        (labellings.c.id == claim.labelling_id)
        & (labellings.c.token == claim.token)
        & (labellings.c.status == "claimed")
    )


def _held_by(conn: Connection, run_id: str) -> list[int]:
    query = (
        select(labellings.c.id)
        .where(labellings.c.run_id == run_id, labellings.c.status == "claimed")
        .order_by(labellings.c.id)
        .with_for_update()
    )
    return list(conn.execute(query).scalars())


def _set_leases(conn: Connection, labelling_ids: list[int], until: datetime) -> None:
    if labelling_ids:
        conn.execute(
            update(labellings).where(labellings.c.id == bindparam("key")).values(lease_until=until),
            [{"key": labelling_id} for labelling_id in labelling_ids],
        )


def _claim(conn: Connection, clip: KnownClip, variant: Variant, lease: Lease) -> Claim | None:
    """The claim on the clip, whose row is locked; None if somebody has it or it is done."""
    row = _CLAIM.execute(
        conn,
        {
            "clip_id": clip.clip_id,
            "model_id": variant.model_id,
            "parameter_set_id": variant.parameter_set_id,
            "lease_until": lease.ends_at,
            "run_id": lease.run_id,
            "source_id": clip.source_id,
            "asked_at": lease.begins_at,
            "no_lease_until": lease.ends_at + timedelta(seconds=lease.duration_s),
        },
    ).one_or_none()
    if row is None:
        return None
    return Claim(row.id, row.token, clip.clip_id, clip.source_id, clip.sha256)


def _claiming(conn: Connection) -> Any:
    claim = upsert(conn, labellings).values(
        status="claimed",
        token=1,
        is_current=False,
        **{
            name: bindparam(name)
            for name in (
                "clip_id", "model_id", "parameter_set_id", "lease_until", "run_id", "source_id",
            )
        },
    )  # fmt: skip
    new = claim.excluded
    lease_until = labellings.c.lease_until
    is_free = (lease_until < bindparam("asked_at", type_=lease_until.type)) | (
        lease_until > bindparam("no_lease_until", type_=lease_until.type)
    )
    is_own = (labellings.c.run_id == new.run_id) & (labellings.c.source_id == new.source_id)
    claim = claim.on_conflict_do_update(
        index_elements=["clip_id", "model_id", "parameter_set_id"],
        set_={
            "token": labellings.c.token + 1,
            "lease_until": new.lease_until,
            "run_id": new.run_id,
            "source_id": new.source_id,
        },
        where=(labellings.c.status != "done") & (is_free | is_own),
    )
    return claim.returning(labellings.c.id, labellings.c.token)


_CLAIM = Prepared(_claiming)
_IDENTIFY = (
    update(sources)
    .where(sources.c.id == bindparam("key"))
    .values(
        status="identified", reason=None, reason_detail=None, missing_at=None, waiting_since=None
    )
)


def _identify(
    conn: Connection,
    source_id: int,
    clip: Clip,
    clip_id: int,
    mtime_ns: int | None,
    now: datetime,
) -> None:
    values: dict[str, Any] = {
        "key": source_id,
        "clip_id": clip_id,
        "size_bytes": clip.size_bytes,
        "last_read_at": now,
    }
    if mtime_ns is not None:
        values["mtime_ns"] = mtime_ns
    if clip.told_start is not None or clip.notes:
        values["recorded_by"] = None  # the start is looked for again, with what the file tells
    if not conn.execute(_IDENTIFY, values).rowcount:
        raise DatabaseError(f"there is no source {source_id}; add it to a work list first")


def _still_held(conn: Connection, claims: Sequence[Claim]) -> set[Claim]:
    """Those that nobody has taken over; their rows stay locked until the transaction ends."""
    query = select(labellings.c.id, labellings.c.token).where(
        labellings.c.id.in_([claim.labelling_id for claim in claims]),
        labellings.c.status == "claimed",
    )
    rows = conn.execute(query.order_by(labellings.c.id).with_for_update())
    token_of = {row.id: row.token for row in rows}
    return {claim for claim in claims if token_of.get(claim.labelling_id) == claim.token}


_MARK_DONE = (
    update(labellings)
    .where(labellings.c.id == bindparam("key"))
    .values(status="done", lease_until=None)
)


def _mark_done(conn: Connection, held: Sequence[Labelling], run_id: str, now: datetime) -> None:
    rows = [
        {
            "key": labelling.claim.labelling_id,
            "run_id": run_id,
            "labelled_at": now,
            **{name: getattr(labelling, name) for name in NO_RESULT},
        }
        for labelling in held
    ]
    if rows:
        conn.execute(_MARK_DONE, rows)


def _make_current(
    conn: Connection, variant: Variant, done: Sequence[Labelling], named: Sequence[Variant]
) -> None:
    columns = ("clip_id", "model_id", "parameter_set_id", "scores_path")
    ranked = (models.c.is_promoted, models.c.is_taught)
    current = select(*(labellings.c[name] for name in columns), *ranked).where(
        labellings.c.clip_id.in_([labelling.claim.clip_id for labelling in done]),
        labellings.c.is_current,
    )
    found = conn.execute(current.join(models, models.c.id == labellings.c.model_id))
    current_of = {row.clip_id: row for row in found}
    own = select(*ranked).where(models.c.id == variant.model_id)
    rank = _rank(conn.execute(own).one())

    def replaces(new: Labelling) -> bool:
        old = current_of.get(new.claim.clip_id)
        if old is None:
            return True
        has_scores = new.scores_path is not None
        mine, other = (has_scores, *rank), (old.scores_path is not None, *_rank(old))
        before = Variant(old.model_id, old.parameter_set_id)
        if mine != other:
            return mine > other
        if before in named:
            return named.index(variant) < named.index(before)
        return has_scores

    done = [labelling for labelling in done if replaces(labelling)]
    if not done:
        return
    clip_ids = [{"key": labelling.claim.clip_id} for labelling in done]
    labelling_ids = [{"key": labelling.claim.labelling_id} for labelling in done]
    old = update(labellings).where(
        labellings.c.clip_id == bindparam("key"), labellings.c.is_current
    )
    conn.execute(old.values(is_current=False), clip_ids)
    new = update(labellings).where(labellings.c.id == bindparam("key"))
    conn.execute(new.values(is_current=True), labelling_ids)


def _rank(model: Any) -> tuple[bool, bool]:
    """A promoted model comes first, a taught one, which would hide all other classes, last."""
    return model.is_promoted, not model.is_taught


def _write_rows(conn: Connection, done: Sequence[Labelling], node_of: dict[int, int]) -> None:
    """Replace the clip scores, detections and remarks of the labellings."""
    keys = [{"key": labelling.claim.labelling_id} for labelling in done]
    for table in (clip_scores, detections, labelling_remarks):
        conn.execute(delete(table).where(table.c.labelling_id == bindparam("key")), keys)
    by_id = [(labelling.claim.labelling_id, labelling) for labelling in done]
    scores = (label_rows(each.class_scores, node_of, labelling_id=key) for key, each in by_id)
    insert_rows(conn, clip_scores, chain.from_iterable(scores))
    found = (label_rows(each.detections, node_of, labelling_id=key) for key, each in by_id)
    insert_rows(conn, detections, chain.from_iterable(found))
    remarks = (
        {"labelling_id": key, "position": at, **asdict(remark)}
        for key, each in by_id
        for at, remark in enumerate(each.remarks)
    )
    insert_rows(conn, labelling_remarks, remarks)
