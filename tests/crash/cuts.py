"""Cuts the power after every operation, and looks at every disk that may be left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from flows.run import live_runs as run_ledger
from tests.crash import workload
from tests.crash.mutants import changed, mutated
from tests.crash.power import Disk, Op, Recorder, Tree, tree_key
from tests.crash.steps import handled


@dataclass(slots=True)
class Recording:
    """What a run asked of the disk, and the database after each commit."""

    ops: list[Op]
    commits: list[tuple[int, bytes]]
    """The first is the empty database, before any operation."""
    states: list[workload.State]
    """What the tables say after each commit; of the files they say nothing."""
    undisturbed: workload.State


@dataclass(frozen=True, slots=True)
class Cut:
    """One disk after one power cut: a database and the files beside it."""

    n_ops: int
    commit: int
    tree: Tree


@dataclass(slots=True)
class Told:
    """What came of it."""

    n_cuts: int = 0
    """(moment, disk) pairs, before equal disks are counted once."""
    cuts: list[Cut] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


def record(folder: Path, template: Path, mutant: str | None) -> Recording:
    """Run the workload once, in `folder`."""
    database = folder / "labels.db"
    url = f"sqlite:///{database}"
    workload.reset(url, template)
    recorder = Recorder(folder, database)
    recorder.commits.append((0, template.read_bytes()))
    with ExitStack() as stack:
        stack.enter_context(handled(recorder))
        stack.enter_context(mutated(mutant))
        workload.work(url, folder)
        recorder.snapshot()
    undisturbed = workload.gather(workload.job.engine_for(url), folder)
    workload.let_go(url)
    commits = _distinct(recorder.commits)
    return Recording(recorder.ops, commits, [_state(folder, db) for _, db in commits], undisturbed)


def cut_everywhere(recording: Recording, *, may_lose_commits: bool, only_first: bool) -> Told:
    """Every disk at every moment; `only_first` stops at the first that is wrong."""
    told, known, disk = Told(), set(), Disk()
    for n_ops in range(len(recording.ops) + 1):
        if n_ops:
            disk.apply(recording.ops[n_ops - 1])
        done = [at for at, (before, _) in enumerate(recording.commits) if before <= n_ops]
        for tree in disk.outcomes():
            for commit in done if may_lose_commits else _moments(recording, n_ops, done):
                told.n_cuts += 1
                key = (commit, tree_key(tree))
                if key in known:
                    continue
                known.add(key)
                told.cuts.append(Cut(n_ops, commit, tree))
                found = replace(recording.states[commit], files=dict(key[1]))
                told.violations += [
                    f"after operation {n_ops} with {commit} commits: {what}"
                    for what in workload.violations(found, recording.undisturbed)
                ]
                if only_first and told.violations:
                    return told
    return told


def recover(folder: Path, recording: Recording, cut: Cut, mutant: str | None) -> list[str]:
    """Put the disk in place, run again, and tell in what the outcome differs."""
    database = folder / "labels.db"
    url = f"sqlite:///{database}"
    for path in (*folder.glob("labels.db*"), *sorted((folder / "scores").rglob("*"), reverse=True)):
        path.rmdir() if path.is_dir() else path.unlink()
    database.write_bytes(recording.commits[cut.commit][1])
    for name, data in cut.tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    with _rebooted(), mutated(mutant):
        workload.work(url, folder)
    engine = workload.job.engine_for(url)
    workload.sweep(engine, folder)
    wrong = workload.differences(workload.gather(engine, folder), recording.undisturbed)
    workload.let_go(url)
    return wrong


def _rebooted() -> AbstractContextManager[None]:
    """The lock files are gone, and the dead run's number is a living process's: this one's."""
    return changed([(run_ledger, "_booted_at", run_ledger.now)])


def _moments(recording: Recording, n_ops: int, done: list[int]) -> Iterator[int]:
    """The commits that may be the last where none is lost: those between two operations."""
    at_op = [at for at in done if recording.commits[at][0] == n_ops]
    yield from {*at_op, max((at for at in done if recording.commits[at][0] < n_ops), default=0)}


def _distinct(commits: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Without those that changed nothing."""
    return [
        commit for at, commit in enumerate(commits) if at == 0 or commit[1] != commits[at - 1][1]
    ]


def _state(folder: Path, database: bytes) -> workload.State:
    path = folder / "look" / "labels.db"
    path.parent.mkdir(exist_ok=True)
    url = f"sqlite:///{path}"
    for old in path.parent.iterdir():
        old.unlink()
    path.write_bytes(database)
    state = workload.gather(workload.job.engine_for(url), folder / "look")
    workload.let_go(url)
    return state
