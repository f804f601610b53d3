"""Models side by side: which one is current, and where two of them disagree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    and_,
    exists,
    func,
    literal,
    or_,
    select,
    union_all,
    update,
)

from db.engine import reading, writing
from db.errors import DatabaseUserError
from db.paging import batches
from db.query.current_labelling import model_ids, newest_version, represents_clip
from db.query.paths import first_source
from db.query.time_spans import covered_seconds, timed
from db.schema.tables import (
    categories,
    clip_scores,
    clips,
    detections,
    labellings,
    models,
    nodes,
    sources,
)
from db.totals.keeping import keeping_variants


@dataclass(frozen=True, slots=True)
class ClassChange:
    """Minutes of a class's detections under two models, and clips with any; both scored these."""

    mid: str
    name: str
    minutes_a: float
    minutes_b: float
    n_clips_a: int
    n_clips_b: int


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A clip and the class whose peaks differ most; 0 stands for anything below the floor."""

    clip: str
    path_text: str | None
    mid: str
    name: str
    peak_a: float
    peak_b: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the clips that both scored; changes and disagreements largest first.

    Only classes that both predict are compared; `only_a` and `only_b` are the names of the others.
    A detection is at least as long as a window (the seconds of sound that one score is of). Where
    the windows differ, minutes say little, and the numbers of clips come first in the order.
    """

    n_clips: int
    window_s_a: float
    window_s_b: float
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    changes: tuple[ClassChange, ...]
    disagreements: tuple[Disagreement, ...]


def promote(engine: Engine, model: str) -> str:
    """Make the labellings of a model (NAME or NAME@VERSION) the current ones of their clips.

    One without scores takes no place of one with scores. Later labellings by other models do not
    replace them. Returns ``NAME@VERSION``.

    Raises:
        DatabaseUserError: no such model.
    """
    with writing(engine) as conn, keeping_variants(conn):
        chosen = newest_version(conn, model)
        conn.execute(update(models).where(models.c.is_promoted).values(is_promoted=False))
        conn.execute(update(models).where(models.c.id == chosen.id).values(is_promoted=True))
        for batch in batches(conn.execute(_to_become_current(chosen.id)).all()):
            of_clips = labellings.c.clip_id.in_([row.clip_id for row in batch])
            old = and_(labellings.c.is_current, of_clips)
            conn.execute(update(labellings).where(old).values(is_current=False))
            new = labellings.c.id.in_([row.id for row in batch])
            conn.execute(update(labellings).where(new).values(is_current=True))
        return f"{chosen.name}@{chosen.version}"


def retire(engine: Engine, model: str, *, is_retired: bool = True) -> str:
    """Have a taught model count only where it is named, or beside the current ones again.

    All versions of NAME, or NAME@VERSION. Returns what was given.

    Raises:
        DatabaseUserError: no such model, or it is not taught.
    """
    with writing(engine) as conn:
        ids = model_ids(conn, model)
        its = and_(models.c.id.in_(ids or ()), models.c.is_taught)
        if not conn.execute(update(models).where(its).values(is_retired=is_retired)).rowcount:
            raise DatabaseUserError(f"{model} is no taught model: only those count beside others")
    return model


def compare(engine: Engine, model_a: str, model_b: str, limit: int = 20) -> Comparison:
    """Compare two models (NAME or NAME@VERSION), each by its newest labelling of a clip.

    Raises:
        DatabaseUserError: no such model, or no clip that both scored.
    """
    with reading(engine) as conn:
        ids_a, ids_b = model_ids(conn, model_a) or [], model_ids(conn, model_b) or []
        pairs = _pairs(ids_a, ids_b)
        n_clips = conn.execute(select(func.count()).select_from(pairs)).scalar_one()
        if not n_clips:
            raise DatabaseUserError(f"no clip has scores of both {model_a} and {model_b}")
        classes_a, classes_b = _classes(conn, ids_a), _classes(conn, ids_b)
        shared = nodes.c.id.in_(_node_ids(ids_a)) & nodes.c.id.in_(_node_ids(ids_b))
        window_s_a, window_s_b = _window_s(conn, ids_a[0]), _window_s(conn, ids_b[0])
        return Comparison(
            n_clips,
            window_s_a,
            window_s_b,
            tuple(name for mid, name in classes_a.items() if mid not in classes_b),
            tuple(name for mid, name in classes_b.items() if mid not in classes_a),
            _changes(conn, pairs, shared, by_clips=window_s_a != window_s_b),
            _disagreements(conn, pairs, shared, limit),
        )


def _node_ids(ids: list[int]) -> Select[Any]:
    return select(categories.c.node_id).where(categories.c.model_id.in_(ids))


def _classes(conn: Connection, ids: list[int]) -> dict[str, str]:
    """Names by MID of what a model's versions predict, in the ontology's order."""
    query = select(nodes.c.mid, nodes.c.name).where(nodes.c.id.in_(_node_ids(ids)))
    return {row.mid: row.name for row in conn.execute(query.order_by(nodes.c.position, nodes.c.id))}


def _window_s(conn: Connection, model_id: int) -> float:
    query = select(models.c.window_s).where(models.c.id == model_id)
    return float(conn.execute(query).scalar_one())


def _to_become_current(model_id: int) -> Select[Any]:
    """(id, clip_id) of the model's best labelling of each clip, where a promotion puts it first."""
    row = labellings.c
    best_first = (row.scores_path.is_(None), row.labelled_at.desc(), row.id.desc())
    place = func.row_number().over(partition_by=row.clip_id, order_by=best_first)
    own = (
        select(row.id, row.clip_id, row.scores_path, row.is_current, place.label("place"))
        .where(row.model_id == model_id, row.status == "done")
        .subquery("own")
    )
    has_scores = exists().where(
        row.clip_id == own.c.clip_id, row.is_current, row.scores_path.is_not(None)
    )
    may_speak = or_(own.c.scores_path.is_not(None), ~has_scores)
    return select(own.c.id, own.c.clip_id).where(own.c.place == 1, ~own.c.is_current, may_speak)


def _pairs(ids_a: list[int], ids_b: list[int]) -> Any:
    """(clip, labelling of a, labelling of b) for the clips that both scored."""
    a, b = labellings.alias("a"), labellings.alias("b")
    scored = and_(a.c.scores_path.is_not(None), b.c.scores_path.is_not(None))
    return (
        select(a.c.clip_id, a.c.id.label("id_a"), b.c.id.label("id_b"))
        .join_from(a, b, a.c.clip_id == b.c.clip_id)
        .where(represents_clip(ids_a, a), represents_clip(ids_b, b), scored)
        .cte("pairs")
    )


def _changes(
    conn: Connection, pairs: Any, shared: ColumnElement[bool], *, by_clips: bool
) -> tuple[ClassChange, ...]:
    found: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for side, column in enumerate((pairs.c.id_a, pairs.c.id_b)):
        for mid, name, n_clips, seconds in conn.execute(_seconds(pairs, column).where(shared)):
            found.setdefault((mid, name), [(0.0, 0)] * 2)[side] = (seconds / 60, n_clips)
    changes = [
        ClassChange(mid, name, a, b, n_a, n_b)
        for (mid, name), ((a, n_a), (b, n_b)) in found.items()
    ]
    changes.sort(key=lambda c: (-abs(c.minutes_b - c.minutes_a), c.mid))
    if by_clips:
        changes.sort(key=lambda c: -abs(c.n_clips_b - c.n_clips_a))
    return tuple(changes)


def _seconds(pairs: Any, labelling_id: Any) -> Select[Any]:
    """Clips with a detection of each class, and the seconds that these cover together."""
    heard = timed(labellings.c.clip_id, detections.c.node_id)
    heard = heard.join(pairs, labelling_id == detections.c.labelling_id)
    covered = covered_seconds(heard, "node_id").subquery("covered")
    query = select(nodes.c.mid, nodes.c.name, covered.c.n_clips, covered.c.seconds)
    return query.join_from(covered, nodes, nodes.c.id == covered.c.node_id)


def _disagreements(
    conn: Connection, pairs: Any, shared: ColumnElement[bool], limit: int
) -> tuple[Disagreement, ...]:
    def peaks(labelling_id: Any, is_a: bool) -> Select[Any]:
        nothing = literal(0.0, clip_scores.c.peak.type)
        sides = (clip_scores.c.peak, nothing) if is_a else (nothing, clip_scores.c.peak)
        return (
            select(
                pairs.c.clip_id,
                clip_scores.c.node_id,
                sides[0].label("peak_a"),
                sides[1].label("peak_b"),
            )
            .select_from(pairs)
            .join(clip_scores, clip_scores.c.labelling_id == labelling_id)
            .join(nodes, nodes.c.id == clip_scores.c.node_id)
            .where(shared)
        )

    both = union_all(peaks(pairs.c.id_a, True), peaks(pairs.c.id_b, False)).subquery("both")
    peak_a, peak_b = func.max(both.c.peak_a), func.max(both.c.peak_b)
    by_class = (
        select(
            both.c.clip_id,
            both.c.node_id,
            peak_a.label("peak_a"),
            peak_b.label("peak_b"),
            func.abs(peak_a - peak_b).label("gap"),
        )
        .group_by(both.c.clip_id, both.c.node_id)
        .subquery("by_class")
    )
    widest = (by_class.c.gap.desc(), by_class.c.node_id)
    rank = func.row_number().over(partition_by=by_class.c.clip_id, order_by=widest).label("rank")
    ranked = select(by_class, rank).subquery("ranked")
    first = sources.alias("first_source")
    first_id = first_source(ranked.c.clip_id).correlate(ranked).scalar_subquery()
    path = select(first.c.path_text).where(first.c.id == first_id).scalar_subquery()
    query = (
        select(clips.c.sha256, path, nodes.c.mid, nodes.c.name, ranked.c.peak_a, ranked.c.peak_b)
        .select_from(ranked)
        .join(clips, clips.c.id == ranked.c.clip_id)
        .join(nodes, nodes.c.id == ranked.c.node_id)
        .where(ranked.c.rank == 1)
        .order_by(ranked.c.gap.desc(), clips.c.sha256)
        .limit(limit)
    )
    return tuple(Disagreement(*row) for row in conn.execute(query))
