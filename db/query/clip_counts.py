"""How many clips have a sound, counted only as far as it is cheap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Engine, func, select

from db.engine import reading
from db.query.current_labelling import represents_clip
from db.query.subtrees import counts, reaches, subtree
from db.schema.tables import clip_scores, labellings, nodes


@dataclass(frozen=True, slots=True)
class ClipCount:
    """A number of clips; there are more if `is_least`."""

    n_clips: int
    is_least: bool


def clip_counts(
    engine: Engine, mids: Iterable[str], min_score: float, most_rows: int
) -> dict[str, ClipCount]:
    """By MID, clips in whose current labelling a class at or below the node reaches the score.

    At most so many scores of each node are read: of a common class all would take seconds.
    Nodes that are not in the database are left out.
    """
    found = {}
    with reading(engine) as conn:
        wanted = list(mids)
        known = set(conn.execute(select(nodes.c.mid).where(nodes.c.mid.in_(wanted))).scalars())
        for mid in filter(known.__contains__, wanted):
            tree = subtree(conn, [mid])
            part = (
                select(clip_scores.c.labelling_id)
                .join(labellings, labellings.c.id == clip_scores.c.labelling_id)
                .where(
                    reaches(clip_scores, min_score),
                    counts(clip_scores, tree),
                    represents_clip(None),
                )
                .limit(most_rows)
                .subquery("heard")
            )
            query = select(func.count(part.c.labelling_id.distinct()), func.count())
            n_clips, n_rows = conn.execute(query.select_from(part)).one()
            found[mid] = ClipCount(n_clips, n_rows == most_rows)
    return found
