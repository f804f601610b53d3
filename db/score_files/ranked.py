"""Which score files a question is about, those that can hold the highest scores first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, select

from db.engine import reading
from db.query.answers import clock_time
from db.query.find import prepared
from db.query.occasions import occasions
from db.query.paths import first_source
from db.query.question import Question
from db.query.statements import best_of_clips, found_query
from db.query.subtrees import counts, reaches
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
    recorded_at: tuple[datetime, ...]
    scores_path: str
    n_patches: int
    patch_hop_s: float
    window_s: float
    duration_s: float
    peak: float
    classes: Mapping[int, tuple[str, str]]

    @property
    def bound(self) -> float:
        """No score of the clip in the subtree is higher."""
        return self.peak + ROUNDING


def score_files(engine: Engine, question: Question) -> Iterator[ScoreFile]:
    """Clips with a sound of the question in them, highest peak first, then by clip id.

    Reads on as it is asked to: whoever has enough stops. The order, the limit, the length and the
    span of the question are not for this.

    Raises:
        DatabaseUserError: as `db.query.find.find_clips`.
    """
    with reading(engine) as conn:
        tree, allowed = prepared(conn, question, by_interval=False)
        best = best_of_clips(found_query(tree, question.min_score, allowed))
        first_id = first_source(best.c.clip_id, question.paths).correlate(best).scalar_subquery()
        query = (
            select(
                best.c.labelling_id, best.c.peak, labellings.c.model_id, labellings.c.scores_path,
                labellings.c.n_patches, parameter_sets.c.patch_hop_s, models.c.window_s,
                clips.c.sha256, clips.c.duration_s, sources.c.path_text, best.c.clip_id,
            )
            .select_from(best)
            .join(labellings, labellings.c.id == best.c.labelling_id)
            .join(clips, clips.c.id == best.c.clip_id)
            .join(models, models.c.id == labellings.c.model_id)
            .join(parameter_sets, parameter_sets.c.id == labellings.c.parameter_set_id)
            .outerjoin(sources, sources.c.id == first_id)
            .where(labellings.c.scores_path.is_not(None))
            .order_by(best.c.peak.desc(), clips.c.sha256)
        )  # fmt: skip
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
            began = conn.execute(occasions(question.paths, row.clip_id))
            yield ScoreFile(
                clip=row.sha256,
                path_text=row.path_text,
                recorded_at=tuple(
                    clock_time(at.recorded_unix_ms, at.recorded_utc_offset_s) for at in began
                ),
                scores_path=row.scores_path,
                n_patches=row.n_patches,
                patch_hop_s=row.patch_hop_s,
                window_s=row.window_s,
                duration_s=row.duration_s,
                peak=row.peak,
                classes={one.idx: (one.mid, one.name) for one in conn.execute(its)},
            )
