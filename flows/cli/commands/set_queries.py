"""Questions by a set of thresholds in place of one least score."""

from __future__ import annotations

from sqlalchemy import Engine

from audioset_core.errors import UserError
from db.answer_records import Hit
from db.query.question import Question
from db.score_files.labelled import count_underived
from db.thresholds.find import find_clips_of_set, find_intervals_of_set
from db.thresholds.sets import find_set
from flows.terminal import note


def found_by_set(engine: Engine, name: str, question: Question, *, intervals: bool) -> list[Hit]:
    """What the set found that answers the question; tells of clips that it has not seen.

    Raises:
        UserError: a model is asked for that the set is not for.
        DatabaseUserError: no such set.
    """
    stored = find_set(engine, name)
    own = stored.values.model
    if question.model is not None and question.model != own:
        raise UserError(
            f"{stored.title} is for {own or 'the current labelling of each clip'}: "
            f"leave --model {question.model} out, or choose another set"
        )
    if left := count_underived(engine, stored):
        note(f"{left:,} clips not looked at yet: audioset thresholds apply {stored.title}")
    find = find_intervals_of_set if intervals else find_clips_of_set
    return find(engine, stored, question)
