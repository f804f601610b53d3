"""A worker that sleeps at any moment until its lease is over, while another does all the work."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from db.ledger.claims import LEASE_S
from tests.crash import workload
from tests.crash.kills import Place
from tests.crash.mutants import drop_unique_key, mutated
from tests.crash.steps import Step, handled


@dataclass(slots=True)
class Told:
    """What came of it."""

    n_stalls: int = 0
    violations: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Sleeper:
    """Sleeps before the step of that number, among those outside any transaction."""

    number: int
    meanwhile: Callable[[], None]
    has_slept: bool = False
    _is_in_transaction: bool = False
    _is_asleep: bool = False

    def __call__(self, step: Step, call: Callable[[], Any]) -> Any:
        """Sleep, if it is time, and carry the step out."""
        if self._is_asleep:
            return call()
        if not self._is_in_transaction:
            self.number -= 1
            if self.number == 0:
                self._is_asleep = True
                self.meanwhile()
                self._is_asleep, self.has_slept = False, True
        if step.kind in ("begin", "commit", "rollback"):
            self._is_in_transaction = step.kind == "begin"
        return call()


def stall_everywhere(place: Place, mutant: str | None, every: int = 1) -> Told:
    """One worker sleeps at every moment in turn; the other finds all its leases ended."""
    told = Told()
    number = 1 - every
    place.clear()
    workload.work(place.url, place.home)
    undisturbed = place.state()
    while True:
        number += every
        place.clear()
        if mutant == "select, then insert":
            drop_unique_key(workload.job.engine_for(place.url))
        sleeper = _Sleeper(number, lambda: _overtake(place))
        with ExitStack() as stack:
            stack.enter_context(handled(sleeper))
            stack.enter_context(mutated(mutant))
            workload.work(place.url, place.home)
        if not sleeper.has_slept:
            break
        told.n_stalls += 1
        workload.sweep(workload.job.engine_for(place.url), place.home)
        told.violations += [
            f"asleep before step {number}: {what}"
            for what in workload.differences(place.state(), undisturbed)
        ]
        if mutant and told.violations:
            break
    workload.let_go(place.url)
    return told


def _overtake(place: Place) -> None:
    with workload.later(2 * LEASE_S):
        workload.work(place.url, place.home)
