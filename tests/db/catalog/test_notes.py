"""What files say beside the sound, as it is stored with their clips."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Engine, delete, select, text

from audioset_core.records import Statement
from db.catalog.clips import add_notes, clips_without_notes
from db.catalog.start_times import sources_to_time, times_found
from db.engine import reading, writing
from db.ledger.claims import LEASE_S, claim_clip
from db.records import Lease
from db.reports.clip import clip_by_ref
from db.schema.tables import clips, labellings, recording_notes, sources
from tasks.labelling.start_times import time_recordings
from tests.db.build import NOW, RUN, clip, enrolled, make_world, seen, sha

MOMENT = "2024-05-18T19:30:00+02:00"
NOTES = (
    Statement("GUANO", "Timestamp", MOMENT, MOMENT),
    Statement("GUANO", "Note", "Süd 🦉"),
    Statement("wamd", "start time", "1970-01-01 00:00:00", None, "not used: before 2000"),
)
TOLD = {"told_start": MOMENT, "told_by": "GUANO Timestamp", "device": "SM4", "serial": "S4A1"}


def test_a_claim_stores_the_notes_once_and_a_later_one_what_is_new(fresh_db: Engine) -> None:
    world = make_world(fresh_db)
    lease = Lease(RUN, LEASE_S, NOW)
    for path, notes in (("/a.wav", NOTES), ("/copy.wav", NOTES), ("/late.wav", NOTES[:2])):
        (item,) = enrolled(world, seen(path))
        told = replace(clip("a"), notes=notes, **TOLD)
        claim_clip(fresh_db, item.source_id, told, world.variant, lease)
        assert clip_by_ref(fresh_db, sha("a")).clip.notes == notes
        with reading(fresh_db) as conn:
            about = "SELECT source, key, value, start, doubt FROM notes WHERE path = '/a.wav'"
            shown = conn.execute(text(about)).all()
        assert [Statement(*row) for row in shown] == list(notes)
    (item,) = enrolled(world, seen("/again.wav"))
    claim_clip(fresh_db, item.source_id, replace(clip("a"), **TOLD), world.variant, lease)
    report = clip_by_ref(fresh_db, sha("a"))
    assert report.clip.notes == NOTES[:2]  # a reader that finds none takes nothing away
    assert (report.clip.device, report.clip.serial) == ("SM4", "S4A1")
    with writing(fresh_db) as conn:
        conn.execute(delete(labellings))
        conn.execute(delete(sources))
        conn.execute(delete(clips))
        assert conn.execute(select(recording_notes)).all() == []


def test_starts_are_told_by_notes_and_by_what_an_earlier_version_stored(fresh_db: Engine) -> None:
    world = make_world(fresh_db)
    lease = Lease(RUN, LEASE_S, NOW)
    items = enrolled(world, seen("/20240518_173000.wav"), seen("/b.wav"), seen("/c.wav"))
    with_notes = replace(clip("a"), notes=NOTES, **TOLD)
    before = replace(clip("b"), told_start=MOMENT, told_by="GUANO Timestamp")
    for item, told in zip(items, (with_notes, before, clip("c")), strict=True):
        claim_clip(fresh_db, item.source_id, told, world.variant, lease)
    told_of = {s.path_text: s.told for page in sources_to_time(fresh_db) for s in page}
    assert told_of == {
        "/20240518_173000.wav": (("GUANO Timestamp", MOMENT), ("wamd start time", None)),
        "/b.wav": (("GUANO Timestamp", MOMENT),),
        "/c.wav": (),
    }
    time_recordings(fresh_db)
    assert {f.found_by for f in times_found(fresh_db)} == {
        "GUANO Timestamp; wamd start time is not plausible, zone given there",
        "GUANO Timestamp, zone given there",
        "not found",
    }
    # Those without notes are listed for another look, and then have them.
    without = {row.path: row.clip_id for page in clips_without_notes(fresh_db) for row in page}
    assert set(without) == {b"/b.wav", b"/c.wav"}
    add_notes(fresh_db, without[b"/c.wav"], TOLD, NOTES)
    assert [row.path for page in clips_without_notes(fresh_db) for row in page] == [b"/b.wav"]
    assert [s.path_text for page in sources_to_time(fresh_db) for s in page] == ["/c.wav"]
