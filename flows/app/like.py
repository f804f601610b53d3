"""Sounds like one, by the vectors that are stored of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from audioset_core.errors import AudioError, UserError
from audioset_core.previews.snippets import centred_span
from db.query.question import Question
from db.score_files.comparable import (
    Described,
    Vectors,
    describe,
    has_more_comparable,
    vectors_of,
)
from flows.analysis.similar import Similar, has_index, similar_clips
from flows.app.cards import Card
from flows.app.served import Served
from flows.asking import shown_interval
from flows.pages.examples import SNIPPET_S
from flows.terminal import clock, one_line

if TYPE_CHECKING:
    from flows.analysis.stored_scores import Row

MOST_READ = 3_000
"""So many recordings are compared without an index while a person waits."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """Cards by similarity, and how they were found."""

    heading: str
    cards: list[Card]
    notes: list[str]


def cards_like(home: Served, text: str, most: int) -> Likeness:
    """The sounds most like a clip, CLIP, or like a moment of it, CLIP@SECONDS.

    Raises:
        UserError, DatabaseUserError: no such clip, nothing is stored of it, it ends before that
            moment, or there are too many recordings to compare without an index.
    """
    found = re.fullmatch(r"([0-9a-f]{64})(?:@(\d{1,9}(?:\.\d{1,6})?))?", text)
    if found is None:
        raise UserError(f"{text[:80]!r} is not a clip and a moment of it, CLIP@SECONDS")
    clip, at_s = found[1], float(found[2]) if found[2] else None
    query = vectors_of(home.engine, clip)
    by_moment = at_s is not None
    if not has_index(home.home, query, by_moment=by_moment) and has_more_comparable(
        home.engine, query, MOST_READ
    ):
        moments = " --moments" if by_moment else ""
        raise UserError(
            f"more than {MOST_READ:,} recordings would be read one by one: "
            f"`audioset index build{moments}`, once, lets this answer at once"
        )
    answer = alike(home, query, at_s, most)
    described = describe(home.engine, [clip, *(row[3] for row in answer.rows)])
    notes = [f"Most alike first, by {query.kind} of {query.model}, {answer.how}."]
    if answer.remark is not None:
        notes.append(f"{one_line(answer.remark).capitalize()}.")
    at = "" if at_s is None else f" at {clock(at_s)}"
    return Likeness(
        f"Sounds like {_file_name(described.get(clip), clip)}{at}",
        [_card(row, query.window_s, described[row[3]]) for row in answer.rows], notes,
    )  # fmt: skip


def alike(home: Served, query: Vectors, at_s: float | None, most: int) -> Similar:
    """The clips most like one, or like its patch at a second.

    Raises:
        UserError: the clip ends before that second, or a stored file is lost or damaged.
    """
    try:
        return similar_clips(home.engine, home.home, query, Question(), at_s, most)
    except (AudioError, OSError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{query.kind} cannot be read: {why}; see `audioset verify`") from None


def _card(row: Row, window_s: float, file: Described) -> Card:
    cosine, start_s, end_s, clip, path_text = row
    begins_s, ends_s = centred_span(start_s, window_s, file.duration_s, SNIPPET_S)
    return Card(
        clip=clip, mid=file.best_mid or "", name=file.best_class or "no class", score=cosine,
        start_s=begins_s, end_s=ends_s, file=_file_name(file, clip), path_text=path_text or "",
        interval=shown_interval(start_s, end_s), has_alike=True,
        at_s=(start_s or 0.0) + window_s / 2,
    )  # fmt: skip


def _file_name(file: Described | None, clip: str) -> str:
    path = file.path_text if file else None
    return one_line(PurePath(path or "").name or clip[:12])
