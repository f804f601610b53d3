"""What was heard by rules for alerts: as a list, and what is still to be told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, func, select, update

from db.alerts.rules import AlertRule
from db.engine import reading, repeatable, writing
from db.record_columns import columns_for
from db.schema.alert_tables import alert_rules, alerts
from db.schema.tables import clips, nodes, sites

_WAITS: ColumnElement[bool] = alerts.c.state == "waiting"


@dataclass(frozen=True, slots=True)
class Alert:
    """A sound that a rule asks for; docs/alerts.md says what the states mean.

    `heard_at` is on the recorder's clock; not `is_timed`: when the file was last written. `path` is
    where the recording lay when the alert was raised.
    """

    id: int
    rule_id: int
    rule: str
    state: str
    score: float
    mid: str
    name: str
    clip: str
    start_ms: int
    end_ms: int
    path: str | None
    site_id: int | None
    site: str | None
    is_timed: bool
    utc_offset_s: int
    heard_at: datetime
    raised_at: datetime
    told_at: datetime | None
    event_id: str


def on_recorders_clock(of: Any) -> datetime:
    """`of.heard_at` on the clock that is `of.utc_offset_s` ahead of UTC."""
    moment: datetime = of.heard_at
    return moment.astimezone(timezone(timedelta(seconds=of.utc_offset_s)))


def raised_alerts(
    engine: Engine, rule: str | None = None, states: Sequence[str] = (), limit: int | None = None
) -> list[Alert]:
    """The alerts (of a rule, in any of these states), what was heard last first."""
    newest_first = (alerts.c.heard_at.desc(), alerts.c.id.desc())
    query = _details().order_by(*newest_first).limit(limit)
    if rule is not None:
        query = query.where(alert_rules.c.name == rule)
    if states:
        query = query.where(alerts.c.state.in_(states))
    return list(_read(engine, query))


def counts_by_state(engine: Engine) -> dict[tuple[int, str], int]:
    """How many alerts there are, by the rule's id and state."""
    query = select(alerts.c.rule_id, alerts.c.state, func.count())
    with reading(engine) as conn:
        rows = conn.execute(query.group_by(alerts.c.rule_id, alerts.c.state))
        return {(rule_id, state): n for rule_id, state, n in rows}


@repeatable
def give_up_old(engine: Engine, rules: Sequence[AlertRule], now: datetime) -> None:
    """Note of what waits that by now it was recorded too long ago to be told."""
    with writing(engine) as conn:
        for rule in rules:
            if rule.recorded_within_s is not None:
                oldest = now - timedelta(seconds=rule.recorded_within_s)
                late = _WAITS & (alerts.c.rule_id == rule.id) & (alerts.c.heard_at < oldest)
                conn.execute(update(alerts).where(late).values(state="old"))


def to_tell(engine: Engine, since: datetime, most: int) -> list[Alert]:
    """Of each rule the best that wait: so many that, with those told since, they are `most`."""
    told = select(alerts.c.rule_id, func.count()).where(
        alerts.c.state == "told", alerts.c.told_at >= since
    )
    place = func.row_number().over(
        partition_by=alerts.c.rule_id, order_by=(alerts.c.score.desc(), alerts.c.id)
    )
    ranked = select(alerts.c.id, place.label("place")).where(_WAITS).subquery("ranked")
    first = select(ranked.c.id).where(ranked.c.place <= most)
    with reading(engine) as conn:
        left = {rule_id: most - n for rule_id, n in conn.execute(told.group_by(alerts.c.rule_id))}
    some = []
    by_score = _details().where(alerts.c.id.in_(first)).order_by(alerts.c.score.desc(), alerts.c.id)
    for alert in _read(engine, by_score):
        left[alert.rule_id] = left.get(alert.rule_id, most) - 1
        if left[alert.rule_id] >= 0:
            some.append(alert)
    return some


def rules_waiting(engine: Engine) -> set[int]:
    """The ids of the rules of which an alert waits."""
    with reading(engine) as conn:
        return set(conn.execute(select(alerts.c.rule_id).where(_WAITS).distinct()).scalars())


def best_waiting(engine: Engine) -> list[tuple[Alert, int, int]]:
    """Of each rule the best alert that waits, how many do, and the highest id of those."""
    query = select(alerts.c.rule_id, func.count(), func.max(alerts.c.id)).where(_WAITS)
    with reading(engine) as conn:
        rows = conn.execute(query.group_by(alerts.c.rule_id)).all()
    found = []
    for rule_id, n_waiting, last_id in rows:
        of_rule = _details().where(_WAITS, alerts.c.rule_id == rule_id, alerts.c.id <= last_id)
        first = of_rule.order_by(alerts.c.score.desc(), alerts.c.id).limit(1)
        found += [(alert, n_waiting, last_id) for alert in _read(engine, first)]
    return found


def mark_told(engine: Engine, told: Sequence[Alert], now: datetime) -> None:
    """Note that each of these was told by an event of its own."""
    _mark(engine, "told", now, alerts.c.id.in_([alert.id for alert in told]))


def mark_summed(engine: Engine, rule_id: int, last_id: int, now: datetime) -> None:
    """Note that one event told how many of a rule waited, up to this id."""
    _mark(engine, "summed", now, alerts.c.rule_id == rule_id, alerts.c.id <= last_id)


@repeatable
def _mark(engine: Engine, state: str, now: datetime, *which: ColumnElement[bool]) -> None:
    with writing(engine) as conn:
        conn.execute(update(alerts).where(_WAITS, *which).values(state=state, told_at=now))


def _details() -> Select[tuple[object, ...]]:
    columns = columns_for(
        Alert, alerts, nodes, alert_rules,
        rule=alert_rules.c.name, clip=clips.c.sha256, site=sites.c.name, name=nodes.c.name,
    )  # fmt: skip
    return (
        select(*columns)
        .join_from(alerts, alert_rules, alert_rules.c.id == alerts.c.rule_id)
        .join(clips, clips.c.id == alerts.c.clip_id)
        .join(nodes, nodes.c.id == alerts.c.node_id)
        .outerjoin(sites, sites.c.id == alerts.c.site_id)
    )


def _read(engine: Engine, query: Select[tuple[object, ...]]) -> Iterator[Alert]:
    """The alerts, their moments on the recorder's clock."""
    with reading(engine) as conn:
        rows = conn.execute(query).all()
    for row in rows:
        alert = Alert(*row)
        yield replace(alert, heard_at=on_recorders_clock(alert))
