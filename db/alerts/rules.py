"""Rules for alerts: a question each, and how often a sound that it asks for is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Row, delete, insert, select, update

from db.engine import reading, writing
from db.query.question import EVERY, Question
from db.query.time_spans import Span
from db.schema.alert_tables import alert_rules
from db.schema.tables import sites

Period = Literal["day", "night", "week", "month"]

DAY_S = 86_400.0
RECORDED_WITHIN_S = 7 * DAY_S
"""A sound of longer ago is not told, unless the rule says otherwise: the cards of recorders are
often collected once a week."""

_OWN = ("name", "first_in", "one_per_s", "recorded_within_s", "notify")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """A question about sounds, and which of those that fit are told.

    `first_in`: at each site the first in each day, night (noon to noon), week (from Monday) or
    month on the recorder's clock. `one_per_s`: at each site none in so many seconds before or after
    one that is told. `recorded_within_s`: none that was heard longer ago; None: however long.
    `notify`: a block of Prefect's, as TYPE/NAME.
    """

    name: str
    question: Question
    first_in: Period | None = None
    one_per_s: float | None = None
    recorded_within_s: float | None = RECORDED_WITHIN_S
    notify: str | None = None
    id: int | None = None
    lacks_site: bool = False
    """Whether a site that the question names was removed."""


def stored_rules(engine: Engine) -> list[AlertRule]:
    """The rules by name."""
    with reading(engine) as conn:
        return _rules(conn)


def change_rules(
    engine: Engine, change: Callable[[Sequence[AlertRule]], Sequence[AlertRule]], now: datetime
) -> None:
    """Store what `change` makes of the rules, in one transaction.

    A rule with the id of a stored one replaces that; one without an id is new; those that are left
    out are removed with all that was heard by them.
    """
    with writing(engine) as conn:
        known = {rule.id: rule for rule in _rules(conn)}
        after = change(list(known.values()))
        gone = known.keys() - {rule.id for rule in after}
        if gone:
            conn.execute(delete(alert_rules).where(alert_rules.c.id.in_(gone)))
        site_ids = {row.name: row.id for row in conn.execute(select(sites.c.name, sites.c.id))}
        for rule in after:
            if known.get(rule.id) == rule:
                continue
            row = {name: getattr(rule, name) for name in _OWN}
            row["question"] = _as_json(rule.question, site_ids)
            if rule.id is None:
                conn.execute(insert(alert_rules).values(row | {"stated_at": now}))
            else:
                conn.execute(update(alert_rules).where(alert_rules.c.id == rule.id).values(row))


def _rules(conn: Connection) -> list[AlertRule]:
    names = {row.id: row.name for row in conn.execute(select(sites.c.id, sites.c.name))}
    found = (_rule(row, names) for row in conn.execute(select(alert_rules)))
    return sorted(found, key=lambda rule: rule.name)  # databases sort names differently


def _rule(row: Row[Any], names: Mapping[int, str]) -> AlertRule:
    stated: dict[str, Any] = dict(row.question)
    site_ids = stated.pop("sites", [])
    there = tuple(names[each] for each in site_ids if each in names)
    own: dict[str, Any] = {n: tuple(x) if isinstance(x, list) else x for n, x in stated.items()}
    if "span" in stated:
        own["span"] = Span(**stated["span"])
    return AlertRule(
        **{name: getattr(row, name) for name in _OWN},
        id=row.id,
        question=Question(**own, sites=there),
        lacks_site=len(there) < len(site_ids),
    )


def _as_json(question: Question, site_ids: Mapping[str, int]) -> dict[str, Any]:
    """What differs from a question about everything; sites by their ids, since names change."""
    stated = {f.name: getattr(question, f.name) for f in fields(Question)}
    changed = {name: x for name, x in stated.items() if x != getattr(EVERY, name)}
    if question.sites:
        changed["sites"] = [site_ids[name] for name in question.sites]
    if question.span is not None:
        changed["span"] = asdict(question.span)
    return changed
