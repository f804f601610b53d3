"""What is asked in the address of the search page: as it was written, in words, as a question."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Engine
from starlette.datastructures import QueryParams

from audioset_core.errors import UserError
from audioset_core.ontology.graph import Ontology
from db.query.question import Order, Question
from db.query.time_spans import DAY_MS, Span
from flows.asking import asked_place, mids_of, site_names

N_CARDS = 60
MOST_SHOWN = 3_000
"""So many sounds can be scrolled through; who needs more narrows the question down."""
AMONG = 1_000
"""Where they are not in the order of scores, so many of the best are put in order."""

ORDERS: dict[str, tuple[Order, str]] = {
    "score": ("score", "best first"),
    "time": ("time", "earliest first"),
    "duration": ("duration", "longest first"),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ALWAYS_MS = (-(10**14), 10**14)


@dataclass(frozen=True, slots=True)
class Asked:
    """The fields of the form, as text; empty where nothing was written."""

    under: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    not_under: tuple[str, ...] = ()
    min_score: str = ""
    set: str = ""
    from_day: str = ""
    to_day: str = ""
    from_hour: str = ""
    to_hour: str = ""
    path: str = ""
    sun: tuple[str, ...] = ()
    site: str = ""
    near: str = ""
    km: str = ""
    min_duration: str = ""
    model: str = ""
    ambiguous: str = ""
    order: str = ""
    each: str = ""
    like: str = ""
    offset: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Every class that is named."""
        return (*self.under, *self.all_of, *self.not_under)

    @property
    def first(self) -> int:
        """How many sounds come before those of this page.

        Raises:
            UserError: it is no such number.
        """
        return int(_number("offset", self.offset, 0, MOST_SHOWN, 0))

    @property
    def least_score(self) -> float:
        """From which score on a sound counts.

        Raises:
            UserError: it is no score.
        """
        return _number("Score from", self.min_score, 0, 1, 0.5)

    def link(self, **changes: Any) -> str:
        """The address of the same search, with changes; it begins with the first page."""
        changed = replace(self, **{"offset": ""} | changes)
        given = {name: getattr(changed, name) for name in _NAMES}
        return "/?" + urlencode({name: x for name, x in given.items() if x}, doseq=True)


_NAMES = tuple(field.name for field in fields(Asked))

CONDITIONS = {
    "all_of": "the sounds that must also be heard",
    "not_under": "the sounds that must not be heard",
    "min_duration": "the length of the sound",
    "from_day to_day": "the days",
    "from_hour to_hour": "the time of day",
    "path": "the folder or file",
    "sun": "the sun",
    "site": "the site",
    "near km": "the place",
    "model": "the model",
    "set": "the thresholds",
}
"""What narrows a search down, in words, by the names of its fields."""


def asked_of(given: QueryParams) -> Asked:
    """What an address asks; names that it does not know are left aside."""
    found: dict[str, Any] = {}
    for name in _NAMES:
        if isinstance(getattr(Asked(), name), tuple):
            found[name] = tuple(x for x in map(str.strip, given.getlist(name)) if x)
        else:
            found[name] = given.get(name, "").strip()
    return Asked(**found)


def question_of(engine: Engine, asked: Asked, ontology: Ontology, zone: tzinfo) -> Question:
    """The question, for one card more than a page has.

    Raises:
        UserError: a field is wrong; a class or site is unknown, or a class may be several.
    """
    under, all_of = mids_of(ontology, asked.under), mids_of(ontology, asked.all_of)
    if asked.order not in ("", *ORDERS):
        raise UserError(f"there is no order {asked.order!r}; choose {', '.join(ORDERS)}")
    order = ORDERS[asked.order or "score"][0]
    return Question(
        under=under or all_of, all_of=all_of, not_under=mids_of(ontology, asked.not_under),
        min_score=asked.least_score,
        min_duration_s=_number("Seconds at least", asked.min_duration, 0, 1e6, 0),
        span=_span(asked, zone), paths=(asked.path,) if asked.path else (),
        sun=asked.sun,
        sites=site_names(engine, [asked.site] if asked.site else []),
        near=asked_place(asked.near, _number("Kilometres", asked.km, 0.001, 20_100, 1)),
        model=asked.model or None, with_ambiguous=bool(asked.ambiguous),
        order=order, limit=N_CARDS + 1, offset=asked.first,
        among=None if order == "score" else AMONG,
    )  # fmt: skip


def in_words(asked: Asked, ontology: Ontology) -> str:
    """What is asked, as a heading has it."""

    def names(given: tuple[str, ...], between: str) -> str:
        return between.join(dict.fromkeys(ontology.find(name).name for name in given))

    parts = [names(asked.under, " or ") or names(asked.all_of, " and ")]
    if asked.under and asked.all_of:
        parts.append(f"with {names(asked.all_of, ' and ')}")
    if asked.not_under:
        parts.append(f"without {names(asked.not_under, ' or ')}")
    parts.append(f"by {asked.set}" if asked.set else f"at {asked.least_score:g} or above")
    return ", ".join(parts)


def narrowing(asked: Asked) -> list[tuple[str, str]]:
    """(words, address without it) of each condition that is set."""
    found = []
    for names, words in CONDITIONS.items():
        own = {name: getattr(Asked(), name) for name in names.split()}
        if any(getattr(asked, name) for name in own):
            found.append((words, asked.link(**own)))
    return found


def _number(name: str, text: str, least: float, most: float, default: float) -> float:
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise UserError(f"{name}: {text[:40]!r} is not a number from {least:g} to {most:g}")
    return value


def _span(asked: Asked, zone: tzinfo) -> Span | None:
    """From a day to another, the last one included; and times of the day, on recorders' clocks."""
    daily = None
    if asked.from_hour or asked.to_hour:
        first = _of_day_ms("From the time of day", asked.from_hour or "00:00")
        last = _of_day_ms("To the time of day", asked.to_hour) if asked.to_hour else DAY_MS
        daily = Span(first, last, is_daily=True)
    if not (asked.from_day or asked.to_day):
        return daily
    from_ms, to_ms = _ALWAYS_MS
    if asked.from_day:
        from_ms = _midnight_ms("From the day", asked.from_day, zone, 0)
    if asked.to_day:
        to_ms = _midnight_ms("To the day", asked.to_day, zone, 1)
    if to_ms <= from_ms:
        raise UserError(f"the day {asked.to_day} is before {asked.from_day}")
    return Span(from_ms, to_ms, each_day=daily)


def _of_day_ms(name: str, text: str) -> int:
    try:
        moment = time.fromisoformat(text)
    except ValueError:
        raise UserError(f"{name}: {text[:40]!r} is not a time; write 04:30") from None
    return (moment.hour * 3600 + moment.minute * 60 + moment.second) * 1_000


def _midnight_ms(name: str, text: str, zone: tzinfo, days_later: int) -> int:
    try:
        day = date.fromisoformat(text) + timedelta(days=days_later)
        moment = datetime(day.year, day.month, day.day, tzinfo=zone)
        return (moment - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        raise UserError(f"{name}: {text[:40]!r} is not a day; write 2024-05-18") from None
