"""Power cuts: every subset of what was not synced, at every moment, with commits lost or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.cuts import Recording, cut_everywhere, record, recover
from tests.crash.mutants import MUTANTS
from tests.crash.test_kills import CAUGHT_BY_KILLS, CAUGHT_BY_STALLS

# A row that points to a missing or wrong file, on some disk.
CAUGHT_AT_ONCE = (
    "no fsync of the file", "no fsync of the folder", "no fsync of a new folder's parent",
    "rename before fsync", "np.save to the final name", "written in place, synced",
    "commit before the file", "split transactions",
)  # fmt: skip
# The rows are right, but the next run does not bring what an undisturbed one would.
CAUGHT_BY_RUNNING_AGAIN = ("a reboot is not seen", "dead runs are not seen")
EVERY = 16


@pytest.fixture
def recording(tmp_path: Path, template: Path) -> Recording:
    return record(tmp_path, template, None)


@pytest.mark.parametrize("may_lose_commits", [False, True])
def test_no_row_points_to_a_missing_or_wrong_file(
    recording: Recording, may_lose_commits: bool
) -> None:
    told = cut_everywhere(recording, may_lose_commits=may_lose_commits, only_first=False)
    print(
        f"\n{told.n_cuts} cuts, {len(told.cuts)} different disks, {len(recording.ops)} operations"
    )
    assert told.violations == []
    assert len(told.cuts) > 40
    # The enumeration is no formality: disks with torn, empty and renamed files are among them.
    trees = [cut.tree for cut in told.cuts]
    whole = {data for tree in trees for path, data in tree.items() if path.endswith(".npy")}
    temporary = {data for tree in trees for path, data in tree.items() if path.endswith(".tmp")}
    assert any(len(data) == 0 for data in temporary)
    assert any(data and set(data) == {0} for data in temporary)
    assert temporary > whole


@pytest.mark.parametrize(
    "every", [pytest.param(EVERY, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
def test_the_next_run_ends_as_an_undisturbed_one(
    tmp_path: Path, recording: Recording, every: int
) -> None:
    told = cut_everywhere(recording, may_lose_commits=True, only_first=False)
    wrong = [recover(tmp_path, recording, cut, None) for cut in told.cuts[::every]]
    assert wrong == [[]] * len(wrong)


@pytest.mark.parametrize("mutant", CAUGHT_AT_ONCE)
def test_power_cuts_show_the_mutant(tmp_path: Path, template: Path, mutant: str) -> None:
    recording = record(tmp_path, template, mutant)
    told = cut_everywhere(recording, may_lose_commits=True, only_first=True)
    assert told.violations != []


@pytest.mark.parametrize("mutant", CAUGHT_BY_RUNNING_AGAIN)
def test_running_again_shows_the_mutant(tmp_path: Path, template: Path, mutant: str) -> None:
    recording = record(tmp_path, template, mutant)
    told = cut_everywhere(recording, may_lose_commits=True, only_first=False)
    assert told.violations == []
    assert any(recover(tmp_path, recording, cut, mutant) for cut in told.cuts)


def test_every_mutant_is_somebodys_prey() -> None:
    caught = {*CAUGHT_BY_KILLS, *CAUGHT_BY_STALLS, *CAUGHT_AT_ONCE, *CAUGHT_BY_RUNNING_AGAIN}
    assert caught == set(MUTANTS)
