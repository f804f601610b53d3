"""Questions by a set of thresholds in place of one least score."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine

from audioset_core.errors import UserError
from db.interval_queries import top_clips_of_set
from db.results import Hit
from db.scored import count_underived
from db.threshold_sets import find_set
from flows.terminal import note


def found_by_set(
    engine: Engine,
    name: str,
    model: str | None,
    under: str,
    not_under: Sequence[str],
    limit: int | None,
    with_ambiguous: bool,
) -> list[Hit]:
    """The clips in which the set has an interval under the node; tells of those it has not seen.

    Raises:
        UserError: a model is asked for that the set is not for.
        DatabaseUserError: no such set.
    """
    stored = find_set(engine, name)
    own = stored.values.model
    if model is not None and model != own:
        raise UserError(
            f"{stored.title} is for {own or 'the current labelling of each clip'}: "
            f"leave --model {model} out, or choose another set"
        )
    if left := count_underived(engine, stored):
        note(f"{left:,} clips not looked at yet: audioset thresholds apply {stored.title}")
    return top_clips_of_set(engine, stored, under, not_under, limit, with_ambiguous=with_ambiguous)
