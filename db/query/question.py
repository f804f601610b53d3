"""A question: what to look for, and which conditions hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from db.query.time_spans import Span

Order = Literal["score", "time", "duration", "path"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked for. MIDs; scores in [0, 1], 0 for all that is stored.

    A sound below any of `under`, in clips where each of `all_of` and none of `not_under` is heard.
    `min_duration_s` and `span` are about the sound, `paths` (`db.query.paths` says what they mean)
    about the file, which must not have vanished if `there_only`. `model` asks its newest
    labelling, not the current one. `with_ambiguous` lets source-ambiguous classes (Hiss, Tick,
    ...) count on their own. Exports take no `under` for every sound, and leave `order` and `limit`
    aside.
    """

    under: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    not_under: tuple[str, ...] = ()
    min_score: float = 0.0
    min_duration_s: float = 0.0
    span: Span | None = None
    paths: tuple[str, ...] = ()
    there_only: bool = False
    model: str | None = None
    order: Order = "score"
    limit: int | None = 100
    with_ambiguous: bool = False
