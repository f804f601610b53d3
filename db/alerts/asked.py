"""Asking the rules about what was labelled: each labelling once, whatever ends the process.

The commit of a labelling leaves a row in `unasked_labellings`; the transaction that stores what the
rules find takes the row away.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Engine, Row, column, delete, exists, func, insert, select, table

from db.alerts.raised import on_recorders_clock
from db.alerts.rules import DAY_S, AlertRule
from db.catalog.clips import lock_clips
from db.engine import reading, repeatable, writing
from db.errors import DatabaseUserError
from db.query.find import prepared
from db.query.paths import first_source
from db.query.question import file_conditions
from db.query.statements import intervals_query, with_source
from db.schema.alert_tables import alert_rules, alerts, unasked_labellings
from db.schema.tables import clips, closure, labellings, nodes, sources

_AT_ONCE = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What was told in a period of the longest kind lies within so many seconds.
_LONGEST_PERIOD_S = 32 * DAY_S
_SPOKEN = ("waiting", "told", "summed")

_PERIODS: dict[str | None, Callable[[datetime], Hashable]] = {
    "day": lambda local: local.date(),
    "night": lambda local: (local - timedelta(hours=12)).date(),
    "week": lambda local: local.isocalendar()[:2],
    "month": lambda local: (local.year, local.month),
}
_VERDICTS = table("verdicts_now", *map(column, ("clip", "mid", "start_s", "end_s", "verdict")))


@dataclass(frozen=True, slots=True)
class Sound:
    """What a rule asks for, in one piece: from `start_ms` to `end_ms` of a clip.

    The class and the score are those of the best interval. `heard_at` is by the recorder's clock,
    or, if not `is_timed`, when the file was last written.
    """

    clip_id: int
    node_id: int
    score: float
    start_ms: int
    end_ms: int
    heard_at: datetime
    utc_offset_s: int
    is_timed: bool
    path: str | None
    site_id: int | None

    def touches(self, clip_id: int, start_ms: float, end_ms: float) -> bool:
        """Whether a part of a clip and this one have a moment in common."""
        return clip_id == self.clip_id and start_ms <= self.end_ms and self.start_ms <= end_ms


@dataclass(slots=True)
class Asked:
    """Sounds that were found, by name of the rule and state; and why rules were not asked."""

    found: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    problems: dict[str, str] = field(default_factory=dict)


def is_any_unasked(engine: Engine) -> bool:
    """Whether there is a labelling that the rules were not asked about."""
    with reading(engine) as conn:
        return conn.execute(select(unasked_labellings).limit(1)).first() is not None


def ask_rules(
    engine: Engine, rules: Sequence[AlertRule], now: datetime, problems: Mapping[str, str]
) -> Asked:
    """Ask the rules about every labelling that they were not asked about; store what fits.

    Recordings whose start and site were not looked for yet wait for the next time. A rule with a
    problem is not asked. Nothing is asked if there is a rule that is not among them: it was added
    just now.
    """
    asked = Asked(problems=dict(problems))
    while (found := _ask_some(engine, rules, now, asked.problems)) is not None:
        for name, stored in found.items():
            asked.found[name].update(stored)
    return asked


def sounds_of(conn: Connection, rule: AlertRule, labelling_ids: Sequence[int]) -> list[Sound]:
    """The sounds that a rule asks for in some labellings, in order of clip and time.

    Raises:
        DatabaseUserError: as `db.query.find.find_clips`.
    """
    question = rule.question
    tree, allowed = prepared(conn, question, by_interval=True)
    is_asked = labellings.c.id.in_(labelling_ids)
    within = select(labellings.c.clip_id).where(is_asked)
    found = intervals_query(tree, question.min_score, allowed, question, within).where(is_asked)
    if question.is_timed:
        found = with_source(found)
    part, first = found.subquery("found"), sources.alias("first_source")
    stands = first_source(part.c.clip_id, *file_conditions(question)).correlate(part)
    query = (
        select(
            *(part.c[name] for name in ("clip_id", "node_id", "peak", "start_s", "end_s")),
            *(
                first.c[name]
                for name in (
                    "path_text", "recorded_unix_ms", "recorded_utc_offset_s", "mtime_ns", "site_id",
                )
            ),
        )
        .outerjoin_from(
            part, first, first.c.id == func.coalesce(part.c.source_id, stands.scalar_subquery())
        )
        .order_by(part.c.clip_id, part.c.start_s, part.c.node_id)
    )  # fmt: skip
    return _merged(map(_sound, conn.execute(query)))


def try_rule(
    engine: Engine, rule: AlertRule, n_last: int, now: datetime
) -> list[tuple[Sound, str, str]]:
    """What a rule finds in the recordings that were labelled last: sound, class and state.

    The sounds' moments are on the recorder's clock. Nothing is stored.

    Raises:
        DatabaseUserError: as `db.query.find.find_clips`.
    """
    newest = select(labellings.c.id).where(labellings.c.status == "done")
    with reading(engine) as conn:
        ids = list(conn.execute(newest.order_by(labellings.c.id.desc()).limit(n_last)).scalars())
        found = sounds_of(conn, rule, ids)
        wanted = {sound.node_id for sound in found}
        named = select(nodes.c.id, nodes.c.name).where(nodes.c.id.in_(wanted))
        names = {row.id: row.name for row in conn.execute(named)}
    return [
        (replace(sound, heard_at=on_recorders_clock(sound)), names[sound.node_id], state)
        for sound, state in with_states(rule, found, (), now)
    ]


def with_states(
    rule: AlertRule, found: Iterable[Sound], spoken: Iterable[Any], now: datetime
) -> list[tuple[Sound, str]]:
    """The sounds in the order in which they were heard, each with its state.

    `spoken` have site_id, heard_at and utc_offset_s of what the rule told, or will.
    """
    periods: set[Hashable] = set()
    moments: defaultdict[int | None, list[datetime]] = defaultdict(list)
    within_s = math.inf if rule.recorded_within_s is None else rule.recorded_within_s

    def period(of: Any) -> Hashable:
        return of.site_id, _PERIODS[rule.first_in](on_recorders_clock(of))

    def speak(of: Any) -> None:
        if rule.first_in is not None:
            periods.add(period(of))
        insort(moments[of.site_id], of.heard_at)

    def is_near(sound: Sound, within: timedelta) -> bool:
        told = moments[sound.site_id]
        later = bisect_right(told, sound.heard_at - within)
        return later < len(told) and told[later] < sound.heard_at + within

    def state(sound: Sound) -> str:
        if (now - sound.heard_at).total_seconds() > within_s:
            return "old"
        if rule.first_in is not None and period(sound) in periods:
            return "quiet"
        if rule.one_per_s is not None and is_near(sound, timedelta(seconds=rule.one_per_s)):
            return "quiet"
        speak(sound)
        return "waiting"

    for each in spoken:
        speak(each)
    in_order = sorted(found, key=lambda sound: (sound.heard_at, sound.clip_id, sound.start_ms))
    return [(sound, state(sound)) for sound in in_order]


@repeatable
def _ask_some(
    engine: Engine, rules: Sequence[AlertRule], now: datetime, problems: dict[str, str]
) -> dict[str, Counter[str]] | None:
    """Ask about some labellings, in one transaction; what was stored, or None if none were left."""
    found: dict[str, Counter[str]] = {}
    with writing(engine) as conn:
        # One process at a time, or two would each find the first of a week.
        locked = select(alert_rules.c.id).order_by(alert_rules.c.id).with_for_update()
        known = set(conn.execute(locked).scalars())
        untimed = exists().where(
            sources.c.clip_id == labellings.c.clip_id, sources.c.recorded_by.is_(None)
        )
        unasked = (
            select(labellings.c.id, labellings.c.clip_id)
            .join(unasked_labellings, unasked_labellings.c.labelling_id == labellings.c.id)
            .where(~untimed)
        )
        clip_of = {row.id: row.clip_id for row in conn.execute(unasked.limit(_AT_ONCE))}
        if not clip_of or not known <= {rule.id for rule in rules}:
            return None
        lock_clips(conn, clip_of.values())
        ids = list(clip_of)
        for rule in rules:
            if rule.id not in known or rule.name in problems:
                continue
            try:
                sounds = sounds_of(conn, rule, ids)
            except DatabaseUserError as error:
                problems[rule.name] = str(error)
                continue
            if stored := _store(conn, rule, sounds, now):
                found[rule.name] = stored
        done = delete(unasked_labellings).where(unasked_labellings.c.labelling_id.in_(ids))
        conn.execute(done)
    return found


def _store(
    conn: Connection, rule: AlertRule, found: Sequence[Sound], now: datetime
) -> Counter[str]:
    """Store the sounds that are new; how many there are in each state."""
    clip_ids = {sound.clip_id for sound in found}
    of_rule = alerts.c.rule_id == rule.id
    here = select(alerts.c.clip_id, alerts.c.start_ms, alerts.c.end_ms)
    in_order = here.where(of_rule, alerts.c.clip_id.in_(clip_ids)).order_by(alerts.c.start_ms)
    stored: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for clip_id, start_ms, end_ms in conn.execute(in_order):
        stored[clip_id].append((start_ms, end_ms))
    new = [sound for sound in found if not _is_in(stored[sound.clip_id], sound)]
    if not new:
        return Counter()
    far = timedelta(seconds=max(rule.one_per_s or 0.0, _LONGEST_PERIOD_S if rule.first_in else 0.0))
    moments = [sound.heard_at for sound in new]
    spoken = select(alerts.c.site_id, alerts.c.heard_at, alerts.c.utc_offset_s).where(
        of_rule, alerts.c.state.in_(_SPOKEN),
        alerts.c.heard_at.between(min(moments) - far, max(moments) + far),
    )  # fmt: skip
    absent = _judged(conn, clip_ids)
    heard: list[Sound] = []
    judged: list[Sound] = []
    for sound in new:
        spans = absent[sound.clip_id, sound.node_id]
        is_absent = any(sound.touches(sound.clip_id, *span) for span in spans)
        (judged if is_absent else heard).append(sound)
    stated = with_states(rule, heard, conn.execute(spoken).all() if far else (), now)
    stated += [(sound, "judged") for sound in judged]
    rows = [
        {"rule_id": rule.id, "state": state, "raised_at": now, "event_id": str(uuid4())}
        | {name: getattr(sound, name) for name in Sound.__slots__}
        for sound, state in stated
    ]
    conn.execute(insert(alerts), rows)
    return Counter(state for _, state in stated)


def _is_in(stored: Sequence[tuple[int, int]], sound: Sound) -> bool:
    """Whether a sound touches one of these spans, which are in order and apart."""
    at = bisect_right(stored, sound.end_ms, key=itemgetter(0))
    return at > 0 and stored[at - 1][1] >= sound.start_ms


def _judged(
    conn: Connection, clip_ids: Iterable[int]
) -> defaultdict[tuple[int, int], list[tuple[float, float]]]:
    """From when to when people's newest verdicts say that a class is absent, by (clip, node).

    With a class all that is below it is absent. Milliseconds.
    """
    query = (
        select(clips.c.id, closure.c.descendant_id, _VERDICTS.c.start_s, _VERDICTS.c.end_s)
        .join_from(_VERDICTS, clips, clips.c.sha256 == _VERDICTS.c.clip)
        .join(nodes, nodes.c.mid == _VERDICTS.c.mid)
        .join(closure, closure.c.ancestor_id == nodes.c.id)
        .where(_VERDICTS.c.verdict == "absent", clips.c.id.in_(clip_ids))
    )
    found = defaultdict(list)
    for clip_id, node_id, start_s, end_s in conn.execute(query):
        end_ms = math.inf if end_s is None else end_s * 1_000
        found[clip_id, node_id].append(((start_s or 0.0) * 1_000, end_ms))
    return found


def _sound(row: Row[Any]) -> Sound:
    start_ms, offset_s = round(row.start_s * 1_000), row.recorded_utc_offset_s or 0
    is_timed = row.recorded_unix_ms is not None
    heard_ms = row.recorded_unix_ms + start_ms if is_timed else (row.mtime_ns or 0) // 1_000_000
    return Sound(
        row.clip_id, row.node_id, row.peak, start_ms, round(row.end_s * 1_000),
        _EPOCH + timedelta(milliseconds=heard_ms), offset_s if is_timed else 0, is_timed,
        row.path_text, row.site_id,
    )  # fmt: skip


def _merged(sounds: Iterable[Sound]) -> list[Sound]:
    """The sounds, those of a clip that touch as one; they come in order of clip and start."""
    merged: list[Sound] = []
    for sound in sounds:
        last = merged[-1] if merged else None
        if last is None or not last.touches(sound.clip_id, sound.start_ms, sound.end_ms):
            merged.append(sound)
            continue
        best = max(last, sound, key=lambda each: each.score)
        merged[-1] = replace(
            last, node_id=best.node_id, score=best.score, end_ms=max(last.end_ms, sound.end_ms)
        )
    return merged
