"""Files of which redacted copies can be made: labelled or not, in pages, by what is heard."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, update

from db.engine import writing
from db.query.question import Question
from db.reports.redactable import classes_by_column, count_redactable, redactable
from db.schema.tables import sources
from tests.db.build import MODEL, enrolled, labelled, make_world, other_variant, seen, sha


def test_every_file_comes_once_with_what_its_copy_needs(fresh_db: Engine) -> None:
    world = make_world(fresh_db)
    labelled(world, "bird", {"/b": 0.9})
    labelled(world, "other", {"/e": 0.6})
    enrolled(world, seen("/audio/new.wav"))
    enrolled(world, seen("/audio/bad.wav"), seen("/copies/bird.wav"), seen("/copies/moved.wav"))
    with writing(fresh_db) as conn:
        clip_id = conn.execute(sources.select().where(sources.c.path == b"/audio/bird.wav")).one()
        for name, values in (
            ("/audio/bad.wav", {"status": "failed", "reason": "damaged"}),
            ("/copies/bird.wav", {"clip_id": clip_id.clip_id}),
            ("/copies/moved.wav", {"clip_id": clip_id.clip_id, "status": "missing"}),
        ):
            conn.execute(update(sources).where(sources.c.path == name.encode()).values(values))
    every = list(redactable(fresh_db, Question()))
    assert [(file.path, file.clip, file.reason) for file in every] == [
        (b"/audio/bird.wav", sha("bird"), None),
        (b"/audio/other.wav", sha("other"), None),
        (b"/audio/new.wav", None, None),
        (b"/audio/bad.wav", None, "damaged"),
        (
            b"/copies/bird.wav",
            sha("bird"),
            None,
        ),  # not the one that is gone, while others are there
    ]
    first, *_, bad, _ = every
    assert (first.model, first.n_samples, first.sample_rate_hz) == ("tiny@1", 160_000, 16_000)
    assert (first.patch_hop_s, first.window_s, first.is_partial) == (0.48, 0.96, False)
    assert (first.track, bad.track, bad.model_id) == ("default", "default", None)

    def names(**asked: object) -> list[str]:
        question = Question(**asked)  # type: ignore[arg-type]
        found = [Path(file.path_text).stem for file in redactable(fresh_db, question)]
        assert count_redactable(fresh_db, question) == len(found)
        return found

    assert names() == ["bird", "other", "new", "bad", "bird"]
    assert names(paths=("/copies",)) == ["bird"]
    assert names(all_of=("/a",), min_score=0.5) == ["bird", "bird"]
    assert names(not_under=("/a",), min_score=0.5) == ["other"]
    variant = other_variant(world)
    assert classes_by_column(fresh_db, world.variant.model_id, ["/c", "/b", "/a"]) == {
        0: "name /b", 1: "name /c",
    }  # fmt: skip
    assert classes_by_column(fresh_db, variant.model_id, ["/e"]) == {
        len(MODEL.categories) - 1: "name /e"
    }
