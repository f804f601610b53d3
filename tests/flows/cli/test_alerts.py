"""`audioset alerts`: rules as people write and read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audioset_core.errors import UserError
from audioset_core.records import Site
from db.alerts.rules import AlertRule, stored_rules
from db.catalog.sites import change_sites
from db.query.question import Question
from flows.cli.alert_words import clean_name, find_rule, seconds
from tests.db.build import NOW
from tests.flows.collection import Collection, make_collection

Audioset = Callable[..., Any]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Collection]:
    collection = make_collection(tmp_path / "home", ("a.wav", "b.wav"))
    change_sites(collection.engine, lambda _: [Site("Pond", 52.5, 13.4)], NOW)
    yield collection
    collection.engine.dispose()


@pytest.mark.parametrize(
    "text", ["", " ", "_x", "gun*", "!gun", "gun/shot", "a\nb\u200b", "{{ gun }}", "x" * 61]
)
def test_no_name(text: str) -> None:
    with pytest.raises(UserError, match="up to 60 letters, digits"):
        clean_name(text)


def test_a_name_is_in_any_script_and_found_however_it_is_typed() -> None:
    assert [clean_name(name) for name in ("हाथी", "ปืน", " gun  shot-2.1 ")] == [
        "हाथी", "ปืน", "gun shot-2.1",
    ]  # fmt: skip
    rule = AlertRule(name=clean_name("Ka\u0308uzchen"), question=Question())
    assert rule.name == "K\u00e4uzchen"
    assert find_rule([rule], "KA\u0308UZCHEN ") is rule


def test_stretches_of_time() -> None:
    given = ("30min", "24 h", "7d", "0.5s", "2w", "any", "")
    assert [seconds("--x", text) for text in given] == [
        1_800.0, 86_400.0, 604_800.0, 0.5, 1_209_600.0, None, None,
    ]  # fmt: skip
    # A date so long ago does not exist, and would be looked for by every run.
    for text in ("999999d", "1" + "0" * 400 + "d", "0d", "-1d", "7", "d"):
        with pytest.raises(UserError, match="up to a hundred years"):
            seconds("--x", text)


@pytest.mark.slow
def test_a_rule_from_its_start_to_its_end(audioset: Audioset, made: Collection) -> None:
    at = ("--home", made.home)
    added = audioset(
        "alerts", "add", "dogs", "--under", "Dog", "--min-score", "0.8", "--site", "pond",
        "--between", "22:00", "05:00", "--at-most-one-per", "90min", *at,
    )  # fmt: skip
    said = "Dog at 0.8 or above, at Pond, 22:00 to 05:00; one per 90min, recorded within 7d"
    assert (added.code, added.out) == (0, f"dogs: {said}\n")
    assert "--notify names a block" in added.err
    changed = audioset(
        "alerts", "change", "DOGS", "--rename", "dog", "--site", "", "--between", "", "",
        "--at-most-one-per", "", "--first-in", "week", "--notify", "webhook/x",
        "--recorded-within", "any", *at,
    )  # fmt: skip
    assert changed.out == "dog: Dog at 0.8 or above; the first in each week, however old\n"
    (listed,) = json.loads(audioset("alerts", "list", "--json", *at).out)
    assert (listed["name"], listed["notify"], listed["n_found"]) == ("dog", "webhook/x", 0)
    audioset("alerts", "change", "dog", "--source", "./in", "--source", "*.wav", *at)
    (rule,) = stored_rules(made.engine)
    assert rule.question.paths == (str(Path.cwd() / "in"), "*.wav")
    audioset("alerts", "change", "dog", "--source", "", *at)
    tried = json.loads(audioset("alerts", "test", "dog", "--json", *at).out)
    states = [row["state"] for row in reversed(tried)]
    assert states == ["waiting"] + ["quiet"] * (len(tried) - 1)
    assert len(tried) > 1
    assert json.loads(audioset("alerts", "list", "--raised", "--json", *at).out) == []
    assert audioset("alerts", "remove", "dog", *at).out.startswith("dog: removed, with 0 sounds")
    assert stored_rules(made.engine) == []


@pytest.mark.slow
def test_what_cannot_be_heard(audioset: Audioset, made: Collection) -> None:
    at = ("--home", made.home)
    low = audioset("alerts", "add", "low", "--under", "Dog", "--min-score", "0.05", *at)
    assert (low.code, low.err.count("\n")) == (2, 1)
    assert "intervals below 0.1 are not stored" in low.err
    # It may be taught later.
    lute = audioset("alerts", "add", "lute", "--under", "Mandolin", *at)
    assert lute.code == 0
    assert lute.err.startswith("lute waits: yamnet cannot predict 'Mandolin'")
    audioset("alerts", "add", "pond", "--under", "Dog", "--site", "Pond", *at)
    again = audioset("alerts", "add", "Pond", "--under", "Dog", *at)
    assert (again.code, "there is an alert 'Pond' already" in again.err) == (2, True)
    audioset("sites", "remove", "Pond", *at)
    lost = audioset("alerts", "change", "pond", "--min-score", "0.9", *at)
    assert (lost.code, "a site of 'pond' was removed" in lost.err) == (2, True)
    assert audioset("alerts", "change", "pond", "--site", "", *at).code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say what to listen for: --under CLASS"),
        (("--under", "Gunshott"), "did you mean 'Gunshot, gunfire'"),
        (("--under", "Dog", "--site", "Pond"), "unknown site 'Pond': there are no sites yet"),
        (("--under", "Dog", "--first-in", "year"), "choose day, night, week, month"),
        (("--under", "Dog", "--at-most-one-per", "1 hour"), "such as 30min, 24h or 7d"),
        (("--under", "Dog", "--recorded-within", "0h"), "such as 30min, 24h or 7d"),
        (("--under", "Dog", "--notify", "rangers"), "write the block's type and name"),
        (("--under", "Dog", "--notify", "Slack Webhook/rangers"), "such as slack-webhook/rangers"),
        (("--under", "Dog", "--between", "2024-05-01", "2024-05-02"), "two times of day"),
        (("--under", "Dog", "--near", "95,0"), "95"),
        (("--under", "Dog", "--model", "yamnett"), "did you mean 'yamnet'"),
        (("--under", "Dog", "--recorded-within", "999999d"), "up to a hundred years"),
    ],
)
def test_a_mistake_is_one_line_and_makes_no_home(
    audioset: Audioset, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    said = audioset("alerts", "add", "x", *arguments, "--home", tmp_path / "home")
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "home").exists()
