"""The result of a check of tables and files: all counts, and a few examples."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

_EXAMPLES = 5


class Damage(StrEnum):
    """What may be wrong, in the order of reports."""

    MISSING = "missing file"
    DAMAGED = "damaged file"
    UNREADABLE = "file that cannot be read"
    UNNAMED = "row that does not name its file"
    LENGTH = "patches that do not fit the recording"
    PROMISE = "row that differs from its file"
    LABELS = "labels that differ from the scores"
    STRAY = "labels of an unfinished labelling"
    SPEECHLESS = "clip without a current labelling"
    CLOSURE = "closure that differs from the edges"
    TOTALS = "counts that differ from the labels"
    UNDONE = "reset before, not labelled again yet"
    ORPHAN = "file that no row names"
    TEMPORARY = "old temporary file"

    @property
    def is_litter(self) -> bool:
        """Whether it only takes up space and harms nothing."""
        return self in (Damage.ORPHAN, Damage.TEMPORARY)


class Outcome(StrEnum):
    """What was done about a finding."""

    LEFT = "left"
    REPAIRED = "put right"
    RESET = "reset, to be labelled again"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong; `where` is a file relative to the home, a clip or a pair."""

    what: Damage
    where: str
    reason: str
    outcome: Outcome = Outcome.LEFT


@dataclass(slots=True)
class Report:
    """Findings by kind and outcome, the first few of each kind, and what was looked at."""

    is_deep: bool
    n_labellings: int = 0
    n_files: int = 0
    counts: Counter[tuple[Damage, Outcome]] = field(default_factory=Counter)
    examples: dict[Damage, list[Finding]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    n_not_again: int | None = None
    """Of those that were reset, how many could not be labelled again; None: not tried yet."""

    def add(self, finding: Finding) -> None:
        """Count a finding; keep it if it is among the first."""
        self.counts[finding.what, finding.outcome] += 1
        kept = self.examples.setdefault(finding.what, [])
        if len(kept) < _EXAMPLES:
            kept.append(finding)

    @property
    def n_found(self) -> int:
        """Everything that was wrong."""
        return self.counts.total()

    @property
    def n_reset(self) -> int:
        """Findings whose labelling was reset, in this check or before."""
        return self._total(Outcome.RESET)

    @property
    def n_left(self) -> int:
        """What is still wrong."""
        again = self.n_reset if self.n_not_again is None else self.n_not_again
        return self._total(Outcome.LEFT) + again

    @property
    def n_damage_left(self) -> int:
        """What is still wrong and more than litter."""
        litter = sum(self.counts[what, Outcome.LEFT] for what in Damage if what.is_litter)
        return self.n_left - litter

    def n_of(self, what: Damage, *outcomes: Outcome) -> int:
        """How many findings of a kind had one of these outcomes (none given: any)."""
        return sum(self.counts[what, outcome] for outcome in outcomes or Outcome)

    def found_kinds(self) -> list[Damage]:
        """Kinds that were found, in the order of reports."""
        return [what for what in Damage if self.n_of(what)]

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(what, how many, where, reason), a kind's number beside its first example only."""
        rows: list[tuple[str, str, str, str]] = []
        for what in self.found_kinds():
            shown = (str(what), f"{self.n_of(what):,}")
            for finding in self.examples[what]:
                rows.append((*shown, finding.where, finding.reason + self._told(finding.outcome)))
                shown = ("", "")
            more = self.n_of(what) - len(self.examples[what])
            if more:
                rows.append(("", "", f"... and {more:,} more", ""))
        return rows

    def conclusion(self) -> str:
        """One line."""
        depth = "every byte and every label" if self.is_deep else "headers and sizes"
        looked = f"{self.n_labellings:,} labellings and {self.n_files:,} files checked ({depth})"
        if not self.n_found:
            return f"{looked}: nothing is wrong"
        if not self.n_left:
            return f"{looked}: {self.n_found:,} findings, all put right"
        return f"{looked}: {self.n_found:,} findings, {self.n_left:,} left"

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "is_deep": self.is_deep,
            "labellings": self.n_labellings,
            "files": self.n_files,
            "found": self.n_found,
            "left": self.n_left,
            "findings": [
                {
                    "what": str(what),
                    "found": self.n_of(what),
                    "repaired": self.n_of(what, Outcome.REPAIRED),
                    "reset": self.n_of(what, Outcome.RESET),
                    "examples": [
                        {"where": f.where, "reason": f.reason, "outcome": str(f.outcome)}
                        for f in self.examples[what]
                    ],
                }
                for what in self.found_kinds()
            ],
            "not_labelled_again": self.n_not_again,
            "notes": self.notes,
        }

    def _told(self, outcome: Outcome) -> str:
        if outcome is Outcome.LEFT:
            return ""
        is_again = outcome is Outcome.RESET and self.n_not_again == 0
        return " (labelled again)" if is_again else f" ({outcome})"

    def _total(self, outcome: Outcome) -> int:
        return sum(self.counts[what, outcome] for what in Damage)
