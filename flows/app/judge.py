"""The page on which a sample of sounds is judged by ear, by one person or several."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import PurePath
from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import APIRouter, Path, Query
from fastapi.responses import HTMLResponse
from pydantic import AfterValidator, BaseModel, Field

from audioset_core.errors import UserError
from audioset_core.evaluation.agreement import agreements
from audioset_core.previews.snippets import centred_span
from db.judging import shared_reviews
from db.judging.given import give_verdict
from db.judging.review_sample import review_sample
from db.judging.reviews import judged_review, store_review
from db.judging.shared_reviews import SharedItem, SharedReview
from db.judging.verdicts import Verdict
from db.query.question import Question
from flows.app.served import Home
from flows.pages.examples import SNIPPET_S
from flows.terminal import one_line
from tasks.evaluation.review_estimate import estimate_review

_LONGEST_NAME = 80
MOST_SOUNDS = 500


def _name(text: str) -> str:
    """A person's name, without blanks that nobody sees."""
    text = one_line(" ".join(text.split()))
    if not text:
        raise ValueError("write who judges")
    return text


Finite = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
ReviewId = Annotated[int, Path(ge=1, le=2**31 - 1)]


class GivenVerdict(BaseModel):
    """What a person says: of a class (MID, name or path) in a span of a clip, or in all of it.

    `name` is chosen by the sender, so that what is sent twice is stored once; `age_s`: so long ago
    it was said.
    """

    clip: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    mid: Annotated[str, Field(max_length=200)]
    start_s: Finite | None = None
    end_s: Finite | None = None
    verdict: Literal["present", "absent", "unsure", "withdrawn"]
    judge: Annotated[str, Field(max_length=_LONGEST_NAME), AfterValidator(_name)]
    name: Annotated[str, Field(pattern="^[0-9a-zA-Z-]{8,64}$")] | None = None
    age_s: Finite = 0.0


class WantedSample(BaseModel):
    """What a sample is to be drawn of; `seed`: another number draws another sample."""

    under: Annotated[str, Field(max_length=200)]
    size: Annotated[int, Field(ge=1, le=MOST_SOUNDS)] = 50
    per_class: Annotated[int, Field(ge=1, le=MOST_SOUNDS)] = 10
    min_score: Annotated[float, Field(ge=0, le=0.99)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0


router = APIRouter()


@router.post("/verdicts")
def give(home: Home, given: GivenVerdict) -> dict[str, bool]:
    """Store a verdict; ``{"stored": false}`` if it was stored before."""
    if (given.start_s is None) != (given.end_s is None):
        raise UserError("a span has a start and an end")
    span_ms = None
    if given.start_s is not None and given.end_s is not None:
        span_ms = round(given.start_s * 1000), round(given.end_s * 1000)
    now = datetime.now(UTC)
    said_at = now - timedelta(seconds=min(given.age_s, 365 * 86_400.0))
    mid = home.ontology().find(given.mid).mid
    said = Verdict(
        given.clip, mid, span_ms, given.verdict, given.judge, said_at,
        given.name or str(uuid4()),
    )  # fmt: skip
    return {"stored": give_verdict(home.engine, said, now)}


@router.get("/judge")
def judge(home: Home, under: str = "") -> HTMLResponse:
    """The samples that were drawn, and a form to draw another."""
    return home.page(
        "judge",
        {"title": "Judge", "review": None, "under": under,
         "reviews": shared_reviews.list_reviews(home.engine), "most": MOST_SOUNDS},
    )  # fmt: skip


@router.post("/judge/samples")
def draw(home: Home, wanted: WantedSample) -> dict[str, Any]:
    """Draw a sample and keep it: its address, and how many sounds it has."""
    node = home.ontology().find(wanted.under)
    question = Question(under=(node.mid,), min_score=wanted.min_score or 0.0)
    drawn = review_sample(
        home.engine, question, wanted.size, per_class=wanted.per_class, seed=wanted.seed
    )
    if not drawn.items:
        raise UserError(f"no sound has {node.name!r} at {drawn.question.min_score:g} or above")
    review_id = store_review(home.engine, drawn, datetime.now(UTC))
    return {"address": f"/judge/{review_id}", "n_sounds": len(drawn.items)}


@router.get("/judge/{review_id}")
def sample(home: Home, review_id: ReviewId) -> HTMLResponse:
    """A sample, one sound at a time: the same for everybody who opens the link."""
    found = shared_reviews.shared_review(home.engine, review_id)
    data = {
        "review": found.review_id, "root": {"mid": found.mid, "name": found.name},
        "items": _shown(found),
    }  # fmt: skip
    return home.page(
        "judge",
        {"title": f"Judge: {found.name}", "review": found, "data": data,
         "judges": shared_reviews.judges(home.engine)},
    )  # fmt: skip


@router.get("/judge/{review_id}/answers")
def answers(
    home: Home, review_id: ReviewId, judge: Annotated[str, Query(max_length=_LONGEST_NAME)]
) -> dict[str, dict[str, str]]:
    """What a person says by now of each clip: of the class asked about, and of the whole node."""
    try:
        who = _name(judge)
    except ValueError:
        return {"asked": {}, "node": {}}
    return {
        "asked": shared_reviews.answers(home.engine, review_id).get(who, {}),
        "node": shared_reviews.answers(home.engine, review_id, of_node=True).get(who, {}),
    }


@router.get("/judge/{review_id}/so-far")
def so_far(home: Home, review_id: ReviewId) -> HTMLResponse:
    """A part of the page: who judged how much, where people disagree, what it says of all clips."""
    found = shared_reviews.shared_review(home.engine, review_id)
    said = shared_reviews.answers(home.engine, review_id)
    clear = {
        who: {clip: verdict == "present" for clip, verdict in own.items() if verdict != "unsure"}
        for who, own in said.items()
    }
    review = judged_review(home.engine, review_id)
    return home.page(
        "judge_so_far",
        {
            "title": "", "review": found, "said": said,
            "agreements": agreements(clear), "differing": _differing(found, said),
            "estimated": estimate_review(review), "n_contradicting": review.n_contradicting,
        },
    )  # fmt: skip


def _differing(
    review: SharedReview, said: dict[str, dict[str, str]]
) -> list[tuple[int, SharedItem, dict[str, str]]]:
    """(place in the sample, sound, who said what) where one says yes and another no."""
    found = []
    for place, item in enumerate(review.items, 1):
        own = {who: verdicts[item.clip] for who, verdicts in said.items() if item.clip in verdicts}
        if {"present", "absent"} <= set(own.values()):
            found.append((place, item, own))
    return found


def _shown(review: SharedReview) -> list[dict[str, Any]]:
    """What the page's script needs of each sound; its score is not told, so as not to influence."""
    shown = []
    for item in review.items:
        start_s, end_s = centred_span(item.peak_s, item.window_s, item.duration_s, SNIPPET_S)
        start_s, end_s = math.floor(start_s * 100) / 100, math.floor(end_s * 100) / 100
        heard = None
        if item.heard is not None:
            heard = max(start_s, item.heard[0]), min(end_s, item.heard[1])
        shown.append({
            "clip": item.clip, "mid": item.mid, "name": item.name,
            "file": one_line(PurePath(item.path_text).name or item.clip[:12]),
            "start_s": start_s, "end_s": end_s, "heard": heard,
        })  # fmt: skip
    return shown
