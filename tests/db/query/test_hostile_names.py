"""Whatever a name holds, it reaches SQL as a value: it comes back as it went in."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select

from audioset_core.records import Node
from db.catalog.model_registry import register_model
from db.catalog.ontology import load_ontology
from db.catalog.sources import update_annotations
from db.errors import DatabaseUserError
from db.ledger.claims import claim_clip, commit_labellings, record_failures
from db.records import Claim, Failure, Lease, Variant
from db.reports.clip import clip_by_ref, failures
from db.schema.tables import categories, labellings, nodes, sources
from tests.db.build import (
    LEASE_S,
    MODEL,
    NOW,
    RUN,
    World,
    clip,
    enrolled,
    labelling,
    make_world,
    seen,
    sha,
    top_clips,
)  # fmt: skip

ATTACKS = (
    "'; DROP TABLE sources; --", '" OR "1"="1', "x') ON CONFLICT DO NOTHING; DELETE FROM clips; --",
    ":path", "%s %(path)s {path} ?", "\\'; SELECT pg_sleep(1); --", "$$; DROP TABLE clips; $$",
    "a%", "_", "\r\n\t\x1b[2J", "\u202egnp.wav",
)  # fmt: skip
TEXTS = st.sampled_from(ATTACKS) | st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=30
)
PATHS = TEXTS.map(str.encode) | st.binary(min_size=1, max_size=30).map(
    lambda name: name.replace(b"\0", b"'")
)
_NUMBERS = count()


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20
)
@given(name=PATHS, user_id=TEXTS, key=TEXTS, value=TEXTS, text=TEXTS)
@example(ATTACKS[0].encode(), *[ATTACKS[0]] * 4)
def test_a_name_comes_back_as_it_went_in(
    fresh_db: Engine, name: bytes, user_id: str, key: str, value: str, text: str
) -> None:
    number = next(_NUMBERS)
    path = b"/%d/" % number + name
    meta = {key: [value, {value: key}]}
    if not _has_nodes(fresh_db):
        make_world(fresh_db)
    label = f"{number} {text}"
    model = replace(
        MODEL, name=label, version=text, weights_sha256=sha(label),
        categories=tuple((idx, mid, f"{idx} {text}") for idx, mid, _ in MODEL.categories),
    )  # fmt: skip
    variant = Variant(register_model(fresh_db, model, NOW), 1)
    world = World(fresh_db, variant)
    (item,) = enrolled(world, seen(path, user_id=user_id, meta=meta))
    assert item.path == path
    claim = claim_clip(fresh_db, item.source_id, clip(label), variant, Lease(RUN, LEASE_S, NOW))
    assert isinstance(claim, Claim)
    done = labelling(claim, label, {"/d": 0.9})
    assert commit_labellings(fresh_db, variant, [done], RUN, NOW) == [True]
    update_annotations(fresh_db, [seen(path, user_id=user_id, meta=meta)])

    with fresh_db.connect() as conn:
        row = conn.execute(select(sources).where(sources.c.id == item.source_id)).one()
        names = conn.execute(
            select(categories.c.name).where(categories.c.model_id == variant.model_id)
        ).scalars()
        assert sorted(names) == sorted(entry[2] for entry in model.categories)
        assert conn.execute(select(func.count()).select_from(labellings)).scalar_one() >= 1
    assert (row.path, row.user_id, row.meta) == (path, user_id, meta)
    found = clip_by_ref(fresh_db, path)
    assert found.clip.sha256 == sha(label)
    # A name with an @ means a model's version.
    if "@" not in label + text:
        hits = top_clips(fresh_db, "/a", model=f"{label}@{text}")
        assert [hit.clip for hit in hits] == [sha(label)]
    with pytest.raises(DatabaseUserError):
        top_clips(fresh_db, text)
    with suppress(DatabaseUserError):
        clip_by_ref(fresh_db, text)

    (bad,) = enrolled(world, seen(path + b"2"))
    record_failures(fresh_db, [Failure(bad.source_id, "damaged", text)], NOW)
    assert text in {failure.reason_detail for failure in failures(fresh_db)}


def test_nodes_of_any_name(fresh_db: Engine) -> None:
    mids = [f"/m/{number}" for number in range(len(ATTACKS))]
    load_ontology(
        fresh_db,
        [Node(mid, text) for mid, text in zip(mids, ATTACKS, strict=True)],
        [],
        [(mid, mid, 0) for mid in mids],
    )
    with fresh_db.connect() as conn:
        stored = {row.mid: row.name for row in conn.execute(select(nodes.c.mid, nodes.c.name))}
    assert stored == dict(zip(mids, ATTACKS, strict=True))


def _has_nodes(engine: Engine) -> bool:
    with engine.connect() as conn:
        return bool(conn.execute(select(func.count()).select_from(nodes)).scalar_one())
