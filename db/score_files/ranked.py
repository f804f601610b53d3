"""Which score files a question is about, those that can hold the highest scores first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Engine, select

from db.engine import reading
from db.query.answers import clock_time
from db.query.current_labelling import with_facts
from db.query.find import prepared
from db.query.occasions import occasions
from db.query.paths import first_source
from db.query.question import Question, file_conditions
from db.query.statements import best_of_clips, found_query
from db.query.subtrees import counts, reaches
from db.query.time_spans import row_hop_s, row_window_s
from db.record_columns import columns_for
from db.schema.tables import (
    categories,
    clip_scores,
    clips,
    labellings,
    models,
    nodes,
    parameter_sets,
    sources,
)
from db.types import SCORE_SCALE

ROUNDING = 0.5 / SCORE_SCALE
"""How far a stored peak may lie below the true one."""

_PAGE = 500


@dataclass(frozen=True, slots=True)
class ScoreFile:
    """The scores of a clip; `peak` is its best in the subtree, no score there is above `bound`.

    `classes` are the outputs that count there and reach the least score: index -> (MID, name).
    """

    clip: str
    path_text: str | None
    scores_path: str
    n_patches: int
    patch_hop_s: float
    window_s: float
    duration_s: float
    peak: float
    recorded_at: tuple[datetime, ...] = ()
    classes: Mapping[int, tuple[str, str]] = field(default_factory=dict)

    @property
    def bound(self) -> float:
        """No score of the clip in the subtree is higher."""
        return self.peak + ROUNDING


def score_files(
    engine: Engine, question: Question, *, by_clip: bool = False
) -> Iterator[ScoreFile]:
    """Clips with a sound of the question in them, highest peak first, then by clip id.

    A clip has a file for each labelling that speaks for it; `by_clip` gives them together. Reads
    on as long as it is asked to. The order, the limit, the length and the span of the question are
    not for this.

    Raises:
        DatabaseUserError: as `db.query.find.find_clips`.
    """
    with reading(engine) as conn:
        tree, allowed = prepared(conn, question, by_interval=False)
        best = best_of_clips(found_query(tree, question.min_score, allowed), "labelling_id")
        of_files = file_conditions(question)
        first_id = first_source(best.c.clip_id, *of_files).correlate(best).scalar_subquery()
        columns = columns_for(
            ScoreFile, best, labellings, clips, models, parameter_sets, sources,
            clip=clips.c.sha256, patch_hop_s=row_hop_s(), window_s=row_window_s(),
        )  # fmt: skip
        query = (
            with_facts(
                select(
                    *columns, best.c.labelling_id, labellings.c.model_id, best.c.clip_id
                ).join_from(best, labellings, labellings.c.id == best.c.labelling_id)
            )
            .outerjoin(sources, sources.c.id == first_id)
            .where(labellings.c.scores_path.is_not(None))
            .order_by(*([] if by_clip else [best.c.peak.desc()]), clips.c.sha256, labellings.c.id)
        )
        for row in conn.execution_options(yield_per=_PAGE).execute(query):
            its = (
                select(categories.c.idx, nodes.c.mid, nodes.c.name)
                .select_from(clip_scores)
                .join(nodes, nodes.c.id == clip_scores.c.node_id)
                .join(categories, categories.c.node_id == clip_scores.c.node_id)
                .where(
                    clip_scores.c.labelling_id == row.labelling_id,
                    categories.c.model_id == row.model_id,
                    reaches(clip_scores, question.min_score),
                    counts(clip_scores, tree),
                )
                .order_by(categories.c.idx)
            )
            began = conn.execute(occasions(*of_files, clip_id=row.clip_id))
            yield replace(
                ScoreFile(*row[:-3]),
                recorded_at=tuple(
                    clock_time(at.recorded_unix_ms, at.recorded_utc_offset_s) for at in began
                ),
                classes={one.idx: (one.mid, one.name) for one in conn.execute(its)},
            )
