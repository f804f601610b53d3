"""What runs have labelled, by branch of the ontology."""

from __future__ import annotations

from sqlalchemy import Engine, and_, func, or_, select

from db.engine import reading
from db.query.ambiguous_classes import counting_pairs
from db.schema.tables import clip_scores, closure, edges, labellings, nodes, runs

HEARD = 0.5
"""A clip counts under a branch where one of its classes peaks at this score or above."""


def clips_by_branch(engine: Engine, run_id: str) -> dict[str, int]:
    """Clips that the run, or runs that did parts of it, labelled, by second-level category.

    Most frequent first. A clip counts once, whichever of the run's models heard it. A class at the
    top of the ontology (Music) counts as itself.
    """
    top = select(nodes.c.id).where(nodes.c.id.not_in(select(edges.c.child_id)))
    second = select(edges.c.child_id).where(edges.c.parent_id.in_(top))
    is_branch = or_(
        closure.c.ancestor_id.in_(second),
        and_(closure.c.ancestor_id.in_(top), closure.c.depth == 0),
    )
    own_runs = select(runs.c.id).where((runs.c.id == run_id) | (runs.c.parent_id == run_id))
    n_clips = func.count(labellings.c.clip_id.distinct())
    query = (
        select(nodes.c.name, n_clips)
        .select_from(labellings)
        .join(clip_scores, clip_scores.c.labelling_id == labellings.c.id)
        .join(closure, closure.c.descendant_id == clip_scores.c.node_id)
        .join(nodes, nodes.c.id == closure.c.ancestor_id)
        .where(labellings.c.run_id.in_(own_runs), labellings.c.status == "done")
        .where(clip_scores.c.peak >= HEARD, is_branch)
        .group_by(nodes.c.id, nodes.c.name)
        .order_by(n_clips.desc(), nodes.c.name)
    )
    with reading(engine) as conn:
        query = query.where(counting_pairs(conn))
        return {row[0]: row[1] for row in conn.execute(query)}
