"""Finding out when and where recordings were made: the core's rules, over the sources in SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Engine

from audioset_core.file_headers.field_notes import FieldNotes
from audioset_core.inputs.name_times import Series, needs_neighbours
from audioset_core.inputs.sites import Sites
from audioset_core.inputs.start_times import (
    implausible,
    not_understood,
    rule_for,
    start_time,
    unread_starts,
)
from audioset_core.records import TimeRule
from db.catalog.sites import stored_sites
from db.catalog.start_times import (
    NOT_FOUND,
    SourceTime,
    UntimedSource,
    sources_in_folders,
    sources_to_time,
    store_times,
    stored_rules,
)


@dataclass(frozen=True, slots=True)
class _Rules:
    times: tuple[TimeRule, ...]
    sites: Sites


def time_recordings(engine: Engine, *, again: bool = False) -> int:
    """Find start and site of every recording not looked at before (all, if `again`); how many were.

    Where the names of a folder decide together, those that were looked at before are read anew.
    """
    rules = _Rules(tuple(stored_rules(engine)), Sites(stored_sites(engine)))
    n_looked_at = 0
    folders: set[str] = set()
    for page in sources_to_time(engine, again=again):
        alone = [source for source in page if not needs_neighbours(_name(source))]
        folders.update(_folder(s) for s in page if needs_neighbours(_name(s)))
        _store_new(engine, ((source, _timed(source, rules, None)) for source in alone))
        n_looked_at += len(page)
    if folders:
        _time_together(engine, rules, folders)
    return n_looked_at


def told_by_file(notes: FieldNotes | None) -> dict[str, Any]:
    """The columns of a clip that its file's own notes give."""
    notes = notes or FieldNotes()
    return {
        "told_start": notes.start,
        "told_by": notes.found_by,
        "latitude_deg": notes.latitude_deg,
        "longitude_deg": notes.longitude_deg,
        "device": notes.device,
        "serial": notes.serial,
    }


def _time_together(engine: Engine, rules: _Rules, folders: set[str]) -> None:
    series: defaultdict[str, Series] = defaultdict(Series)
    for page in sources_in_folders(engine, folders):
        for source in page:
            series[_folder(source)].add(_name(source))
    for page in sources_in_folders(engine, folders):
        together = [source for source in page if needs_neighbours(_name(source))]
        _store_new(engine, ((s, _timed(s, rules, series[_folder(s)])) for s in together))


def _store_new(engine: Engine, times: Iterable[tuple[UntimedSource, SourceTime]]) -> None:
    store_times(engine, [time for source, time in times if source.stored != time.found])


def _folder(source: UntimedSource) -> str:
    return source.path_text.rpartition("/")[0]


def _name(source: UntimedSource) -> str:
    return source.path_text.rpartition("/")[2]


def _timed(source: UntimedSource, rules: _Rules, series: Series | None) -> SourceTime:
    rule = rule_for(source.path_text, rules.times)
    found = start_time(source.path_text, source.meta, rule, series, source.told)
    where = rules.sites.of(
        source.path_text, source.meta, serial=source.serial, at=source.place,
        day=None if found is None else found.local_day,
    )  # fmt: skip
    if found is None:
        unread = [not_understood(key) for key, _ in unread_starts(source.meta or {})]
        why = "; ".join((NOT_FOUND, *unread)) + implausible(source.told)
        return SourceTime(source.path_digest, None, None, why, where.site_id, where.by)
    if where.site and where.site.timezone and rule.timezone is None:
        its = replace(rule, timezone=where.site.timezone)
        found = start_time(source.path_text, source.meta, its, series, source.told) or found
    return SourceTime(
        source.path_digest, found.unix_ms, found.utc_offset_s, found.found_by,
        where.site_id, where.by,
    )  # fmt: skip
