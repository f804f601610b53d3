"""SIGKILL at every step, or a sleep until the lease is over: tables and files as if undisturbed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.crash import workload
from tests.crash.conftest import kill
from tests.crash.kills import Place
from tests.crash.stalls import stall_everywhere

# For each mutant, the steps at which a kill shows it.
CAUGHT_BY_KILLS: dict[str, list[str]] = {
    "commit before the file": ["commit", "replace"],
    "split transactions": ["commit"],
    "written in place, synced": ["write"],
    "dead runs are not seen": ["replace"],
    "temporary files are numbered": ["replace"],
}
CAUGHT_BY_STALLS = ("token not checked", "select, then insert")
WHOLE_PROTOCOL = {
    "mkdir", "open", "write", "half a write", "fsync file", "replace", "fsync folder", "commit",
    "sql SELECT", "sql INSERT", "sql UPDATE", "sql DELETE",
}  # fmt: skip


@pytest.fixture(scope="module")
def few_kills(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """By mutant, what killing at its telling steps shows; None is the protocol as it is."""
    home = tmp_path_factory.mktemp("few-kills")
    place = Place(f"sqlite:///{home / 'labels.db'}", template, home)
    jobs = [(None, ["replace", "commit"]), *CAUGHT_BY_KILLS.items()]
    return {told["mutant"]: told for told in kill(place, jobs)}


def test_killed_at_the_telling_steps_nothing_differs(few_kills: dict[Any, Any]) -> None:
    told = few_kills[None]
    assert told["violations"] == []
    assert set(told["kinds"]) == {"replace", "commit"}
    assert told["kinds"]["replace"] == workload.N_LABELLINGS


@pytest.mark.parametrize("mutant", CAUGHT_BY_KILLS)
def test_kills_show_the_mutant(few_kills: dict[Any, Any], mutant: str) -> None:
    assert few_kills[mutant]["violations"] != []


@pytest.mark.slow
def test_killed_at_every_step_nothing_differs(place: Place) -> None:
    (told,) = kill(place, [(None, None)])
    print(f"\n{told['n_kills']} kills: {told['kinds']}")
    assert told["violations"] == []
    assert set(told["kinds"]) >= WHOLE_PROTOCOL
    assert told["n_kills"] > 100


@pytest.mark.parametrize(
    "every", [pytest.param(8, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
def test_whoever_sleeps_through_its_lease_changes_nothing(place: Place, every: int) -> None:
    told = stall_everywhere(place, None, every)
    print(f"\n{told.n_stalls} stalls")
    assert told.violations == []
    assert told.n_stalls * every > 30


@pytest.mark.parametrize("mutant", CAUGHT_BY_STALLS)
def test_stalls_show_the_mutant(place: Place, mutant: str) -> None:
    assert stall_everywhere(place, mutant).violations != []
