"""Kills a process at every step of the commit protocol, starts it again, and compares.

Run as a program, in a process without threads: each kill is a fork that gets SIGKILL. It is told
what to do on standard input and answers on standard output, in JSON.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.crash import workload
from tests.crash.mutants import mutated
from tests.crash.steps import Step, handled

Answer = Callable[[Any], Any]

# Where nothing can have changed since the step before.
_NOTHING = ("begin", "rollback")


@dataclass(slots=True)
class Told:
    """What came of killing at every step."""

    mutant: str | None
    n_kills: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the victims work."""

    url: str
    template: Path
    home: Path

    def clear(self) -> None:
        """As if nothing had ever run here."""
        workload.let_go(self.url)
        shutil.rmtree(self.home / "scores", ignore_errors=True)
        shutil.rmtree(self.home / "locks", ignore_errors=True)
        workload.reset(self.url, self.template)

    def state(self) -> workload.State:
        """What is there now."""
        return workload.gather(workload.job.engine_for(self.url), self.home)


def kill_everywhere(place: Place, mutant: str | None, kinds: list[str] | None) -> Told:
    """Kill at every step (of those kinds); a mutant is dismissed at its first violation."""
    told = Told(mutant)
    # Once here, so that every child finds compiled statements and loaded modules.
    place.clear()
    workload.work(place.url, place.home)
    undisturbed = place.state()
    workload.let_go(place.url)
    number = 0
    while True:
        number += 1
        code, name = _in_child(partial(_victim, place, mutant, kinds, number))
        if code == 0:
            return told
        if code != -signal.SIGKILL:
            told.violations.append(f"step {number}: ended with {code}")
            return told
        told.n_kills += 1
        told.kinds[name] += 1
        _, wrong = _in_child(partial(_successor, place, mutant, undisturbed))
        told.violations += [f"killed at step {number} ({name}): {what}" for what in wrong]
        if mutant and told.violations:
            return told


def _victim(
    place: Place, mutant: str | None, kinds: list[str] | None, number: int, answer: Answer
) -> None:
    place.clear()
    left = number

    def handler(step: Step, call: Callable[[], Any]) -> Any:
        if step.kind not in _NOTHING and (kinds is None or step.kind in kinds):
            _count(step.name)
            if step.half is not None:
                _count("half a write", step.half)
        # What a process wrote outlives it without any sync, so that time is saved here.
        return None if step.kind == "fsync" else call()

    def _count(name: str, before: Callable[[], Any] = lambda: None) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            answer(name)
            before()
            os.kill(os.getpid(), signal.SIGKILL)

    with ExitStack() as stack:
        stack.enter_context(handled(handler))
        stack.enter_context(mutated(mutant))
        workload.work(place.url, place.home)


def _successor(
    place: Place, mutant: str | None, undisturbed: workload.State, answer: Answer
) -> None:
    wrong = workload.violations(place.state(), undisturbed)
    with mutated(mutant):
        try:
            workload.work(place.url, place.home)
        except Exception as error:
            wrong.append(f"the next run failed: {error!r}"[:300])
    workload.sweep(workload.job.engine_for(place.url), place.home)
    wrong += workload.differences(place.state(), undisturbed)
    if workload.temporaries(place.home):
        wrong.append("temporary files stay")
    answer(wrong)


def _in_child(work: Callable[[Answer], None]) -> tuple[int, Any]:
    """Exit code, and what the child answered."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        # The system call itself: os.write is watched.
        write = os.write
        code = 1
        try:
            work(lambda value: write(writer, pickle.dumps(value)))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), pickle.loads(data) if data else None


def main() -> None:
    """``{url, template, home, jobs: [[mutant, kinds]]}`` to a list of what came of each job."""
    order = json.load(sys.stdin)
    place = Place(order["url"], Path(order["template"]), Path(order["home"]))
    told = [kill_everywhere(place, *each) for each in order["jobs"]]
    json.dump([{name: getattr(each, name) for name in Told.__slots__} for each in told], sys.stdout)


if __name__ == "__main__":
    main()
