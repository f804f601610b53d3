"""Sites in the tables: who belongs where, as files come and as sites change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from audioset_core.errors import UserError
from audioset_core.inputs.sites import UNKNOWN
from audioset_core.records import Site, SiteRule, Statement, TimeRule
from db.catalog.sites import (
    RecordedAt,
    change_sites,
    count_placed_nowhere,
    found_by,
    metas_found_by,
    recorded_at_sites,
    stored_sites,
)
from db.catalog.start_times import store_rule
from db.engine import reading, writing
from db.ledger.claims import claim_clip
from db.records import Lease
from db.reports.clip import clip_by_ref
from db.schema.tables import sources
from tasks.labelling.start_times import time_recordings
from tests.db.build import LEASE_S, NOW, RUN, World, clip, enrolled, make_world, seen, sha

POND = Site("Pond", 52.5, 13.4, "Europe/Berlin", rules=(SiteRule("folder", "/p"),))
WOOD = Site("Wood", 48.0, 11.0, notes="dry", rules=(SiteRule("serial", "S1", "2024-05-18"),))


def _store(engine: Engine, *wanted: Site) -> None:
    change_sites(engine, lambda sites: [*sites, *wanted], NOW)
    time_recordings(engine, again=True)


def _hears(world: World, path: str, **told: Any) -> None:
    """A file is read whose clip says this of itself."""
    (item,) = enrolled(world, seen(path))
    notes = (Statement("GUANO", "Serial", "said"),)
    its = replace(clip(path), notes=notes, **told)
    claim_clip(world.engine, item.source_id, its, world.variant, Lease(RUN, LEASE_S, NOW))


def _found(engine: Engine) -> dict[str, tuple[str | None, str | None, str | None]]:
    names = {site.id: site.name for site in stored_sites(engine)}
    columns = (sources.c.path_text, sources.c.site_id, sources.c.site_by, sources.c.recorded_by)
    with reading(engine) as conn:
        rows = conn.execute(select(*columns)).all()
    return {path: (names[id_] if id_ else None, by, how) for path, id_, by, how in rows}


def test_sites_are_stored_changed_and_removed(fresh_db: Engine) -> None:
    assert change_sites(fresh_db, lambda _: [WOOD, POND], NOW)
    pond, wood = stored_sites(fresh_db)
    assert (replace(pond, id=0), replace(wood, id=0)) == (POND, WOOD)
    assert not change_sites(fresh_db, lambda sites: sites, NOW)
    moved = replace(pond, latitude_deg=-33.9, timezone=None, rules=(SiteRule("serial", "7"),))
    assert change_sites(fresh_db, lambda _: [moved, wood], NOW)
    assert stored_sites(fresh_db) == [moved, wood]

    def refuse(_: Sequence[Site]) -> Sequence[Site]:
        raise UserError("no")

    with pytest.raises(UserError):
        change_sites(fresh_db, refuse, NOW)
    assert change_sites(fresh_db, lambda _: [wood], NOW)
    assert stored_sites(fresh_db) == [wood]


def test_files_belong_alike_whether_they_or_the_sites_come_first(fresh_db: Engine) -> None:
    world = make_world(fresh_db)

    def files(folder: str) -> None:
        _hears(world, f"{folder}/p/20240518_230000.wav")
        _hears(world, f"{folder}/x/20240517_230000.wav", serial="s1")
        _hears(world, f"{folder}/x/20240518_230000.wav", serial="s1")
        _hears(world, f"{folder}/x/near.wav", latitude_deg=48.001, longitude_deg=11.0)
        _hears(world, f"{folder}/x/far.wav", latitude_deg=48.1, longitude_deg=11.0)
        enrolled(world, seen(f"{folder}/p/m.wav", meta={"Site": " WOOD"}))
        enrolled(world, seen(f"{folder}/p/n.wav", meta={"site": "Lake"}))

    pond = replace(POND, rules=(SiteRule("folder", "/a/p"), SiteRule("folder", "/b/p")))
    files("/a")
    time_recordings(fresh_db)
    assert {by for _, by, _ in _found(fresh_db).values()} == {None, UNKNOWN}
    _store(fresh_db, pond, WOOD)
    files("/b")
    assert time_recordings(fresh_db) == 7
    expected = {
        "p/20240518_230000.wav": ("Pond", "folder", "name, Europe/Berlin"),
        "x/20240517_230000.wav": (None, None, "name, UTC assumed"),
        "x/20240518_230000.wav": ("Wood", "serial", "name, UTC assumed"),
        "x/near.wav": ("Wood", "place", "not found"),
        "x/far.wav": (None, None, "not found"),
        "p/m.wav": ("Wood", "manifest; folder differs", "not found"),
        "p/n.wav": (None, UNKNOWN, "not found"),
    }
    found = _found(fresh_db)
    assert found == {f"{a}/{path}": says for path, says in expected.items() for a in ("/a", "/b")}
    assert found_by(fresh_db)[None, UNKNOWN] == 2
    assert metas_found_by(fresh_db, UNKNOWN, 1) == [{"site": "Lake"}]
    assert count_placed_nowhere(fresh_db) == 2
    pond, wood = stored_sites(fresh_db)
    day, hours = "2024-05-18", 20 / 3600
    assert recorded_at_sites(fresh_db) == {
        pond.id: RecordedAt(2, pytest.approx(hours), day, day),
        wood.id: RecordedAt(4, pytest.approx(2 * hours), day, day),
        None: RecordedAt(4, pytest.approx(2 * hours), "2024-05-17", "2024-05-17"),
    }
    (source,) = clip_by_ref(fresh_db, sha("/a/x/near.wav")).sources
    assert (source.site, source.site_by) == ("Wood", "place")
    # The last site gone, nothing belongs anywhere, and no zone is known.
    change_sites(fresh_db, lambda _: [], NOW)
    time_recordings(fresh_db, again=True)
    assert {(site, how) for site, _, how in _found(fresh_db).values()} == {
        (None, "name, UTC assumed"), (None, "not found"),
    }  # fmt: skip


def test_what_is_stated_of_the_clock_goes_before_the_sites_zone(fresh_db: Engine) -> None:
    world = make_world(fresh_db)
    enrolled(world, seen("/p/20240518_230000.wav"))
    _store(fresh_db, POND)
    with reading(fresh_db) as conn:
        at = conn.execute(select(sources.c.recorded_unix_ms, sources.c.recorded_utc_offset_s)).one()
    assert tuple(at) == (1_716_066_000_000, 7_200)  # 2024-05-18T21:00Z
    store_rule(fresh_db, TimeRule("", None, "UTC"), NOW)
    time_recordings(fresh_db, again=True)
    assert _found(fresh_db)["/p/20240518_230000.wav"] == ("Pond", "folder", "name, UTC")


def test_a_file_with_other_content_is_looked_at_again(fresh_db: Engine) -> None:
    world = make_world(fresh_db)
    _hears(world, "/x/20240518_230000.wav", serial="S1")
    _store(fresh_db, WOOD)
    assert _found(fresh_db)["/x/20240518_230000.wav"][0] == "Wood"
    enrolled(world, seen("/x/20240518_230000.wav", size=2_000))
    time_recordings(fresh_db)
    assert _found(fresh_db)["/x/20240518_230000.wav"][0] is None


def test_nothing_is_written_where_nothing_changes(fresh_db: Engine) -> None:
    world = make_world(fresh_db)
    enrolled(world, seen("/p/20240518_230000.wav"), seen("/x/20240518_0430.wav"))
    _store(fresh_db, POND)
    before = _found(fresh_db)
    if fresh_db.dialect.name == "sqlite":
        with writing(fresh_db) as conn:
            conn.exec_driver_sql(
                "CREATE TRIGGER no_writes BEFORE UPDATE ON sources "
                "BEGIN SELECT RAISE(ABORT, 'written'); END"
            )
    assert time_recordings(fresh_db, again=True) == 2
    assert _found(fresh_db) == before
    if fresh_db.dialect.name == "sqlite":
        with writing(fresh_db) as conn:
            conn.exec_driver_sql("DROP TRIGGER no_writes")
            conn.execute(update(sources).values(recorded_by=None))
