"""Questions about where recordings were made."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, select, text, update

from audioset_core.inputs.coordinates import distance_km
from audioset_core.records import Detection, Site
from db.catalog.sites import change_sites, stored_sites
from db.catalog.start_times import SourceTime, store_times
from db.engine import reading, writing
from db.errors import DatabaseUserError
from db.query import find as ask
from db.query.current_labelling import represents_clip
from db.query.find import few_clips, find_clips, find_intervals, find_sounds
from db.query.hours import hours_heard
from db.query.places import is_near
from db.query.question import Question, restricts_clips
from db.query.statements import found_query
from db.query.subtrees import Subtree
from db.query.time_spans import Span
from db.reports.collection import places
from db.reports.export_rows import recordings
from db.schema.base import metadata
from db.schema.tables import clips, sources
from db.types import path_digest
from tests.db.build import INDEX, NOW, World, enrolled, labelled, make_world, seen, sha

SITES = (Site("Pond", 52.5, 13.4), Site("Wood", 52.51, 13.4), Site("Fiji", -17.0, 179.99))


@pytest.fixture
def world(fresh_db: Engine) -> World:
    """Clips a (at Pond), b (at Wood), c (its file states a place at 180 degrees), d (nowhere)."""
    world = make_world(fresh_db)
    peaks = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}
    for name, peak in peaks.items():
        labelled(world, name, {"/b": peak}, [Detection(INDEX["/b"], 0, 1, peak, peak, 0)])
    change_sites(fresh_db, lambda _: SITES, NOW)
    ids = {site.name: site.id for site in stored_sites(fresh_db)}
    at = {"a": "Pond", "b": "Wood"}
    store_times(
        fresh_db,
        [
            SourceTime(
                path_digest(f"/audio/{name}.wav".encode()),
                n * 3_600_000,
                0,
                "name",
                ids.get(at.get(name, "")),
            )
            for n, name in enumerate(peaks)
        ],
    )
    with writing(fresh_db) as conn:
        its = update(clips).where(clips.c.sha256 == sha("c"))
        conn.execute(its.values(latitude_deg=-17.0, longitude_deg=-179.99))
        # A site counts before what the file states.
        its = update(clips).where(clips.c.sha256 == sha("a"))
        conn.execute(its.values(latitude_deg=-17.0, longitude_deg=-179.99))
    return world


def _names(world: World, **asked: Any) -> str:
    of = {sha(name): name for name in "abcd"}
    question = Question(under=("/a",), **asked)
    found = {
        "".join(of[hit.clip] for hit in find(world.engine, question))
        for find in (find_clips, find_intervals)
    }
    sounds = find_sounds(world.engine, question, 9)
    found.add("".join(of[sound.clip] for sound in sorted(sounds, key=lambda s: -s.score)))
    if question.span is None:  # exports restrict the sounds to it, not the recordings
        with reading(world.engine) as conn:
            found.add("".join(of[row.clip] for row in recordings(conn, question)))
    hours = hours_heard(world.engine, question, "source")
    found.add("".join(sorted(row.what[-5] for row in hours)))
    (names,) = found
    return names


IN_THE_SECOND_HOUR = Span(3_600_000, 7_200_000)
ASKED: list[tuple[dict[str, Any], str]] = [
    ({"sites": ("Pond",)}, "a"),
    ({"sites": ("Wood", "Pond")}, "ab"),
    ({"sites": ("Fiji",)}, ""),
    ({"sites": ("Pond",), "paths": ("b.wav",)}, ""),
    ({"sites": ("Pond", "Wood"), "paths": ("b.wav",), "there_only": True}, "b"),
    ({"near": (52.5, 13.4, 1.0)}, "a"),
    ({"near": (52.5, 13.4, 1.2)}, "ab"),
    ({"near": (-17.0, 179.995, 2.0)}, "c"),
    ({"near": (90.0, 0.0, 4_200.0)}, "ab"),
    ({"near": (0.0, 0.0, 20_020.0)}, "abc"),
    ({"near": (52.5, 13.4, 5.0), "sites": ("Wood",)}, "b"),
    ({"sites": ("Pond", "Wood"), "span": IN_THE_SECOND_HOUR}, "b"),
    ({"sites": ("Pond",), "span": IN_THE_SECOND_HOUR}, ""),
    ({"near": (52.5, 13.4, 5.0), "span": IN_THE_SECOND_HOUR}, "b"),
]


@pytest.mark.slow
@pytest.mark.parametrize("most", [0, 20_000])
def test_every_question_knows_places(
    world: World, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(ask, "_FEW_CLIPS", most)
    for asked, expected in ASKED:
        assert _names(world, **asked) == expected, asked


def test_a_hit_names_the_site_of_the_file_that_is_shown(world: World) -> None:
    hits = find_clips(world.engine, Question(under=("/a",)))
    assert [hit.site for hit in hits] == ["Pond", "Wood", None, None]
    # A copy at another site is found there, and shown there.
    enrolled(world, seen("/copy.wav"))
    (wood,) = (site.id for site in stored_sites(world.engine) if site.name == "Wood")
    with writing(world.engine) as conn:
        clip_id = select(clips.c.id).where(clips.c.sha256 == sha("a")).scalar_subquery()
        its = update(sources).where(sources.c.path_text == "/copy.wav")
        conn.execute(its.values(clip_id=clip_id, status="identified", site_id=wood))
    at_wood = Question(under=("/a",), sites=("Wood",))
    shown = [(hit.path_text, hit.site) for hit in find_clips(world.engine, at_wood)]
    assert shown == [("/copy.wav", "Wood"), ("/audio/b.wav", "Wood")]
    found = places(world.engine, sha("a"), at_wood)
    assert [place.path_text for place in found] == ["/copy.wav", "/audio/a.wav"]
    assert restricts_clips(at_wood)
    with reading(world.engine) as conn:
        rows = conn.execute(text("SELECT path, site FROM clip_sources ORDER BY path")).all()
        heard = conn.execute(
            text("SELECT DISTINCT site FROM sound_times WHERE site = 'Pond'")
        ).all()
    assert {row.path: row.site for row in rows}["/copy.wav"] == "Wood"
    assert len(heard) == 1


def test_distances_are_those_of_the_library(world: World) -> None:
    at = [(0.0, 0.0), (52.5, 13.4), (-17.0, -179.99), (89.9, 50.0), (-90.0, 0.0)]
    everywhere = [Site(f"s{n}", *each) for n, each in enumerate(at)]
    change_sites(world.engine, lambda _: everywhere, NOW)
    ids = {site.id: (site.latitude_deg, site.longitude_deg) for site in stored_sites(world.engine)}
    (source,) = enrolled(world, seen("/one.wav"))
    for place in at:
        for km in (0.5, 2.5, 100.0, 6_000.0, 15_000.0):
            for site_id, its in ids.items():
                with writing(world.engine) as conn:
                    one = update(sources).where(sources.c.id == source.source_id)
                    conn.execute(one.values(site_id=site_id))
                    query = select(sources.c.id).where(
                        sources.c.id == source.source_id, is_near((*place, km))
                    )
                    found = conn.execute(query).first() is not None
                assert found == (distance_km(place, its) <= km), (place, its, km)


def test_a_place_that_is_none(world: World) -> None:
    for near in ((91.0, 0.0, 1.0), (0.0, 181.0, 1.0), (0.0, 0.0, 0.0), (float("nan"), 0.0, 1.0)):
        with pytest.raises(DatabaseUserError, match="a latitude from -90 to 90"):
            find_clips(world.engine, Question(under=("/a",), near=near))


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ({"sites": ("Pond",)}, "ix_sources_site_id_clip_id (site_id=?"),
        ({"near": (1.0, 2.0, 3.0)}, "ix_clips_placed (latitude_deg>? AND latitude_deg<?)"),
    ],
)
def test_a_site_is_sought_by_index(world: World, asked: dict[str, Any], index: str) -> None:
    if world.engine.dialect.name != "sqlite":
        pytest.skip("the plan is SQLite's; PostgreSQL reads a small table whole")
    with reading(world.engine) as conn:
        within = few_clips(conn, Question(under=("/a",), **asked))
        assert within is not None
        query = found_query(Subtree((1, 2, 3)), 0.5, represents_clip(None), within)
        compiled = query.compile(world.engine, compile_kwargs={"literal_binds": True})
        plan = [row[3] for row in conn.execute(text(f"EXPLAIN QUERY PLAN {compiled}"))]
    assert index in "\n".join(plan)
    scanned = {line.split()[1] for line in plan if line.startswith("SCAN")}
    assert not scanned & (set(metadata.tables) - {"sites"})
