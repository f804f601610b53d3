"""The page on which sounds are looked for."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from db.query.find import find_clips
from db.query.question import Question
from flows.app.cards import card_of
from flows.app.served import Home

N_CARDS = 60

router = APIRouter()


@router.get("/")
def search(
    home: Home,
    under: str = "",
    min_score: Annotated[float, Query(ge=0, le=1)] = 0.5,
    model: str = "",
) -> HTMLResponse:
    """The best clips below a node."""
    hits = []
    if under:
        mid = home.ontology().find(under).mid
        question = Question(under=(mid,), min_score=min_score, limit=N_CARDS, model=model or None)
        hits = find_clips(home.engine, question)
    return home.page(
        "search",
        {"title": "Search", "under": under, "min_score": min_score,
         "sounds": [card_of(hit) for hit in hits]},
    )  # fmt: skip
