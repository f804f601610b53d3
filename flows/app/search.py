"""The page on which sounds are looked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from audioset_core.errors import UnknownNodeError, UserError
from audioset_core.inputs.start_times import find_zone
from audioset_core.inputs.sun import PHASES
from audioset_core.ontology.graph import Ontology
from db.answer_records import Hit
from db.catalog.sites import stored_sites
from db.errors import DatabaseUserError
from db.query.find import find_clips, find_intervals
from db.query.question import Question
from db.query.totals import totals_by_mid
from db.reports.model_coverage import names_of_models
from db.score_files.comparable import clips_with_embeddings
from db.score_files.labelled import count_underived
from db.thresholds.find import find_clips_of_set, find_intervals_of_set
from db.thresholds.sets import titles_of_sets
from flows.app.asked import (
    AMONG,
    MOST_SHOWN,
    N_CARDS,
    ORDERS,
    Asked,
    asked_of,
    in_words,
    narrowing,
    question_of,
)
from flows.app.cards import Card, card_of
from flows.app.classes import named, path_of, with_counts
from flows.app.like import cards_like
from flows.app.served import Home, Served
from flows.asking import answerable, set_for, stated_zone, sun_of

router = APIRouter()

Links = list[tuple[str, str]]
"""(text, address) of each."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is shown below the form."""

    heading: str = ""
    sounds: list[Card] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str = ""
    links: Links = field(default_factory=list)
    more: str = ""
    """The address of the next page; empty if there is none."""


@router.get("/")
def search(home: Home, request: Request) -> HTMLResponse:
    """The sounds that answer what the address asks, or what is wrong with it, below the form."""
    asked, ontology = asked_of(request.query_params), home.ontology()
    found, code = Found(), 200
    try:
        if asked.like:
            found = _like(home, asked)
        elif asked.under or asked.all_of:
            found = _answer(home, asked, ontology)
        elif asked.not_under:
            raise UserError("say what to look for: 'without' alone finds nothing")
    except (UserError, DatabaseUserError) as error:
        if "text/html" not in request.headers.get("accept", ""):
            raise
        problem = _sentence(error)
        found, code = Found(problem=problem, links=_instead(error, asked, ontology)), 400
    return home.page("search", _values(home, asked, ontology, found), code)


def _answer(home: Served, asked: Asked, ontology: Ontology) -> Found:
    engine = home.engine
    zone_name = stated_zone(engine)
    question = question_of(engine, asked, ontology, find_zone(zone_name) or UTC)
    question, speaker = answerable(engine, question)
    notes = []
    if speaker is not None:
        notes.append(f"{speaker} is asked, which alone predicts this.")
    if asked.from_day or asked.to_day:
        notes.append(f"Days are in {zone_name or 'UTC, since no time zone is stated'}.")
    if left_out := sun_of(engine, question):
        notes.append(f"{left_out.capitalize()}.")
    hits, left = _hits(home, asked, question)
    if left:
        notes.append(f"{left:,} recordings are not included yet: audioset thresholds apply.")
    heading = in_words(asked, ontology)
    if not hits:
        ending = " beyond these" if asked.first else ""
        return Found(heading, notes=[f"Nothing was found{ending}.", *notes], links=_wider(asked))
    has_more = len(hits) > N_CARDS
    cards = [card_of(hit) for hit in hits[:N_CARDS]]
    alike = clips_with_embeddings(engine, [card.clip for card in cards])
    cards = [replace(card, has_alike=card.clip in alike) for card in cards]
    next_first = asked.first + N_CARDS
    more = asked.link(offset=str(next_first)) if has_more and next_first < MOST_SHOWN else ""
    if has_more and not more:
        notes.append(f"These are the last of the first {MOST_SHOWN:,}: narrow the search down.")
    if has_more and question.among is not None:
        notes.append(f"Of many, the {AMONG:,} with the best scores are put in this order.")
    what = "sound" if asked.each else "recording"
    return Found(
        heading, cards, [_range(asked.first, len(cards), what, has_more=has_more), *notes],
        more=more,
    )  # fmt: skip


def _hits(home: Served, asked: Asked, question: Question) -> tuple[list[Hit], int]:
    """What answers the question, and how many clips its set of thresholds lacks."""
    engine = home.engine
    if not asked.set:
        return (find_intervals if asked.each else find_clips)(engine, question), 0
    stored = set_for(engine, asked.set, question.model)
    find = find_intervals_of_set if asked.each else find_clips_of_set
    return find(engine, stored, question), count_underived(engine, stored)


def _range(first: int, n_shown: int, what: str, *, has_more: bool) -> str:
    """``3 recordings.``; ``The first 60 recordings of more.``"""
    if first:
        return f"{what.capitalize()}s {first + 1:,} to {first + n_shown:,}{' of more' * has_more}."
    if has_more:
        return f"The first {n_shown:,} {what}s of more."
    return f"{n_shown:,} {what}{'s' * (n_shown != 1)}."


def _like(home: Served, asked: Asked) -> Found:
    likeness = cards_like(home, asked.like, N_CARDS)
    return Found(likeness.heading, likeness.cards, likeness.notes)


def _wider(asked: Asked) -> Links:
    """What would find more."""
    links = [(f"without {words}", address) for words, address in narrowing(asked)]
    if not asked.set and asked.least_score > 0.1:
        links.insert(0, ("from a score of 0.1", asked.link(min_score="0.1")))
    if asked.first:
        links.insert(0, ("from the first one", asked.link()))
    return links


def _instead(error: Exception, asked: Asked, ontology: Ontology) -> Links:
    """Links to what a person may have meant."""
    if isinstance(error, UnknownNodeError):
        wrong, meant = error.text, [(name, name) for name in error.nearest]
    else:
        several = ((name, named(ontology, name)) for name in asked.classes)
        wrong, nodes = next(((name, all_) for name, all_ in several if len(all_) > 1), ("", []))
        meant = [(path_of(ontology, node.mid), node.mid) for node in nodes]

    def with_other(name: str) -> Mapping[str, tuple[str, ...]]:
        lists = {key: getattr(asked, key) for key in ("under", "all_of", "not_under")}
        return {
            key: tuple(name if each == wrong.strip() else each for each in all_)
            for key, all_ in lists.items()
        }

    return [(shown, asked.link(**with_other(name))) for shown, name in meant]


def _values(home: Served, asked: Asked, ontology: Ontology, found: Found) -> dict[str, Any]:
    is_open = bool(narrowing(asked) or asked.ambiguous)
    values = {
        "asked": asked, "found": found, "is_open": is_open, "orders": ORDERS,
        "models": names_of_models(home.engine), "sets": titles_of_sets(home.engine),
        "sites": stored_sites(home.engine), "phases": PHASES, "title": found.heading or "Search",
        "branches": [], "is_empty": False,
    }  # fmt: skip
    if not (asked.classes or asked.like):
        roots = [node.mid for node in ontology.roots]
        values["is_empty"] = not any(
            total.n_clips for total in totals_by_mid(home.engine, roots, 0.0).values()
        )
        values["branches"] = with_counts(home, ontology, list(ontology.roots), 0.5)
    return values


def _sentence(error: Exception) -> str:
    if isinstance(error, UnknownNodeError):  # the nearest are links
        return f"No class or branch is called {error.text!r}."
    text = " ".join(str(error).split())
    return text + ("" if text.endswith((".", "?", "!")) else ".")
