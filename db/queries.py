"""Questions by ontology subtree. A subtree's score is the best of the categories below it.

Source-ambiguous classes count only in company (`db.ambiguity`), unless asked for.

Exact top k without reading the subtree: where some category has k clips that reach a score, so has
the subtree; nothing below the highest of the categories' k-th peaks can be among its best k. Read
from the index alone, without a look at which clips count, that peak is only a guess: where k clips
that count reach it, they are the best k; else it is tried further down, and then exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    and_,
    case,
    exists,
    func,
    select,
    true,
)

from db.ambiguity import ambiguous_below, speaks_for_source
from db.engine import reading
from db.errors import DatabaseUserError
from db.reports import clip_by_ref, corpus_summary, failures, models_known, prediction_rows
from db.results import Hit
from db.selection import model_ids, speaks
from db.tables import (
    categories,
    clip_scores,
    clips,
    closure,
    detections,
    labellings,
    models,
    nodes,
    parameter_sets,
    sources,
)

__all__ = [
    "categories_of",
    "clip_by_ref",
    "corpus_summary",
    "failures",
    "models_known",
    "predictable_members",
    "prediction_rows",
    "score_floor",
    "top_clips",
]


def top_clips(
    engine: Engine,
    under: str,
    not_under: Sequence[str] = (),
    min_score: float = 0.0,
    limit: int | None = 100,
    model: str | None = None,
    *,
    with_ambiguous: bool = False,
) -> list[Hit]:
    """The best clips in the subtree of a MID, best first; equal scores in order of clip id.

    `min_score` 0 means all that is stored. Clips with any score of at least `min_score` in a
    subtree of `not_under` are left out. `model` asks its newest labelling, not the current one.
    `with_ambiguous` lets source-ambiguous classes (Hiss, Tick, ...) count on their own.

    Raises:
        DatabaseUserError: unknown MID or model, nothing below can be predicted, or `min_score` is
            below what is stored.
    """
    if not 0.0 <= min_score <= 1.0:
        raise DatabaseUserError(f"the minimum score {min_score} is not in [0, 1]")
    if limit is not None and limit < 1:
        raise DatabaseUserError(f"the limit {limit} is not at least 1")
    with reading(engine) as conn:
        ids = model_ids(conn, model)
        root = _node_id(conn, under)
        excluded = [_node_id(conn, mid) for mid in not_under]
        if not _members(conn, root, ids):
            raise DatabaseUserError(f"no model here predicts {under} or anything below it")
        floor = _floor(conn, ids)
        if 0.0 < min_score < floor:
            message = f"scores below {floor:g} are not stored, so {min_score:g} would miss clips"
            raise DatabaseUserError(f"{message}; ask for at least {floor:g}, or for no minimum")
        allowed = and_(speaks(ids), *_exclusions(excluded, min_score))
        ambiguous = [] if with_ambiguous else ambiguous_below(conn, root)
        for at_least in _lower_bounds(conn, root, min_score, limit, allowed, ambiguous):
            rows = conn.execute(best_query(root, at_least, limit, allowed, ambiguous)).all()
            if len(rows) == limit:
                break
        return [_hit(row) for row in rows]


def predictable_members(
    engine: Engine, mid: str, model: str | None = None
) -> list[tuple[str, str]]:
    """(MID, name) of the node and those below it that a model predicts, in ontology order."""
    with reading(engine) as conn:
        return _members(conn, _node_id(conn, mid), model_ids(conn, model))


def score_floor(engine: Engine, model: str | None = None) -> float:
    """The score from which on everything is stored, for the labellings that would be asked."""
    with reading(engine) as conn:
        return _floor(conn, model_ids(conn, model))


def categories_of(engine: Engine, model: str) -> list[tuple[int, str, str]]:
    """(index, MID, name) of the newest version of a model."""
    with reading(engine) as conn:
        ids = model_ids(conn, model)
        assert ids is not None
        query = (
            select(categories.c.idx, nodes.c.mid, categories.c.name)
            .join(nodes, nodes.c.id == categories.c.node_id)
            .where(categories.c.model_id == ids[0])
            .order_by(categories.c.idx)
        )
        return [(row[0], row[1], row[2]) for row in conn.execute(query)]


def _lower_bounds(
    conn: Connection,
    root: int,
    min_score: float,
    limit: int | None,
    allowed: ColumnElement[bool],
    ambiguous: Sequence[int],
) -> Iterator[float]:
    """Scores from which on to look for the best; the last is sure to be low enough."""
    if limit is not None:
        for place in (limit, 4 * limit):
            guess = conn.execute(kth_peak_query(root, min_score, place, None, ambiguous)).scalar()
            if guess is None:
                break
            yield max(min_score, guess)
        kth = kth_peak_query(root, min_score, limit, allowed, ambiguous)
        yield max(min_score, conn.execute(kth).scalar() or 0.0)
    else:
        yield min_score


def kth_peak_query(
    root: int,
    min_score: float,
    limit: int,
    allowed: ColumnElement[bool] | None,
    ambiguous: Sequence[int] = (),
) -> Select[Any]:
    """The highest of what the subtree's categories' `limit`-th best clips reach.

    The `ambiguous` ones are left aside: not all of their clips count, so theirs is no bound.
    Without `allowed` all labellings count, and the index alone answers.
    """
    its_scores = select(clip_scores.c.peak).where(
        clip_scores.c.node_id == closure.c.descendant_id, clip_scores.c.peak >= min_score
    )
    if allowed is not None:
        its_scores = its_scores.join(
            labellings, labellings.c.id == clip_scores.c.labelling_id
        ).where(allowed)
    kth = (
        its_scores.order_by(clip_scores.c.peak.desc())
        .limit(1)
        .offset(limit - 1)
        .correlate(closure)
        .scalar_subquery()
    )
    query = select(func.max(kth)).where(closure.c.ancestor_id == root)
    return query.where(closure.c.descendant_id.not_in(ambiguous)) if ambiguous else query


def best_query(
    root: int,
    at_least: float,
    limit: int | None,
    allowed: ColumnElement[bool],
    ambiguous: Sequence[int] = (),
) -> Select[Any]:
    """The best clips that reach `at_least`, with everything that a hit tells."""
    best_first = (clip_scores.c.peak.desc(), clip_scores.c.node_id)
    ranked = (
        select(
            clip_scores.c.labelling_id,
            clip_scores.c.node_id,
            clip_scores.c.peak,
            labellings.c.clip_id,
            labellings.c.model_id,
            labellings.c.parameter_set_id,
            func.row_number()
            .over(partition_by=clip_scores.c.labelling_id, order_by=best_first)
            .label("rank"),
        )
        .select_from(closure)
        .join(clip_scores, clip_scores.c.node_id == closure.c.descendant_id)
        .join(labellings, labellings.c.id == clip_scores.c.labelling_id)
        .where(closure.c.ancestor_id == root, clip_scores.c.peak >= at_least, allowed)
        .where(*speaks_for_source(root, ambiguous))
        .subquery("ranked")
    )
    best = (
        select(ranked, clips.c.sha256, clips.c.duration_s)
        .join(clips, clips.c.id == ranked.c.clip_id)
        .where(ranked.c.rank == 1)
        .order_by(ranked.c.peak.desc(), clips.c.sha256)
        .limit(limit)
        .subquery("best")
    )
    return _with_details(best)


def _exclusions(excluded: Sequence[int], min_score: float) -> list[ColumnElement[bool]]:
    """No score in the subtrees; reads a clip's few scores and looks each up in the closure."""
    if not excluded:
        return []
    other = clip_scores.alias("other")
    is_below = exists().where(
        closure.c.ancestor_id.in_(excluded), closure.c.descendant_id == other.c.node_id
    )
    found = exists().where(
        other.c.labelling_id == labellings.c.id,
        other.c.peak >= min_score,
        is_below.correlate(other),
    )
    return [~found.correlate(labellings)]


def _with_details(best: Any) -> Select[Any]:
    """Add the category, the first source and the best interval to the chosen clips."""
    own = sources.c.clip_id == best.c.clip_id
    inner = detections.alias("inner_detections")
    best_start = (
        select(inner.c.start_patch)
        .where(inner.c.labelling_id == best.c.labelling_id, inner.c.node_id == best.c.node_id)
        .order_by(inner.c.peak.desc(), inner.c.start_patch)
        .limit(1)
        .scalar_subquery()
    )
    first = sources.alias("first_source")
    is_missing = case((sources.c.status == "missing", 1), else_=0)
    first_id = (
        select(sources.c.id).where(own).order_by(is_missing, sources.c.id).limit(1)
    ).scalar_subquery()
    present = own & (sources.c.status != "missing")
    return (
        select(
            best.c.sha256,
            first.c.path,
            first.c.path_text,
            (first.c.status == "missing").label("is_missing"),
            select(func.count())
            .select_from(sources)
            .where(present)
            .scalar_subquery()
            .label("copies"),
            nodes.c.mid,
            nodes.c.name,
            best.c.peak,
            best.c.duration_s,
            detections.c.start_patch,
            detections.c.end_patch,
            detections.c.peak_patch,
            parameter_sets.c.patch_hop_s,
            models.c.window_s,
        )
        .select_from(best)
        .join(nodes, nodes.c.id == best.c.node_id)
        .join(models, models.c.id == best.c.model_id)
        .join(parameter_sets, parameter_sets.c.id == best.c.parameter_set_id)
        .outerjoin(first, first.c.id == first_id)
        .outerjoin(
            detections,
            and_(
                detections.c.labelling_id == best.c.labelling_id,
                detections.c.node_id == best.c.node_id,
                detections.c.start_patch == best_start,
            ),
        )
        .order_by(best.c.peak.desc(), best.c.sha256)
    )


def _hit(row: Row[Any]) -> Hit:
    start_s = end_s = peak_s = None
    if row.start_patch is not None:
        start_s = row.start_patch * row.patch_hop_s
        end_s = min(row.duration_s, row.end_patch * row.patch_hop_s + row.window_s)
        peak_s = row.peak_patch * row.patch_hop_s
    return Hit(
        clip=row.sha256,
        path=row.path,
        path_text=row.path_text,
        n_sources=row.copies,
        is_missing=bool(row.is_missing),
        mid=row.mid,
        name=row.name,
        score=row.peak,
        start_s=start_s,
        end_s=end_s,
        peak_s=peak_s,
        duration_s=row.duration_s,
    )


def _node_id(conn: Connection, mid: str) -> int:
    found = conn.execute(select(nodes.c.id).where(nodes.c.mid == mid)).scalar()
    if found is None:
        message = f"the ontology in the database has no node {mid!r}"
        raise DatabaseUserError(f"{message}; MIDs look like '/m/09x0r' (Speech)")
    return int(found)


def _members(conn: Connection, root: int, ids: Sequence[int] | None) -> list[tuple[str, str]]:
    predicted = exists().where(categories.c.node_id == nodes.c.id)
    if ids is not None:
        predicted = predicted.where(categories.c.model_id.in_(ids))
    query = (
        select(nodes.c.mid, nodes.c.name)
        .join(closure, closure.c.descendant_id == nodes.c.id)
        .where(closure.c.ancestor_id == root, predicted)
        .order_by(nodes.c.position, nodes.c.id)
    )
    return [(row.mid, row.name) for row in conn.execute(query)]


def _floor(conn: Connection, ids: Sequence[int] | None) -> float:
    """The highest floor in use (an index answers whether a set of parameters is)."""
    in_use = exists().where(
        labellings.c.parameter_set_id == parameter_sets.c.id,
        labellings.c.model_id == models.c.id,
    )
    which = in_use.where(labellings.c.is_current)
    query = select(func.max(parameter_sets.c.score_floor))
    query = query.join_from(parameter_sets, models, true())
    if ids is not None:
        which = in_use.where(labellings.c.status == "done", models.c.id.in_(ids))
    return float(conn.execute(query.where(which)).scalar() or 0.0)
