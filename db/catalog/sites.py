"""Sites, what belongs to them, and what was recorded there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    delete,
    distinct,
    func,
    insert,
    select,
    update,
)

from audioset_core.records import Site, SiteRule
from db.engine import reading, writing
from db.schema.alert_tables import alert_rules, alerts
from db.schema.tables import clips, site_rules, sites, sources

_COLUMNS = ("name", "latitude_deg", "longitude_deg", "timezone", "notes")
_RULE = ("kind", "value", "first_day", "last_day")


@dataclass(frozen=True, slots=True)
class RecordedAt:
    """What was recorded at a site; both days are on the recorders' clocks, None if not known."""

    n_clips: int = 0
    hours: float = 0.0
    first_day: str | None = None
    last_day: str | None = None


def stored_sites(engine: Engine) -> list[Site]:
    """The sites by name, each with its rules in the order in which they were stated."""
    with reading(engine) as conn:
        return _sites(conn)


def change_sites(
    engine: Engine, change: Callable[[Sequence[Site]], Sequence[Site]], now: datetime
) -> bool:
    """Store what `change` makes of the sites, in one transaction; whether anything changed.

    A site with the id of a stored one replaces that; one without an id is new; those that are
    left out are removed, and no file belongs to them any longer.
    """
    with writing(engine) as conn:
        before = _sites(conn)
        known = {site.id: site for site in before}
        after = change(before)
        gone = known.keys() - {site.id for site in after}
        changed = [site for site in after if known.get(site.id) != site]
        of_gone = update(sources).where(sources.c.site_id.in_(gone))
        if gone:
            conn.execute(of_gone.values(site_id=None, site_by=None, recorded_by=None))
            _leave_alerts(conn, gone)
            conn.execute(delete(sites).where(sites.c.id.in_(gone)))
        for site in changed:
            _write(conn, site, now)
    return bool(gone or changed)


def _leave_alerts(conn: Connection, gone: set[int]) -> None:
    """Have alerts and their rules name none of these sites: the next site may get such an id."""
    conn.execute(update(alerts).where(alerts.c.site_id.in_(gone)).values(site_id=None))
    for rule_id, question in conn.execute(select(alert_rules.c.id, alert_rules.c.question)).all():
        named = question.get("sites", [])
        if gone.intersection(named):
            left = question | {"sites": [None if each in gone else each for each in named]}
            of_rule = update(alert_rules).where(alert_rules.c.id == rule_id)
            conn.execute(of_rule.values(question=left))


def recorded_at_sites(
    engine: Engine, *of_files: ColumnElement[bool]
) -> dict[int | None, RecordedAt]:
    """What was recorded at each site, by its id; a recording with several files counts once.

    None: recordings that belong to no site.
    """
    day_ms = 86_400_000
    local_day = (sources.c.recorded_unix_ms + sources.c.recorded_utc_offset_s * 1_000) // day_ms
    each = (
        select(
            sources.c.site_id,
            sources.c.clip_id,
            func.min(local_day).label("first_day"),
            func.max(local_day).label("last_day"),
        )
        .where(sources.c.clip_id.is_not(None), *of_files)
        .group_by(sources.c.site_id, sources.c.clip_id)
        .subquery("each_clip")
    )
    query = (
        select(
            each.c.site_id,
            func.count(),
            func.sum(clips.c.duration_s),
            func.min(each.c.first_day),
            func.max(each.c.last_day),
        )
        .join_from(each, clips, clips.c.id == each.c.clip_id)
        .group_by(each.c.site_id)
    )
    with reading(engine) as conn:
        rows = conn.execute(query).all()
    return {
        site_id: RecordedAt(n, (seconds or 0.0) / 3600, _as_day(first), _as_day(last))
        for site_id, n, seconds, first, last in rows
    }


def recorded_by_site(
    engine: Engine, *of_files: ColumnElement[bool]
) -> list[tuple[Site, RecordedAt]]:
    """Every site by name, with what was recorded there; with conditions, those of fitting files."""
    found = stored_sites(engine)
    recorded = recorded_at_sites(engine, *of_files) if found else {}
    every = [(site, recorded.get(site.id, RecordedAt())) for site in found]
    return [each for each in every if each[1].n_clips] if of_files else every


def found_by(engine: Engine) -> dict[tuple[int | None, str | None], int]:
    """How many files belong to a site, by its id and by who says so."""
    query = select(sources.c.site_id, sources.c.site_by, func.count())
    with reading(engine) as conn:
        rows = conn.execute(query.group_by(sources.c.site_id, sources.c.site_by))
        return {(site_id, by): n for site_id, by, n in rows}


def metas_found_by(engine: Engine, by: str, limit: int) -> list[dict[str, Any]]:
    """What manifests say of some of the files whose site was found so."""
    query = select(sources.c.meta).where(sources.c.site_by == by, sources.c.site_id.is_(None))
    with reading(engine) as conn:
        return [meta or {} for meta in conn.execute(query.limit(limit)).scalars()]


def stated_serials(engine: Engine) -> list[str]:
    """Every serial number that a recording states."""
    query = select(distinct(clips.c.serial)).where(clips.c.serial.is_not(None))
    with reading(engine) as conn:
        return sorted(conn.execute(query).scalars())


def count_placed_nowhere(engine: Engine) -> int:
    """How many recordings state a place and belong to no site."""
    query = (
        select(func.count(distinct(sources.c.clip_id)))
        .join(clips, clips.c.id == sources.c.clip_id)
        .where(sources.c.site_id.is_(None), clips.c.latitude_deg.is_not(None))
    )
    with reading(engine) as conn:
        return int(conn.execute(query).scalar_one())


def _sites(conn: Connection) -> list[Site]:
    rules: dict[int, tuple[SiteRule, ...]] = {}
    stated = select(site_rules.c.site_id, *(site_rules.c[name] for name in _RULE))
    for site_id, *rule in conn.execute(stated.order_by(site_rules.c.id)):
        rules[site_id] = (*rules.get(site_id, ()), SiteRule(*rule))
    query = select(*(sites.c[name] for name in _COLUMNS), sites.c.id)
    found = [Site(**row._mapping, rules=rules.get(row.id, ())) for row in conn.execute(query)]
    return sorted(found, key=lambda site: site.name)  # databases sort names differently


def _write(conn: Connection, site: Site, now: datetime) -> None:
    row = {name: getattr(site, name) for name in _COLUMNS}
    if site.id:
        site_id = site.id
        conn.execute(update(sites).where(sites.c.id == site_id).values(row))
        conn.execute(delete(site_rules).where(site_rules.c.site_id == site_id))
    else:
        new = insert(sites).values(row | {"added_at": now}).returning(sites.c.id)
        site_id = conn.execute(new).scalar_one()
    if site.rules:
        conn.execute(insert(site_rules), [{"site_id": site_id} | asdict(r) for r in site.rules])


def _as_day(days: int | None) -> str | None:
    return None if days is None else (date(1970, 1, 1) + timedelta(days=int(days))).isoformat()
