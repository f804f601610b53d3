"""Finding out when recordings began: the core's reading of names, over the sources in SQL."""

from __future__ import annotations

from sqlalchemy import Engine

from audioset_core.recording_times import TimeRule, rule_for, start_time
from db.recorded import (
    NOT_FOUND,
    SourceTime,
    UntimedSource,
    sources_to_time,
    store_times,
    stored_rules,
)


def time_recordings(engine: Engine, *, again: bool = False) -> int:
    """Find the start of every recording not looked at before (all, if `again`); how many were."""
    rules = tuple(
        TimeRule(rule.folder, rule.pattern, rule.timezone) for rule in stored_rules(engine)
    )
    n_looked_at = 0
    for page in sources_to_time(engine, again=again):
        store_times(engine, [_timed(source, rules) for source in page])
        n_looked_at += len(page)
    return n_looked_at


def _timed(source: UntimedSource, rules: tuple[TimeRule, ...]) -> SourceTime:
    rule = rule_for(source.path_text, rules)
    found = start_time(source.path_text, source.meta, rule)
    if found is None:
        return SourceTime(source.path_digest, None, None, NOT_FOUND)
    return SourceTime(source.path_digest, found.unix_ms, found.utc_offset_s, found.found_by)
