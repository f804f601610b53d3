"""A question: what to look for, and what must hold of clips, files and intervals.

A further condition is a field here and a line in one of the three functions: every question, export
and sample then takes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, FromClause, exists

from db.query.current_labelling import speaks_for_clip, taught_models
from db.query.paths import at_paths, is_there
from db.query.places import Near, at_sites, is_near
from db.query.subtrees import heard_in, subtree
from db.query.sun import in_phases
from db.query.time_spans import Span, end_s, in_span, is_long_enough, start_s
from db.schema.tables import clip_scores, labellings, sources

Order = Literal["score", "time", "duration", "path"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked for. MIDs; scores in [0, 1], 0 for all that is stored.

    A sound below any of `under`, in clips where each of `all_of` and none of `not_under` is heard.
    `min_duration_s`, `span` and `sun` (any of these phases of the day where the recording was made;
    `db.query.sun`) are about the sound, `paths` (`db.query.paths` says what they mean)
    about the file, which must not have vanished if `there_only`; so are `sites` (by their names as
    stored, any of them) and `near`. `model` asks its newest
    labelling, not the current one. `with_ambiguous` lets source-ambiguous classes (Hiss, Tick,
    ...) count on their own. The answers begin after the first `offset` ones. `among`: where they
    are not in the order of scores, only so many of the best are put in order, which costs the same
    however many there are. Exports take no `under` for every sound, and leave `order`, `limit`,
    `offset` and `among` aside.
    """

    under: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    not_under: tuple[str, ...] = ()
    min_score: float = 0.0
    min_duration_s: float = 0.0
    span: Span | None = None
    paths: tuple[str, ...] = ()
    sun: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    near: Near | None = None
    there_only: bool = False
    model: str | None = None
    order: Order = "score"
    limit: int | None = 100
    offset: int = 0
    among: int | None = None
    with_ambiguous: bool = False

    @property
    def is_timed(self) -> bool:
        """Whether it matters when a sound is heard."""
        return self.span is not None or bool(self.sun)


EVERY = Question()
"""A question that leaves no clip, file or sound out."""


def clip_conditions(
    conn: Connection, question: Question, heard: FromClause = clip_scores
) -> list[ColumnElement[bool]]:
    """What must hold of a row of labellings, beside that it represents its clip."""
    least, lone = question.min_score, question.with_ambiguous
    asked = None  # Another labelling of the clip may have heard the other sound.
    if question.model is None and taught_models(conn):
        every = labellings.alias("every")
        asked = every, speaks_for_clip(conn, None, every)
    all_of = [subtree(conn, [mid], with_ambiguous=lone) for mid in question.all_of]
    wanted = [heard_in(tree, least, heard, asked) for tree in all_of]
    if question.not_under:
        unwanted = subtree(conn, question.not_under, with_ambiguous=True)
        wanted.append(~heard_in(unwanted, least, heard, asked))
    of_files = file_conditions(question)
    if of_files:
        own = sources.c.clip_id == labellings.c.clip_id
        wanted.append(exists().where(own, *of_files).correlate(labellings))
    return wanted


def restricts_clips(question: Question) -> bool:
    """Whether `clip_conditions` leaves any clip out."""
    return bool(question.all_of or question.not_under or file_conditions(question))


def of_every_file(question: Question) -> Question:
    """The question without what `file_conditions` restricts."""
    return replace(question, paths=(), sites=(), near=None, there_only=False)


def file_conditions(question: Question, of: Any = sources) -> list[ColumnElement[bool]]:
    """What must hold of a row of sources."""
    meant = [at_paths(question.paths, of)] if question.paths else []
    meant += place_conditions(question, of)
    return [*meant, is_there(of)] if question.there_only else meant


def place_conditions(question: Question, of: Any = sources) -> list[ColumnElement[bool]]:
    """What must hold of the place of a row of sources; an index answers."""
    at_some = [at_sites(question.sites, of)] if question.sites else []
    return at_some if question.near is None else [*at_some, is_near(question.near, of)]


def interval_conditions(question: Question, intervals: Any) -> list[ColumnElement[bool]]:
    """What must hold of a row of detections, or of `intervals`; the moment is about files too."""
    if question.min_duration_s <= 0:
        return []
    begins, ends = start_s(intervals), end_s(intervals)
    return [is_long_enough(begins, ends, question.min_duration_s)]


def moment_conditions(
    question: Question, recording: Any, begins_s: ColumnElement[float], ends_s: ColumnElement[float]
) -> list[ColumnElement[bool]]:
    """What must hold of a part of a recording (a row of sources or occasions): span and sun."""
    span = [in_span(question.span, recording, begins_s, ends_s)] if question.span else []
    sun = [in_phases(question.sun, recording, begins_s, ends_s)] if question.sun else []
    return span + sun
