"""Rules for alerts: each recording is asked for once, and what was heard is told once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, delete, func, select, text

from audioset_core.records import Detection, Site
from db.alerts import asked
from db.alerts.asked import Sound, ask_rules, try_rule, with_states
from db.alerts.raised import (
    best_waiting,
    counts_by_state,
    give_up_old,
    mark_summed,
    mark_told,
    raised_alerts,
    to_tell,
)
from db.alerts.rules import DAY_S, AlertRule, change_rules, stored_rules
from db.catalog.sites import change_sites, stored_sites
from db.catalog.start_times import SourceTime, store_times
from db.engine import reading, writing
from db.errors import ConnectionLostError
from db.judging.given import give_verdict
from db.judging.verdicts import Verdict
from db.ledger.claims import claim_known, commit_labellings
from db.query.question import Question
from db.query.time_spans import Span
from db.records import KnownClip, Lease
from db.schema.alert_tables import unasked_labellings
from db.schema.tables import labellings, sources
from db.types import path_digest
from tests.db.build import (
    INDEX,
    LEASE_S,
    NOW,
    RUN,
    World,
    labelled,
    labelling,
    make_world,
    other_variant,
    sha,
)

RULE = AlertRule(name="shot", question=Question(under=("/b",), min_score=0.5))
AT_MS = 1_714_000_000_000


@pytest.fixture
def world(fresh_db: Engine) -> World:
    return make_world(fresh_db)


def add(world: World, *rules: AlertRule) -> None:
    change_rules(world.engine, lambda before: [*before, *rules], NOW)


def heard(world: World, name: str, *patches: tuple[int, int], mid: str = "/b", score: float = 0.9):
    """A clip in which the class is heard from one patch to another, now."""
    found = [Detection(INDEX[mid], a, b, score, score, a) for a, b in patches]
    return labelled(world, name, {mid: score}, found)


def ask(world: World, now: datetime = NOW) -> dict[str, Counter[str]]:
    look_for_starts(world)
    return dict(ask_rules(world.engine, stored_rules(world.engine), now, {}).found)


def look_for_starts(world: World) -> None:
    """What every run does before it asks; here no start is found."""
    with writing(world.engine) as conn:
        untimed = sources.update().where(sources.c.recorded_by.is_(None))
        conn.execute(untimed.values(recorded_by="not found"))


def record(world: World, name: str, at: datetime, site: int | None = None, offset_s: int = 0):
    ms = round(at.timestamp() * 1_000)
    digest = path_digest(f"/audio/{name}.wav".encode())
    store_times(world.engine, [SourceTime(digest, ms, offset_s, "name", site, "folder")])


def n_unasked(world: World) -> int:
    with reading(world.engine) as conn:
        return int(conn.execute(select(func.count()).select_from(unasked_labellings)).scalar_one())


def spans(world: World) -> list[tuple[str, int, int, float]]:
    return sorted((a.clip, a.start_ms, a.end_ms, a.score) for a in raised_alerts(world.engine))


def test_a_rule_is_what_was_stated_whatever_happens_to_its_site(world: World) -> None:
    change_sites(world.engine, lambda _: [Site("Pond", 1, 2), Site("Wood", 3, 4)], NOW)
    question = Question(
        under=("/b", "/c"), min_score=0.8, min_duration_s=1.5, span=Span(1, 2, is_daily=True),
        paths=("x/*",), sun=("night",), sites=("Pond",), near=(52.5, 13.4, 1.0), model="tiny",
    )  # fmt: skip
    rule = replace(RULE, question=question, first_in="week", one_per_s=60.0, notify="webhook/x")
    add(world, rule)
    (stored,) = stored_rules(world.engine)
    assert stored == replace(rule, id=stored.id)

    def renamed(sites: Sequence[Site]) -> list[Site]:
        return [replace(s, name="Lake") if s.name == "Pond" else s for s in sites]

    change_sites(world.engine, renamed, NOW)
    assert stored_rules(world.engine)[0].question.sites == ("Lake",)
    change_sites(world.engine, lambda sites: [s for s in sites if s.name == "Wood"], NOW)
    assert stored_rules(world.engine)[0].lacks_site
    # The next site may get the id of the removed one.
    change_sites(world.engine, lambda sites: [], NOW)
    change_sites(world.engine, lambda _: [Site("Heath", 5, 6), Site("Moor", 7, 8)], NOW)
    (stored,) = stored_rules(world.engine)
    assert (stored.lacks_site, stored.question.sites) == (True, ())
    change_rules(world.engine, lambda _: [], NOW)
    assert stored_rules(world.engine) == []


def test_each_sound_is_raised_once_whatever_labels_it(world: World) -> None:
    heard(world, "before", (0, 1))
    assert n_unasked(world) == 0  # there is no rule
    add(world, RULE)
    # Classes below count; what touches is one sound; what is below the score is none.
    found = [
        Detection(INDEX["/b"], 0, 1, 0.6, 0.6, 0),
        Detection(INDEX["/d"], 2, 3, 0.9, 0.9, 2),
        Detection(INDEX["/b"], 9, 9, 0.7, 0.7, 9),
        Detection(INDEX["/b"], 15, 15, 0.4, 0.4, 15),
        Detection(INDEX["/e"], 18, 18, 0.9, 0.9, 18),
    ]
    claim = labelled(world, "a", {"/b": 0.7, "/d": 0.9, "/e": 0.9}, found)
    assert n_unasked(world) == 1
    assert ask(world) == {"shot": Counter(old=2)}  # a file of 1970
    first = [(sha("a"), 0, 2_400, 0.9), (sha("a"), 4_320, 5_280, 0.7)]
    assert spans(world) == first
    assert [a.mid for a in raised_alerts(world.engine)] == ["/b", "/d"]
    with reading(world.engine) as conn:
        view = conn.execute(text("SELECT * FROM sound_alerts ORDER BY start_s")).all()
    row = ("shot", "old", 0.9, "/d", "name /d", sha("a"), "/audio/a.wav", None, 0.0, 2.4)
    assert tuple(view[0])[:10] == row
    assert (n_unasked(world), ask(world)) == (0, {})
    # Another model hears the same a little longer, and one more.
    variant = other_variant(world)
    (again,) = claim_known(
        world.engine, [KnownClip(claim.clip_id, claim.sha256, claim.source_id)], variant,
        Lease(RUN, LEASE_S, NOW),
    )  # fmt: skip
    assert again is not None
    more = [Detection(INDEX["/b"], *x, 0.95, 0.9, x[0]) for x in ((1, 10), (15, 16))]
    commit_labellings(world.engine, variant, [labelling(again, "a", {"/b": 0.95}, more)], RUN, NOW)
    assert ask(world) == {"shot": Counter(old=1)}
    assert spans(world) == [*first, (sha("a"), 7_200, 8_640, 0.95)]


def test_what_ends_the_process_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    add(world, RULE, replace(RULE, name="shot too"))
    heard(world, "a", (0, 1))
    store = asked._store
    n_stored = 0

    def dies(*given: object) -> Counter[str]:
        nonlocal n_stored
        n_stored += 1
        if n_stored == 2:
            raise KeyboardInterrupt
        return store(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(asked, "_store", dies)
    with pytest.raises(KeyboardInterrupt):
        ask(world)
    monkeypatch.undo()
    assert (n_unasked(world), spans(world)) == (1, [])
    assert set(ask(world)) == {"shot", "shot too"}
    assert (n_unasked(world), len(spans(world))) == (0, 2)


def test_two_that_ask_at_once_raise_each_sound_once(world: World) -> None:
    add(world, replace(RULE, first_in="week", recorded_within_s=None))
    for n in range(6):
        heard(world, f"{n}", (0, 1))
    with ThreadPoolExecutor(4) as pool:
        found = [each for each in pool.map(lambda _: ask(world), range(4)) if each]
    assert sum((each["shot"] for each in found), Counter()) == {"waiting": 1, "quiet": 5}
    assert len(spans(world)) == 6


def test_a_rule_that_cannot_be_asked_holds_up_no_other(world: World) -> None:
    add(world, RULE, replace(RULE, name="low", question=Question(under=("/b",), min_score=0.1)))
    heard(world, "a", (0, 1))
    look_for_starts(world)
    result = ask_rules(world.engine, stored_rules(world.engine), NOW, {})
    assert list(result.problems) == ["low"]
    assert "intervals below 0.2 are not stored" in result.problems["low"]
    assert result.found == {"shot": Counter(old=1)}
    # One that was added meanwhile is asked next time, about the same.
    heard(world, "b", (0, 1))
    look_for_starts(world)
    assert ask_rules(world.engine, [], NOW, {}).found == {}
    assert n_unasked(world) == 1


def test_conditions_are_those_of_every_question(world: World) -> None:
    change_sites(world.engine, lambda _: [Site("Pond", 52.5, 13.4), Site("Wood", 50, 1)], NOW)
    pond, wood = (site.id for site in stored_sites(world.engine))
    by_night = Span(22 * 3_600_000, 4 * 3_600_000, is_daily=True)
    question = replace(RULE.question, sites=("Pond",), span=by_night)
    add(world, replace(RULE, question=question))
    for name, hour, site in (("a", 23, pond), ("b", 12, pond), ("c", 23, wood)):
        heard(world, name, (2, 3))
        record(world, name, datetime(2024, 4, 30, hour, tzinfo=UTC), site)
    assert ask(world) == {"shot": Counter(waiting=1)}
    (alert,) = raised_alerts(world.engine)
    assert (alert.clip, alert.site, alert.path) == (sha("a"), "Pond", "/audio/a.wav")
    assert alert.heard_at == datetime(2024, 4, 30, 23, 0, 0, 960_000, tzinfo=UTC)
    change_sites(world.engine, lambda _: [], NOW)
    change_sites(world.engine, lambda _: [Site("Heath", 5, 6), Site("Moor", 7, 8)], NOW)
    assert [a.site for a in raised_alerts(world.engine)] == [None]


def test_a_recording_is_asked_for_when_its_start_and_site_were_looked_for(world: World) -> None:
    """Labels may be committed after a run has looked, and before it asks."""
    change_sites(world.engine, lambda _: [Site("Pond", 52.5, 13.4)], NOW)
    (pond,) = (site.id for site in stored_sites(world.engine))
    add(world, replace(RULE, question=replace(RULE.question, sites=("Pond",))))
    heard(world, "a", (0, 1))
    rules = stored_rules(world.engine)
    assert ask_rules(world.engine, rules, NOW, {}).found == {}
    assert n_unasked(world) == 1
    record(world, "a", NOW, pond)
    assert ask_rules(world.engine, rules, NOW, {}).found == {"shot": Counter(waiting=1)}
    assert n_unasked(world) == 0


def _sound(at: str, site_id: int | None = 1, offset_h: int = 0) -> Sound:
    """Heard at a moment of the recorder's clock, which is so many hours ahead of UTC."""
    moment = datetime.fromisoformat(f"{at}+00:00") - timedelta(hours=offset_h)
    return Sound(1, 1, 0.9, 0, 1, moment, offset_h * 3_600, True, None, site_id)


@pytest.mark.parametrize(
    ("rule", "sounds", "states"),
    [
        # A week begins on Monday, by the recorder's clock, whatever its distance from UTC.
        ({"first_in": "week"}, [("2024-03-31T23:59", 1, 2), ("2024-04-01T00:00", 1, 2),
                                ("2024-04-07T23:59", 1, 2)], "waiting waiting quiet"),
        # The clocks go forward between the two: it is one day.
        ({"first_in": "day"}, [("2024-03-31T01:59", 1, 1), ("2024-03-31T03:00", 1, 2)],
         "waiting quiet"),
        # The hour that there is twice.
        ({"first_in": "day"}, [("2024-10-27T02:30", 1, 2), ("2024-10-27T02:30", 1, 1)],
         "waiting quiet"),
        ({"first_in": "night"}, [("2024-05-01T23:00", 1, 0), ("2024-05-02T11:59", 1, 0),
                                 ("2024-05-02T12:00", 1, 0)], "waiting quiet waiting"),
        ({"first_in": "month"}, [("2024-05-31T23:00", 1, 0), ("2024-06-01T00:00", 1, 0)],
         "waiting waiting"),
        # The year's last days may be of next year's first week.
        ({"first_in": "week"}, [("2024-12-30T10:00", 1, 0), ("2025-01-05T10:00", 1, 0)],
         "waiting quiet"),
        # Each site has its own; recordings without one are together.
        ({"first_in": "day"}, [("2024-05-01T01:00", 1, 0), ("2024-05-01T02:00", 2, 0),
                               ("2024-05-01T03:00", None, 0), ("2024-05-01T04:00", None, 0)],
         "waiting waiting waiting quiet"),
        # An hour after the last that was told, not after the last that was heard.
        ({"one_per_s": 3_600.0}, [("2024-05-01T01:00", 1, 0), ("2024-05-01T01:59", 1, 0),
                                  ("2024-05-01T02:00", 1, 0)], "waiting quiet waiting"),
    ],
)  # fmt: skip
def test_the_first_of_a_period_is_told(
    rule: dict[str, object], sounds: list[tuple[str, int | None, int]], states: str
) -> None:
    own = replace(RULE, recorded_within_s=None, **rule)  # type: ignore[arg-type]
    found = with_states(own, [_sound(*each) for each in sounds], (), NOW)
    assert [state for _, state in found] == states.split()


@pytest.mark.parametrize(
    ("at", "state"),
    [
        ("2024-05-01T00:59:59", "waiting"),
        ("2024-05-01T01:00:00", "waiting"),
        ("2024-05-01T01:00:01", "quiet"),
        ("2024-05-01T02:59:59", "quiet"),
        ("2024-05-01T03:00:00", "waiting"),
        ("2024-05-01T04:30:00", "quiet"),
    ],
)
def test_one_in_so_long_before_or_after_what_was_told(at: str, state: str) -> None:
    rule = replace(RULE, one_per_s=3_600.0, recorded_within_s=None)
    told = [_sound("2024-05-01T05:00"), _sound("2024-05-01T02:00"), _sound("2024-05-01T03:00", 2)]
    ((_, found),) = with_states(rule, [_sound(at)], told, NOW)
    assert found == state


def test_what_comes_late_is_kept_and_not_told(world: World) -> None:
    add(world, replace(RULE, first_in="week", recorded_within_s=DAY_S))
    for name, days_ago in (("new", 0.5), ("last year", 365.0), ("clock is ahead", -400.0)):
        heard(world, name, (0, 1))
        record(world, name, NOW - timedelta(days=days_ago))
    assert ask(world) == {"shot": Counter(waiting=2, old=1)}
    # One of the same week that comes with a later card, and of before.
    heard(world, "same week", (0, 1))
    record(world, "same week", NOW - timedelta(days=0.9))
    assert ask(world) == {"shot": Counter(quiet=1)}
    record(world, "same week", NOW - timedelta(days=0.9), offset_s=-5 * 3_600)
    tried = try_rule(world.engine, stored_rules(world.engine)[0], 2, NOW)
    assert tried[0][0].heard_at.isoformat() == "2024-04-30T09:24:00-05:00"
    assert [(name, state) for _, name, state in tried] == [
        ("name /b", "waiting"), ("name /b", "waiting"),
    ]  # fmt: skip
    # What has waited for a server for too long is not told either.
    give_up_old(world.engine, stored_rules(world.engine), NOW + timedelta(days=1))
    states = {(a.clip, a.state) for a in raised_alerts(world.engine)}
    assert states == {
        (sha("new"), "old"), (sha("last year"), "old"), (sha("clock is ahead"), "waiting"),
        (sha("same week"), "quiet"),
    }  # fmt: skip


def test_without_a_start_the_file_says_how_old_it_is(world: World) -> None:
    add(world, RULE)
    heard(world, "a", (0, 1))
    with writing(world.engine) as conn:
        fresh = round((NOW - timedelta(hours=1)).timestamp() * 1e9)
        conn.execute(sources.update().values(mtime_ns=fresh))
    assert ask(world) == {"shot": Counter(waiting=1)}
    (alert,) = raised_alerts(world.engine)
    assert not alert.is_timed
    assert alert.heard_at == NOW - timedelta(hours=1)


def test_what_people_judged_absent_is_not_told(world: World) -> None:
    add(world, replace(RULE, recorded_within_s=None, question=Question(under=("/a",))))
    heard(world, "a", (0, 1), (10, 11), mid="/d")
    said = Verdict(sha("a"), "/b", (0, 2_000), "absent", "ann", NOW, "1")
    assert give_verdict(world.engine, said, NOW)  # /d is below /b
    assert ask(world) == {"shot": Counter(waiting=1, judged=1)}


def test_so_many_are_told_and_the_rest_is_counted(world: World) -> None:
    rule = replace(RULE, recorded_within_s=None)
    add(world, rule, replace(rule, name="other", question=Question(under=("/c",))))
    for n in range(4):
        heard(world, f"{n}", (0, 1), score=0.5 + n / 10)
    heard(world, "x", (0, 1), mid="/c")
    ask(world)

    def told(since: datetime = NOW) -> list[tuple[str, float]]:
        some = to_tell(world.engine, since, 2)
        mark_told(world.engine, some, NOW)
        return [(alert.rule, alert.score) for alert in some]

    assert told() == [("other", 0.9), ("shot", 0.8), ("shot", 0.7)]
    assert told() == []
    ((best, n_waiting, last_id),) = best_waiting(world.engine)
    assert (best.score, n_waiting) == (0.6, 2)
    # What is raised while it is told is not counted.
    heard(world, "late", (0, 1))
    ask(world)
    mark_summed(world.engine, best.rule_id, last_id, NOW)
    assert {state for (_, state), _ in counts_by_state(world.engine).items()} == {
        "told", "summed", "waiting",
    }  # fmt: skip
    assert told(NOW + timedelta(seconds=1)) == [("shot", 0.9)]
    assert best_waiting(world.engine) == []


def test_a_lost_connection_counts_nothing_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(world, RULE, replace(RULE, name="too"))
    heard(world, "a", (0, 1))
    store, n_stored = asked._store, 0

    def breaks_off(*given: object) -> Counter[str]:
        nonlocal n_stored
        n_stored += 1
        if n_stored == 2:
            raise ConnectionLostError("gone")
        return store(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(asked, "_store", breaks_off)
    assert ask(world) == {"shot": Counter(old=1), "too": Counter(old=1)}


@pytest.mark.past_ledger
def test_what_is_removed_takes_its_alerts_along(world: World) -> None:
    add(world, RULE, replace(RULE, name="other"))
    heard(world, "a", (0, 1))
    ask(world)
    heard(world, "b", (0, 1))
    change_rules(world.engine, lambda rules: [r for r in rules if r.name == "other"], NOW)
    assert [a.rule for a in raised_alerts(world.engine)] == ["other"]
    with writing(world.engine) as conn:  # a repair may remove a labelling before it is asked for
        conn.execute(delete(labellings).where(labellings.c.status == "done"))
    assert n_unasked(world) == 0
