"""Recordings of which redacted copies can be made, and those of which none can, file by file.

Read in pages: memory stays flat, and no transaction stays open while recordings are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, and_, func, select

from db.answer_records import Track, track_of
from db.engine import reading
from db.paging import page_of, paged_rows
from db.query.current_labelling import model_ids, represents_clip
from db.query.find import allowed_clips
from db.query.paths import is_trusted
from db.query.question import Question, file_conditions
from db.query.time_spans import row_hop_s, row_window_s
from db.record_columns import columns_for
from db.schema.tables import (
    categories,
    clips,
    labellings,
    models,
    nodes,
    parameter_sets,
    sources,
)


@dataclass(frozen=True, slots=True)
class RedactableFile:
    """A file, its clip and the labelling that represents the clip; None where there is none."""

    source_id: int
    path: bytes
    path_text: str
    size_bytes: int
    mtime_ns: int
    status: str
    reason: str | None
    clip: str | None
    sample_rate_hz: int | None
    n_channels: int | None
    n_samples: int | None
    duration_s: float | None
    is_partial: bool | None
    model_id: int | None
    model: str | None
    parameters: Any
    patch_hop_s: float | None
    window_s: float | None
    scores_path: str | None
    scores_sha256: str | None

    @property
    def track(self) -> Track:
        """Which of the file's audio tracks was labelled."""
        return track_of(self.parameters)


def count_redactable(engine: Engine, question: Question) -> int:
    """How many files `redactable` gives.

    Raises:
        DatabaseUserError: as there.
    """
    query = _query(engine, question, func.count())
    with reading(engine) as conn:
        return int(conn.execute(query).scalar_one())


def redactable(engine: Engine, question: Question) -> Iterator[RedactableFile]:
    """The files that a question is about, labelled or not, in the order they were seen.

    What it asks of a clip's sounds leaves files out that are not labelled.

    Raises:
        DatabaseUserError: unknown model or class, or a path is not a valid pattern.
    """
    columns = columns_for(
        RedactableFile, sources, clips, labellings, parameter_sets,
        source_id=sources.c.id, clip=clips.c.sha256,
        model=models.c.name + "@" + models.c.version,
        patch_hop_s=row_hop_s(), window_s=row_window_s(),
    )  # fmt: skip
    query = page_of(_query(engine, question, *columns), sources.c.id)
    for row in paged_rows(engine, query):
        yield RedactableFile(*row)


def classes_by_column(engine: Engine, model_id: int, mids: Sequence[str]) -> dict[int, str]:
    """Those of the classes that a model predicts: its outputs' numbers and the classes' names."""
    query = (
        select(categories.c.idx, nodes.c.name)
        .join(nodes, nodes.c.id == categories.c.node_id)
        .where(categories.c.model_id == model_id, nodes.c.mid.in_(mids))
        .order_by(categories.c.idx)
    )
    with reading(engine) as conn:
        return {row.idx: row.name for row in conn.execute(query)}


def _query(engine: Engine, question: Question, *columns: Any) -> Any:
    with reading(engine) as conn:
        ids = model_ids(conn, question.model)
        allowed = allowed_clips(conn, question, by_interval=False, is_single=True)
    asked = [allowed] if question.all_of or question.not_under else []
    own = and_(
        labellings.c.clip_id == clips.c.id, labellings.c.status == "done", represents_clip(ids)
    )
    joined = (
        sources.outerjoin(clips, clips.c.id == sources.c.clip_id)
        .outerjoin(labellings, own)
        .outerjoin(models, models.c.id == labellings.c.model_id)
        .outerjoin(parameter_sets, parameter_sets.c.id == labellings.c.parameter_set_id)
    )
    wanted = [is_trusted(), *file_conditions(question), *asked]
    return select(*columns).select_from(joined).where(*wanted)
