"""The state of recordings: stored, asked for the worst first, and by recorder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, delete, select, text

from audioset_core.records import Health
from db.catalog.health import add_health, clips_without_health
from db.engine import reading, writing
from db.errors import DatabaseUserError
from db.ledger.claims import LEASE_S, claim_clip, commit_labellings
from db.query.question import Question
from db.records import Lease, Remark
from db.reports.clip import clip_by_ref
from db.reports.health import health_report
from db.schema.tables import clip_health, clips, labelling_remarks, labellings, sources
from tests.db.build import NOW, RUN, World, clip, enrolled, labelling, make_world, seen, sha

WELL = Health(
    measured_s=10, clipped_share=0, n_dropouts=0, dropout_s=0, dc_offset=0.001, silent_share=0,
    channel_gap_db=0.5, weakest_channel=2, peak_dbfs=-6, rms_dbfs=-40, loudness_lufs=-38,
)  # fmt: skip
MONO = replace(WELL, channel_gap_db=None, weakest_channel=None, loudness_lufs=None)
FOUND: dict[str, tuple[str | None, Health | None]] = {
    "well": ("S1", WELL),
    "clipped": ("S1", replace(MONO, clipped_share=0.02)),
    "worse": ("S1", replace(WELL, clipped_share=0.3, dc_offset=0.05)),
    "dead1": ("S2", replace(WELL, channel_gap_db=31)),
    "dead2": ("S2", replace(WELL, channel_gap_db=60)),
    "silent": (None, replace(MONO, silent_share=1, rms_dbfs=-150, peak_dbfs=-150)),
    "before": ("S2", None),
}


def store(world: World, name: str, serial: str | None, health: Health | None) -> None:
    (item,) = enrolled(world, seen(f"/site-{serial}/{name}.wav"))
    told = replace(clip(name), device="SM4" if serial else None, serial=serial)
    claim = claim_clip(world.engine, item.source_id, told, world.variant, Lease(RUN, LEASE_S, NOW))
    done = replace(labelling(claim, name), clip=replace(told, health=health))  # type: ignore[arg-type]
    assert commit_labellings(world.engine, world.variant, [done], RUN, NOW) == [True]


@pytest.fixture
def world(fresh_db: Engine) -> World:
    world = make_world(fresh_db)
    for name, (serial, health) in FOUND.items():
        store(world, name, serial, health)
    return world


def names(found: Any) -> list[str]:
    return [each.path_text.rpartition("/")[2].removesuffix(".wav") for each in found.worst]


def test_the_worst_come_first_and_recorders_are_told_apart(world: World) -> None:
    found = health_report(world.engine)
    assert (found.n_measured, found.n_unmeasured, found.n_troubled) == (6, 1, 5)
    assert names(found) == ["silent", "dead2", "dead1", "worse", "clipped"]
    assert dict(found.troubles) == {
        "silent": 1, "faint": 1, "dead channel": 2, "clipping": 2, "DC offset": 1,
    }  # fmt: skip
    assert found.worst[3].troubles == ("clipping", "DC offset")
    assert found.worst[3].health == FOUND["worse"][1]
    assert [
        (d.device, d.serial, d.n_clips, d.n_troubled, dict(d.troubles)) for d in found.devices
    ] == [
        ("SM4", "S1", 3, 2, {"clipping": 2, "DC offset": 1}),
        ("SM4", "S2", 2, 2, {"dead channel": 2}),
        (None, None, 1, 1, {"silent": 1, "faint": 1}),
    ]
    assert names(health_report(world.engine, n_worst=2)) == ["silent", "dead2"]


def test_paths_and_limits_are_those_asked_for(world: World) -> None:
    found = health_report(world.engine, Question(paths=("site-S1",)))
    assert (found.n_measured, found.n_unmeasured, names(found)) == (3, 0, ["worse", "clipped"])
    limits = {"clipping": 0.1, "dead channel": 0.1, "DC offset": 1.0}
    found = health_report(world.engine, Question(paths=("*S1*", "*/dead2.wav")), limits)
    assert names(found) == ["dead2", "worse", "well"]
    assert health_report(world.engine, Question(paths=("nowhere",))).n_measured == 0
    with pytest.raises(DatabaseUserError):
        health_report(world.engine, Question(paths=("",)))


def test_the_view_says_it_in_words(world: World) -> None:
    about = "path, device, serial, clipped_share, channel_gap_db, troubles"
    with reading(world.engine) as conn:
        rows = [
            tuple(row) for row in conn.execute(text(f"SELECT {about} FROM health ORDER BY path"))
        ]
    assert rows == [
        ("/site-None/silent.wav", None, None, 0, None, "silent, faint"),
        ("/site-S1/clipped.wav", "SM4", "S1", 0.02, None, "clipping"),
        ("/site-S1/well.wav", "SM4", "S1", 0, 0.5, ""),
        ("/site-S1/worse.wav", "SM4", "S1", 0.3, 0.5, "clipping, DC offset"),
        ("/site-S2/dead1.wav", "SM4", "S2", 0, 31, "dead channel"),
        ("/site-S2/dead2.wav", "SM4", "S2", 0, 60, "dead channel"),
    ]


def test_what_was_not_measured_is_added_with_its_remarks_once(world: World) -> None:
    engine = world.engine
    (row,) = [row for page in clips_without_health(engine, with_loudness=False) for row in page]
    assert row.sha256 == sha("before")
    remarks = [Remark("clipping", "2 % of the samples"), Remark("DC offset", "3 %")]
    for health in (replace(WELL, clipped_share=0.02), replace(MONO, clipped_share=0.02)):
        add_health(engine, row.id, health, remarks)
        assert clip_by_ref(engine, sha("before")).remarks == tuple(remarks)
    stored = clip_by_ref(engine, sha("before")).clip.health
    assert stored == replace(MONO, clipped_share=0.02, loudness_lufs=-38)  # a loudness is kept
    assert list(clips_without_health(engine, with_loudness=False)) == []
    left = [row.sha256 for page in clips_without_health(engine, with_loudness=True) for row in page]
    assert sorted(left) == sorted([sha("clipped"), sha("silent")])
    with writing(engine) as conn:
        for table in (labelling_remarks, labellings, sources, clips):
            conn.execute(delete(table))
        assert conn.execute(select(clip_health)).all() == []
