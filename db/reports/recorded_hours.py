"""At which hours of which days was recorded: for a picture of days by hours of the day."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import BigInteger, ColumnElement, Engine, cast, func, select

from db.engine import reading
from db.query.current_labelling import represents_clip
from db.query.occasions import occasions
from db.schema.tables import clips, labellings, sources

HOUR_MS = 3_600_000
_PAGE = 10_000


def recorded_hours(engine: Engine, site_id: int | None = None) -> dict[int, float]:
    """Seconds of labelled recordings by hour of the recorder's clock, counted from 1970.

    With `site_id`, of that site alone.

    A recording that goes on into other hours counts in each by its part; of clips whose start is
    not known nothing counts.
    """
    known = occasions(*_at(site_id)).subquery("known")
    start_ms = known.c.recorded_unix_ms + known.c.recorded_utc_offset_s * 1_000
    length_ms = cast(func.round(clips.c.duration_s * 1_000.0), BigInteger)
    # Without a remainder, so that both databases divide alike.
    hour = start_ms // HOUR_MS
    left_ms = HOUR_MS - (start_ms - hour * HOUR_MS)
    base = (
        select()
        .select_from(labellings)
        .join(clips, clips.c.id == labellings.c.clip_id)
        .join(known, known.c.clip_id == clips.c.id)
        .where(represents_clip(None))
    )
    whole = base.add_columns(hour.label("hour"), func.sum(length_ms)).where(length_ms <= left_ms)
    longer = base.add_columns(start_ms, length_ms).where(length_ms > left_ms)
    found: dict[int, float] = defaultdict(float)
    with reading(engine) as conn:
        for at, total_ms in conn.execute(whole.group_by(hour)):
            found[int(at)] += int(total_ms) / 1000
        with conn.execution_options(yield_per=_PAGE).execute(longer) as rows:
            for begin_ms, own_ms in rows:
                _share_out(found, int(begin_ms), int(begin_ms) + int(own_ms))
    return dict(sorted(found.items()))


def clocks_at(engine: Engine, site_id: int) -> list[tuple[int, int]]:
    """(day, seconds ahead of UTC) of the recorders' clocks at a site, by day since 1970."""
    known = occasions(*_at(site_id)).subquery("known")
    offset_s = func.coalesce(known.c.recorded_utc_offset_s, 0)
    day = (known.c.recorded_unix_ms + offset_s * 1_000) // (24 * HOUR_MS)
    query = select(day, func.max(offset_s)).group_by(day).order_by(day)
    with reading(engine) as conn:
        return [(at, ahead_s) for at, ahead_s in conn.execute(query)]


def _at(site_id: int | None) -> list[ColumnElement[bool]]:
    return [] if site_id is None else [sources.c.site_id == site_id]


def _share_out(found: dict[int, float], begin_ms: int, end_ms: int) -> None:
    """Add a recording to every hour that it touches."""
    while begin_ms < end_ms:
        hour = begin_ms // HOUR_MS
        until_ms = min(end_ms, (hour + 1) * HOUR_MS)
        found[hour] += (until_ms - begin_ms) / 1000
        begin_ms = until_ms
