"""The page on which one class is taught: sounds to judge, what is known by now, examples so far."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import PurePath
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from starlette.datastructures import QueryParams

from audioset_core.errors import UserError
from audioset_core.inputs.start_times import find_zone
from audioset_core.ontology.graph import Node
from audioset_core.previews.snippets import centred_span
from audioset_core.teaching.choice import ORDERS
from db.catalog.own_classes import OWN_PREFIX
from db.judging.verdicts import StoredVerdict, find_verdicts
from db.query.find import find_clips, find_intervals
from db.score_files.comparable import describe, vectors_of
from db.score_files.teachable import EmbeddedModel
from flows.app.asked import asked_of, question_of
from flows.app.cards import Card
from flows.app.like import alike
from flows.app.served import Home, Served
from flows.app.sounds import MOST_SPAN_S, Second
from flows.app.teach import NEW_NAME, newest_of, taught_models
from flows.asking import answerable, shown_interval, stated_zone
from flows.terminal import one_line
from tasks.teaching.learning import ask, still_open
from tasks.teaching.patches import Patches

router = APIRouter(prefix="/teach")

N_ASKED = 24
"""Sounds on the page at a time."""
_CARD_S = 2.0
"""Of sound on a card: the patch that is judged, and what is around it."""
_MOST_SHOWN = 60
"""Examples on the page; the newest."""

Name = Annotated[str, Query(description="A class: name, MID or path.")]


@dataclass(frozen=True, slots=True)
class Asked:
    """A sound to judge: its card, and the span that a verdict is of."""

    card: Card
    mid: str
    start_s: float
    end_s: float
    value: str
    said: str = ""
    """What was said of it: present, absent or unsure."""
    by: str = ""
    is_whole: bool = False
    """The verdict is of the whole recording."""

    @property
    def mark(self) -> tuple[float, float]:
        """Where in the picture the span begins, and its width; in percent."""
        whole = max(1e-9, self.card.end_s - self.card.start_s)
        first = 100 * (self.start_s - self.card.start_s) / whole
        return max(0.0, first), min(100.0, 100 * (self.end_s - self.start_s) / whole)


@router.get("/class")
def class_page(
    home: Home, name: Name, order: str = "best", like: str = "", at: Second = 0.0, search: str = ""
) -> HTMLResponse:
    """The page of one class."""
    ontology = home.ontology()
    node = ontology.find(name)
    taught = newest_of(taught_models(home))
    own = next((t for t in taught if any(c["mid"] == node.mid for c in t.classes or ())), None)
    base = own or next(iter(taught), None)
    verdicts = find_verdicts(home.engine, under=node.mid)
    shown = sorted(verdicts, key=lambda each: each.judged_at, reverse=True)
    examples = [each for each in shown if each.verdict != "unsure"]
    others = {c["mid"]: c["name"] for c in (base.classes or () if base else ())}
    return home.page(
        "teach_class",
        {
            "title": node.name,
            "node": node,
            "is_own": node.mid.startswith(OWN_PREFIX),
            "parents": ontology.parents(node.mid),
            "orders": ORDERS,
            "order": order if order in ORDERS else ORDERS[0],
            "like": like,
            "at": at,
            "search": search,
            "n_said": {
                kind: sum(each.verdict == kind for each in verdicts)
                for kind in ("present", "absent")
            },
            "examples": _examples(home, examples[:_MOST_SHOWN]),
            "n_examples": len(examples),
            "model_name": base.model.name if base else NEW_NAME,
            "taught": own,
            "model_classes": {**others, node.mid: node.name},
        },
    )


@router.get("/candidates")
def candidates(
    home: Home,
    name: Name,
    order: str = "best",
    like: str = "",
    at: Second = 0.0,
    search: str = "",
    judge: str = "",
) -> HTMLResponse:
    """Sounds to judge, as a part of the page; what is known of the class is learned anew.

    Of what was said of a sound already, what `judge` says is shown, else what the others say.
    """
    ontology = home.ontology()
    node = ontology.find(name)
    base = home.teaching.look()
    patches = home.teaching.patches
    verdicts = find_verdicts(home.engine, under=node.mid)
    found: list[Asked] = []
    learned = home.teaching.teacher.learned(base, node.mid, node.name)
    note = ""
    if like:
        found = _alike(home, base, node, like, at)
        note = "Moments most like the one that you chose."
    elif search:
        found, note = _of_search(home, node, search)
    elif patches is not None:
        asked = ask(learned, patches, _order(order), still_open(patches, verdicts), N_ASKED)
        what = "like" if asked.is_likeness else "score"
        values = [f"{what} {value:.2f}" for value in asked.values.tolist()]
        found = _cards(home, node, patches, list(zip(asked.numbers.tolist(), values, strict=True)))
    own_last = sorted(verdicts, key=lambda each: each.judged_by == judge)
    said = {_place(each): each for each in own_last if each.mid == node.mid}
    shown = [
        replace(each, said=known.verdict, by=known.judged_by)
        if (known := said.get(_key(each)))
        else each
        for each in found
    ]
    return home.page(
        "teach_candidates",
        {
            "title": node.name, "node": node, "sounds": shown, "patches": patches,
            "progress": home.teaching.progress, "learned": learned, "note": note,
            "is_chosen": bool(like or search), "order": _order(order),
            "near": ontology.parents(node.mid) if node.mid.startswith(OWN_PREFIX) else (node,),
            "n_present": sum(each.verdict == "present" for each in verdicts),
        },
    )  # fmt: skip


@router.get("/figures")
def figures(home: Home, name: Name) -> list[dict[str, Any]]:
    """How good the head of a class is by now (last), and was after fewer examples."""
    node = home.ontology().find(name)
    learned = home.teaching.teacher.learned(home.teaching.look(), node.mid, node.name)
    return [
        {
            "n_patches": each.n_patches, "n_recordings": each.n_recordings,
            "n_other_recordings": each.n_other_recordings, "ap": each.ap,
            "interval": each.ap_interval, "is_calibrated": each.line is not None,
        }
        for each in home.teaching.teacher.figures(node.mid, learned)
    ]  # fmt: skip


def _order(text: str) -> Any:
    if text not in ORDERS:
        raise UserError(f"order {text!r}: {', '.join(ORDERS)}")
    return text


def _cards(
    home: Served, node: Node, patches: Patches, chosen: list[tuple[int, str]]
) -> list[Asked]:
    places = describe(home.engine, [patches.clip_of(number).clip_sha256 for number, _ in chosen])
    found = []
    for number, value in chosen:
        clip = patches.clip_of(number)
        start_s, end_s = patches.span_s(number)
        path = places[clip.clip_sha256].path_text or ""
        found.append(_asked(node, clip.clip_sha256, path, (start_s, end_s, clip.duration_s), value))
    return found


def _alike(home: Served, base: EmbeddedModel, node: Node, like: str, at_s: float) -> list[Asked]:
    query = vectors_of(home.engine, like, base.title)
    found = alike(home, query, at_s, N_ASKED)
    lengths = describe(home.engine, [row[3] for row in found.rows])
    return [
        _asked(node, clip, path or "", (start_s, end_s, lengths[clip].duration_s),
               f"like {cosine:.2f}")
        for cosine, start_s, end_s, clip, path in found.rows
    ]  # fmt: skip


def _of_search(home: Served, node: Node, search: str) -> tuple[list[Asked], str]:
    """What a link to the search page finds, and what is said of it.

    Raises:
        UserError: the link asks for no class.
    """
    asked = asked_of(QueryParams(urlsplit(search).query or search.removeprefix("?")))
    if not (asked.under or asked.all_of):
        raise UserError("paste the address of a search for a class: /?under=Power+tool")
    zone = find_zone(stated_zone(home.engine)) or UTC
    question, _ = answerable(home.engine, question_of(home.engine, asked, home.ontology(), zone))
    hits = (find_intervals if asked.each else find_clips)(
        home.engine, replace(question, limit=N_ASKED)
    )
    found = [
        _asked(node, hit.clip, hit.path_text or "",
               ((hit.peak_s or 0.0), (hit.peak_s or 0.0) + hit.window_s, hit.duration_s),
               f"{hit.name} {hit.score:.2f}")
        for hit in hits
    ]  # fmt: skip
    rest = " The set of thresholds was left aside." if asked.set else ""
    return found, f"What the search finds, by its best moment.{rest}"


def _asked(
    node: Node, clip: str, path: str, place: tuple[float, float, float], value: str
) -> Asked:
    """A card of (start, end, length of the recording) in seconds."""
    start_s, end_s, duration_s = place
    end_s = min(end_s, duration_s)
    from_s, to_s = centred_span(start_s, end_s - start_s, duration_s, _CARD_S)
    card = Card(
        clip=clip, mid=node.mid, name=node.name, score=0.0, start_s=from_s, end_s=to_s,
        file=one_line(PurePath(path).name or clip[:12]), path_text=path,
        interval=shown_interval(start_s, end_s),
    )  # fmt: skip
    return Asked(card, node.mid, start_s, end_s, value)


def _examples(home: Served, chosen: list[StoredVerdict]) -> list[Asked]:
    """The cards of what people said."""
    lengths = describe(home.engine, [each.clip for each in chosen])
    found = []
    for each in chosen:
        duration_s = lengths[each.clip].duration_s
        is_whole = each.start_s is None or each.end_s is None
        place = (each.start_s or 0.0, duration_s if each.end_s is None else each.end_s, duration_s)
        if is_whole:  # its beginning is to hear
            place = (0.0, min(MOST_SPAN_S, duration_s), duration_s)
        card = _asked(Node(each.mid, each.name), each.clip, each.path_text, place, "")
        found.append(replace(card, said=each.verdict, by=each.judged_by, is_whole=is_whole))
    return found


def _span_ms(each: StoredVerdict) -> tuple[int, int] | None:
    if each.start_s is None or each.end_s is None:
        return None
    return round(each.start_s * 1000), round(each.end_s * 1000)


def _place(each: StoredVerdict) -> tuple[str, tuple[int, int] | None]:
    return each.clip, _span_ms(each)


def _key(each: Asked) -> tuple[str, tuple[int, int]]:
    return each.card.clip, (round(each.start_s * 1000), round(each.end_s * 1000))
