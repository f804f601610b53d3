from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, insert, or_, select, text

from audioset_core.records import Detection
from db.catalog.model_registry import register_parameters
from db.catalog.start_times import SourceTime, store_times
from db.engine import reading, writing
from db.errors import DatabaseUserError
from db.ledger.claims import claim_clip, commit_labellings, record_failures
from db.query.ambiguous_classes import SOURCE_AMBIGUOUS_MID
from db.query.answers import with_details
from db.query.current_labelling import represents_clip
from db.query.question import Question
from db.query.statements import found_query, kth_peak_query
from db.query.subtrees import Subtree
from db.records import Claim, Failure, Lease, Parameters
from db.reports.clip import clip_by_ref, corpus_summary, failures, prediction_rows
from db.reports.model_coverage import score_floor
from db.schema.base import metadata
from db.schema.tables import categories, clip_scores, clips, labellings, nodes
from db.types import path_digest
from tests.db.build import (
    INDEX,
    LEASE_S,
    MODEL,
    NOW,
    RUN,
    World,
    clip,
    closure_of,
    enrolled,
    labelled,
    labelling,
    make_world,
    other_variant,
    seen,
    sha,
    top_clips,
)


@pytest.fixture
def world(fresh_db: Engine) -> World:
    return make_world(fresh_db)


def _scores(hits) -> list[tuple[str, str, float]]:
    return [(hit.clip, hit.mid, hit.score) for hit in hits]


def test_a_hit_tells_where_to_listen(world: World) -> None:
    found = [
        Detection(INDEX["/d"], 0, 1, 0.5, 0.4, 1),
        Detection(INDEX["/d"], 10, 19, 0.9, 0.8, 12),
    ]
    labelled(world, "a", {"/b": 0.3, "/d": 0.9}, found, duration_s=9.7)
    enrolled(world, seen("/copy.wav"))
    (copy,) = enrolled(world, seen(b"/copy\xff.wav"))
    claim_clip(world.engine, copy.source_id, clip("a"), world.variant, Lease(RUN, LEASE_S, NOW))
    (hit,) = top_clips(world.engine, "/a")
    assert (hit.clip, hit.mid, hit.name, hit.score) == (sha("a"), "/d", "name /d", 0.9)
    assert (hit.path, hit.path_text, hit.n_sources) == (b"/audio/a.wav", "/audio/a.wav", 2)
    times = (hit.start_s, hit.peak_s, hit.end_s)
    assert times == pytest.approx((4.8, 5.76, 9.7))  # 19 * 0.48 + 0.96 lies past the end
    (sure,) = top_clips(world.engine, "/b", min_score=0.9)
    assert sure == hit
    assert top_clips(world.engine, "/b", min_score=0.91) == []


def test_not_under_leaves_clips_out(world: World) -> None:
    labelled(world, "plain", {"/b": 0.5})
    labelled(world, "mixed", {"/b": 0.9, "/e": 0.3})
    assert _scores(top_clips(world.engine, "/a", ["/e"])) == [(sha("plain"), "/b", 0.5)]
    assert _scores(top_clips(world.engine, "/a", ["/e"], min_score=0.4)) == [
        (sha("mixed"), "/b", 0.9),
        (sha("plain"), "/b", 0.5),
    ]
    assert _scores(top_clips(world.engine, "/a", ["/e"], limit=1)) == [(sha("plain"), "/b", 0.5)]
    assert top_clips(world.engine, "/a", ["/a"]) == []


def test_ties_are_in_the_order_of_clip_ids(world: World) -> None:
    names = [f"clip{number}" for number in range(6)]
    for name in names:
        labelled(world, name, {"/c": 0.5, "/b": 0.5})
    expected = [(clip_id, "/b", 0.5) for clip_id in sorted(map(sha, names))]
    assert _scores(top_clips(world.engine, "/a", limit=4)) == expected[:4]


def test_current_and_named_models(world: World) -> None:
    claim = labelled(world, "a", {"/b": 0.5})
    other = replace(MODEL, name="other", weights_sha256="c" * 64)
    second = other_variant(world, other)
    newer = claim_clip(world.engine, claim.source_id, clip("a"), second, Lease(RUN, LEASE_S, NOW))
    assert isinstance(newer, Claim)
    later = NOW + timedelta(hours=1)
    commit_labellings(world.engine, second, [labelling(newer, "a", {"/c": 0.4})], RUN, later)
    assert _scores(top_clips(world.engine, "/a")) == [(sha("a"), "/c", 0.4)]
    assert _scores(top_clips(world.engine, "/a", model="tiny")) == [(sha("a"), "/b", 0.5)]
    assert _scores(top_clips(world.engine, "/a", model="other")) == [(sha("a"), "/c", 0.4)]
    # A newer version of the same model speaks for it.
    third = other_variant(world, replace(MODEL, version="9", weights_sha256="d" * 64))
    newest = claim_clip(world.engine, claim.source_id, clip("a"), third, Lease(RUN, LEASE_S, NOW))
    assert isinstance(newest, Claim)
    commit_labellings(world.engine, third, [labelling(newest, "a", {"/d": 0.2})], RUN, later)
    assert _scores(top_clips(world.engine, "/a", model="tiny")) == [(sha("a"), "/d", 0.2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"under": "/nope"}, "no node '/nope'"),
        ({"under": "/a", "not_under": ["/nope"]}, "no node '/nope'"),
        ({"under": "/f"}, "no model here predicts /f"),
        ({"under": "/a", "min_score": 0.01}, "scores below 0.05 are not stored"),
        ({"under": "/a", "min_score": 2.0}, "2.0 is not in"),
        ({"under": "/a", "min_score": float("nan")}, "nan is not in"),
        ({"under": "/a", "limit": 0}, "limit 0"),
        ({"under": "/a", "model": "x'; --"}, "known models: tiny"),
    ],
)
def test_questions_that_cannot_be_answered_say_so(
    fresh_db: Engine, arguments: dict[str, object], message: str
) -> None:
    labelled(make_world(fresh_db, ("/a", "/b", "/c", "/d", "/e", "/f")), "a", {"/b": 0.5})
    with pytest.raises(DatabaseUserError, match=message):
        top_clips(fresh_db, **arguments)  # type: ignore[arg-type]


def test_a_question_before_the_first_label_says_so(fresh_db: Engine) -> None:
    """A run that found no weights has made the database, but stored no ontology."""
    with pytest.raises(DatabaseUserError, match="nothing is labelled yet"):
        top_clips(fresh_db, "/a")


def test_the_floor_is_the_highest_in_use(world: World) -> None:
    assert score_floor(world.engine) == 0.0
    labelled(world, "a", {"/b": 0.5})
    assert score_floor(world.engine) == 0.05
    parameter_set_id = register_parameters(world.engine, Parameters(0.48, 0.3, 0.5))
    high = replace(world, variant=replace(world.variant, parameter_set_id=parameter_set_id))
    assert score_floor(world.engine, "tiny") == 0.05
    labelled(high, "b", {"/b": 0.5})
    assert score_floor(world.engine) == 0.3


@pytest.mark.past_ledger
def test_an_ambiguous_sound_counts_only_in_company(fresh_db: Engine) -> None:
    """Hiss is below Cat, Steam and the ambiguous sounds: a chainsaw's hiss makes no cat."""
    mids = (SOURCE_AMBIGUOUS_MID, "/cat", "/purr", "/hiss", "/steam")
    edges = [("/cat", "/purr"), ("/cat", "/hiss"), ("/steam", "/hiss")]
    edges.append((SOURCE_AMBIGUOUS_MID, "/hiss"))
    model = replace(MODEL, categories=tuple((i, mid, mid) for i, mid in enumerate(mids[1:])))
    world = make_world(fresh_db, mids, edges, model)
    _insert_corpus(
        world,
        [
            ({"/hiss": 0.9, "/steam": 0.5}, True),
            ({"/hiss": 0.8, "/purr": 0.1}, True),
            ({"/hiss": 0.7}, True),
        ],
    )
    chainsaw, cat, nobody = sha("0"), sha("1"), sha("2")
    assert _scores(top_clips(fresh_db, "/cat")) == [(cat, "/hiss", 0.8)]
    assert _scores(top_clips(fresh_db, "/cat", limit=1)) == [(cat, "/hiss", 0.8)]
    assert _scores(top_clips(fresh_db, "/steam")) == [(chainsaw, "/hiss", 0.9)]
    everything = [(chainsaw, "/hiss", 0.9), (cat, "/hiss", 0.8), (nobody, "/hiss", 0.7)]
    assert _scores(top_clips(fresh_db, "/hiss")) == everything
    assert _scores(top_clips(fresh_db, SOURCE_AMBIGUOUS_MID)) == everything
    assert _scores(top_clips(fresh_db, "/cat", with_ambiguous=True)) == everything


SIZE = 6
# One of them is AudioSet's own node of source-ambiguous sounds.
NAMES = tuple(f"/n{n}" if n != 1 else SOURCE_AMBIGUOUS_MID for n in range(SIZE))
# Edges go from lower to higher numbers: never a cycle, often several parents.
EDGE_SETS = st.sets(
    st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)).filter(lambda e: e[0] < e[1])
)
PEAKS = st.sampled_from([0.05, 0.3, 0.3, 0.5, 0.7, 1.0])  # few values: many ties
CLIPS = st.lists(
    st.tuples(st.dictionaries(st.sampled_from(NAMES), PEAKS), st.booleans()), max_size=12
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    edges=EDGE_SETS,
    corpus=CLIPS,
    excluded=st.sets(st.sampled_from(NAMES), max_size=2),
    min_score=st.sampled_from([0.0, 0.05, 0.3, 0.6]),
    limit=st.sampled_from([1, 2, 3, 100, None]),
    with_ambiguous=st.booleans(),
)
@pytest.mark.slow
@pytest.mark.past_ledger
def test_top_clips_equals_brute_force(
    fresh_db: Engine, edges, corpus, excluded, min_score, limit, with_ambiguous
) -> None:
    with writing(fresh_db) as conn:
        for table in reversed(metadata.sorted_tables):
            conn.execute(delete(table))
    pairs = [(NAMES[parent], NAMES[child]) for parent, child in sorted(edges)]
    model = replace(MODEL, categories=tuple((i, mid, mid) for i, mid in enumerate(NAMES)))
    world = make_world(fresh_db, NAMES, pairs, model)
    _insert_corpus(world, corpus)
    below: dict[str, set[str]] = {name: set() for name in NAMES}
    for ancestor, descendant, _ in closure_of(NAMES, pairs):
        below[ancestor].add(descendant)
    for root in NAMES[:3]:
        expected = []
        unclear = below[SOURCE_AMBIGUOUS_MID]
        if with_ambiguous or root in unclear:
            unclear = set()
        for number, (peaks, is_current) in enumerate(corpus):
            inside = {mid: p for mid, p in peaks.items() if mid in below[root]}
            if inside.keys() <= unclear:
                inside = {}
            banned = any(
                p >= min_score for mid, p in peaks.items() if any(mid in below[e] for e in excluded)
            )
            if is_current and inside and max(inside.values()) >= min_score and not banned:
                best = max(inside.values())
                mid = min((m for m, p in inside.items() if p == best), key=NAMES.index)
                expected.append((sha(str(number)), mid, best))
        expected.sort(key=lambda hit: (-hit[2], hit[0]))
        hits = top_clips(
            fresh_db,
            root,
            sorted(excluded),
            min_score=min_score,
            limit=limit,
            with_ambiguous=with_ambiguous,
        )
        assert _scores(hits) == expected[:limit]


def _insert_corpus(world: World, corpus) -> None:
    """Rows straight into the tables; a labelling that is not current must not count."""
    with writing(world.engine) as conn:
        ids = {row.mid: row.id for row in conn.execute(select(nodes.c.mid, nodes.c.id))}
        for number, (peaks, is_current) in enumerate(corpus):
            row = {"sha256": sha(str(number)), "size_bytes": 1, "duration_s": 1.0, "format": "wav"}
            row |= {"sample_rate_hz": 1, "n_channels": 1, "n_samples": 1, "first_seen_at": NOW}
            clip_id = conn.execute(insert(clips).returning(clips.c.id), row).scalar_one()
            done = {"clip_id": clip_id, "model_id": world.variant.model_id, "status": "done"}
            done |= {"parameter_set_id": world.variant.parameter_set_id, "token": 1}
            done |= {"is_current": is_current, "labelled_at": NOW}
            statement = insert(labellings).returning(labellings.c.id)
            labelling_id = conn.execute(statement, done).scalar_one()
            rows = [
                {"labelling_id": labelling_id, "node_id": ids[mid], "peak": peak, "mean": peak}
                for mid, peak in peaks.items()
            ]
            if rows:
                conn.execute(insert(clip_scores), rows)


@pytest.mark.parametrize("taught", [[], [[2, 3], [4]]])
def test_the_top_query_seeks_in_the_covering_index(world: World, taught: list[list[int]]) -> None:
    if world.engine.dialect.name != "sqlite":
        pytest.skip("the plan is SQLite's; PostgreSQL reads a small table whole")
    tree = Subtree((1, 2, 3))
    current = or_(represents_clip(None), *map(represents_clip, taught))
    index = "USING COVERING INDEX ix_clip_scores_node_id_peak_labelling_id (node_id=? AND peak>?)"
    best = with_details(found_query(tree, 0.5, current).subquery(), Question(under=("/a",)))
    for statement in (
        kth_peak_query(tree, 0.1, 100),
        best,
    ):
        compiled = statement.compile(world.engine, compile_kwargs={"literal_binds": True})
        with reading(world.engine) as conn:
            plan = [row[3] for row in conn.execute(text(f"EXPLAIN QUERY PLAN {compiled}"))]
        assert sum(index in line for line in plan) == 1
        scanned = {line.split()[1] for line in plan if line.startswith("SCAN")}
        assert not scanned & set(metadata.tables)


def test_a_clip_is_found_by_prefix_and_by_path(world: World) -> None:
    path = b"/it's \xff%s\n.wav"
    (item,) = enrolled(world, seen(path, user_id="u1", meta={"k": 1}))
    claim = claim_clip(
        world.engine, item.source_id, clip("a"), world.variant, Lease(RUN, LEASE_S, NOW)
    )
    assert isinstance(claim, Claim)
    found = Detection(INDEX["/b"], 2, 4, 0.6, 0.5, 3)
    row = labelling(claim, "a", {"/b": 0.6, "/c": 0.7}, [found])
    commit_labellings(world.engine, world.variant, [row], RUN, NOW)
    report = clip_by_ref(world.engine, path)
    assert report == clip_by_ref(world.engine, sha("a")[:6].upper())
    assert report.clip == clip("a")
    (source,) = report.sources
    assert (source.path, source.user_id, source.meta) == (path, "u1", {"k": 1})
    assert source.path_text == "/it's \\xff%s\\x0a.wav"
    assert [(label.mid, label.peak) for label in report.labels] == [("/c", 0.7), ("/b", 0.6)]
    (interval,) = report.detections
    times = (interval.start_s, interval.peak_s, interval.end_s)
    assert times == pytest.approx((0.96, 1.44, 2.88))
    (made,) = report.labellings
    assert (made.model, made.is_current, made.n_patches) == ("tiny", True, 20)


def test_references_that_fit_nothing_or_too_much(world: World) -> None:
    with writing(world.engine) as conn:
        for tail in "012345":
            row = {"sha256": "abcdef" + tail * 58, "size_bytes": 1, "duration_s": 1.0}
            row |= {"sample_rate_hz": 1, "n_channels": 1, "n_samples": 1, "format": "wav"}
            conn.execute(insert(clips), row | {"first_seen_at": NOW})
    for ref, message in (
        ("abcdef", r"several clip ids begin with 'abcdef': abcdef000000, .*, \.\.\."),
        ("abc", "not a clip id: give 6 to 64 hex digits"),
        ("abc%ef_", "not a clip id"),
        ("123456", "no clip id begins with"),
        (b"/nowhere", "no file '/nowhere' has been seen"),
    ):
        with pytest.raises(DatabaseUserError, match=message):
            clip_by_ref(world.engine, ref)
    (pending, failed) = enrolled(world, seen("/pending"), seen("/failed"))
    record_failures(world.engine, [Failure(failed.source_id, "truncated", "at 3 s")], NOW)
    with pytest.raises(DatabaseUserError, match="has not been read yet"):
        clip_by_ref(world.engine, pending.path)
    with pytest.raises(DatabaseUserError, match=r"was not labelled: truncated \(at 3 s\)"):
        clip_by_ref(world.engine, failed.path)


def test_failures_and_summary(world: World) -> None:
    empty = corpus_summary(world.engine)
    assert (empty.n_clips, empty.hours, empty.n_sources) == (0, 0.0, 0)
    labelled(world, "a", {"/b": 0.5}, duration_s=1_800.0)
    items = enrolled(world, seen("/x"), seen("/y", user_id="u"), seen("/z"))
    record_failures(
        world.engine,
        [Failure(items[0].source_id, "truncated"), Failure(items[1].source_id, "empty", "0 bytes")],
        NOW,
    )
    reports = [(f.path_text, f.reason, f.reason_detail, f.user_id) for f in failures(world.engine)]
    assert reports == [("/y", "empty", "0 bytes", "u"), ("/x", "truncated", None, None)]
    assert len(failures(world.engine, limit=1)) == 1
    summary = corpus_summary(world.engine)
    assert (summary.n_clips, summary.n_labelled, summary.hours_labelled) == (1, 1, 0.5)
    assert summary.sources_by_status == {"failed": 2, "identified": 1, "pending": 1}


def test_prediction_rows_follow_annotations(world: World) -> None:
    labelled(world, "a", {"/b": 0.5})
    labelled(world, "b", {"/b": 0.5})
    copies = enrolled(world, seen("/u1", user_id="u1"), seen("/u2", meta={"k": 2}), seen("/plain"))
    for item in copies:
        claim_clip(world.engine, item.source_id, clip("b"), world.variant, Lease(RUN, LEASE_S, NOW))
    rows = [
        (row.clip, row.user_id, row.path_text, row.meta) for row in prediction_rows(world.engine)
    ]
    expected = [
        (sha("a"), None, "/audio/a.wav", None),
        (sha("b"), "u1", "/u1", None),
        (sha("b"), None, "/u2", {"k": 2}),
    ]
    assert sorted(rows[:], key=expected.index) == expected
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    first = next(iter(prediction_rows(world.engine, "tiny")))
    assert (first.model, first.model_version, first.n_patches) == ("tiny", "1", 20)
    assert first.scores_path is not None
    assert first.patch_hop_s == 0.48
    with pytest.raises(DatabaseUserError, match="known models"):
        next(prediction_rows(world.engine, "absent"))


def test_views_give_the_right_numbers(world: World) -> None:
    claim = labelled(world, "a", {"/b": 0.9}, now=NOW)
    newer = replace(world, variant=other_variant(world))
    again = claim_clip(
        world.engine, claim.source_id, clip("a"), newer.variant, Lease(RUN, LEASE_S, NOW)
    )
    assert isinstance(again, Claim)
    found = [
        Detection(INDEX["/d"], 0, 1, 0.5, 0.4, 1),
        Detection(INDEX["/d"], 10, 19, 0.9876, 0.8, 12),
    ]
    row = labelling(again, "a", {"/d": 0.9876, "/e": 0.1}, found)
    commit_labellings(world.engine, newer.variant, [row], RUN, NOW + timedelta(hours=1))
    (item,) = enrolled(world, seen("/bad", mtime=1_500_000_000))
    record_failures(world.engine, [Failure(item.source_id, "empty", "0 bytes")], NOW)

    def view(name: str, columns: str) -> list[tuple[object, ...]]:
        with reading(world.engine) as conn:
            query = text(f"SELECT {columns} FROM {name} ORDER BY {columns}")
            return [tuple(row) for row in conn.execute(query)]

    assert view("labels", "clip, duration_s, mid, name, peak, mean, model, model_version") == [
        (sha("a"), 10.0, "/d", "name /d", 0.9876, 0.4938, "tiny", "2"),
        (sha("a"), 10.0, "/e", "name /e", 0.1, 0.05, "tiny", "2"),
    ]
    subtree = view("subtree_labels", "ancestor_mid, ancestor_name, clip, mid, name, peak")
    assert [(row[0], row[3]) for row in subtree] == [
        ("/a", "/d"),
        ("/b", "/d"),
        ("/c", "/d"),
        ("/d", "/d"),
        ("/e", "/e"),
    ]
    times = view("detection_times", "start_s, end_s, peak_s, peak, clip, mid, name, model")
    assert times[0][:4] == pytest.approx((0.0, 1.44, 0.48, 0.5))
    assert times[1][:4] == pytest.approx((4.8, 10.0, 5.76, 0.9876))
    (hours,) = view("class_hours", "mid, name, n_clips, hours")
    assert hours[:3] == ("/d", "name /d", 1)
    assert hours[3] == pytest.approx((1.44 + 5.2) / 3600)
    heard = view("sound_times", "path, clip, mid, start_s, end_s, peak, heard_unix_s, heard_hour")
    assert [row[:3] for row in heard] == [("/audio/a.wav", sha("a"), "/d")] * 2
    began_ms = 1_716_069_540_000  # 2024-05-18 21:59 UTC, where clocks are two hours ahead
    place = SourceTime(path_digest(b"/audio/a.wav"), began_ms, 7_200, "name")
    store_times(world.engine, [place])
    (_, late) = view("sound_times", "start_s, heard_unix_s, heard_hour")
    assert late == (pytest.approx(4.8), began_ms / 1_000 + 4.8, 23)
    known = view("clip_sources", "path, recorded_unix_s, recorded_utc_offset_s, recorded_by")
    assert known[0] == ("/audio/a.wav", began_ms / 1_000, 7_200, "name")
    columns = "path, clip, status, reason, reason_detail, user_id, size_bytes, modified_unix_s"
    listed = view("clip_sources", columns)
    assert listed[0][:3] == ("/audio/a.wav", sha("a"), "identified")
    assert listed[1] == ("/bad", None, "failed", "empty", "0 bytes", None, 1_000, 1.5)
    assert view("failures", "path, reason, reason_detail, size_bytes") == [
        ("/bad", "empty", "0 bytes", 1_000)
    ]


def test_class_hours_count_no_moment_twice(world: World) -> None:
    near = [Detection(INDEX["/b"], start, start, 0.5, 0.5, start) for start in (0, 1, 5)]
    labelled(world, "a", {"/b": 0.5}, near)
    with reading(world.engine) as conn:
        (row,) = conn.execute(text("SELECT name, n_clips, hours FROM class_hours"))
    assert tuple(row) == ("name /b", 1, pytest.approx((1.44 + 0.96) / 3600))


def test_categories_point_to_nodes(world: World) -> None:
    query = select(categories.c.idx, nodes.c.mid).join(nodes, nodes.c.id == categories.c.node_id)
    with reading(world.engine) as conn:
        assert {row.idx: row.mid for row in conn.execute(query)} == dict(enumerate(INDEX))
