"""The results of a labelling run for people: a record and its Markdown page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from audioset_core.inputs.walk import PassedOver
from db.records import FileState, RunCounts
from flows.run_report.drift import Share
from flows.run_report.safe_markdown import as_code, cleaned, table
from flows.terminal import one_line
from tasks.labelling.shards import Receipt, ShardCounts
from tasks.labelling.worklist import Discovery

# Failures kept by path in the summary; all of them are in the database.
_KEPT_FAILURES = 200
_SHOWN_FAILURES = 20
_SHOWN_PROBLEMS = 3
_COUNTS = (
    "n_labelled", "n_partial", "n_added", "n_copies", "n_busy", "n_failed_before", "n_waiting",
    "n_missing", "n_moved", "n_back",
)  # fmt: skip

# Why an alert is not told.
_HELD_BACK = {
    "unsent": "wait for audioset serve",
    "quiet": "another one was told lately",
    "old": "recorded too long ago",
    "judged": "judged absent by people",
}

_Triple = tuple[str, str, str]


@dataclass(slots=True)
class Summary:
    """Counts of one run; grows as shards come in."""

    models: tuple[str, ...] = ()
    """Name and version of each, with what a person should know of the model's answers."""
    n_found: int = 0
    n_labelled: int = 0
    n_known: int = 0
    n_copies: int = 0
    n_busy: int = 0
    n_failed_before: int = 0
    n_waiting: int = 0
    n_missing: int = 0
    n_moved: int = 0
    n_back: int = 0
    audio_s: float = 0.0
    wall_s: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    shown_failures: list[tuple[str, str, str]] = field(default_factory=list)
    n_partial: int = 0
    """Labelled recordings of which something is missing."""
    n_added: int = 0
    """Labelled recordings that had labels, which stay, and got embeddings."""
    remarks: Counter[str] = field(default_factory=Counter)
    """Labelled recordings by kind of remark."""
    shown_remarks: list[tuple[str, str, str]] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=PassedOver)
    problems: list[str] = field(default_factory=list)
    """Folders that could not be used, and why."""
    labels: dict[str, int] = field(default_factory=dict)
    """Clips by second-level category."""
    drift: tuple[Share, ...] = ()
    taught: dict[str, int] = field(default_factory=dict)
    """Clips that taught models have scored from the new embeddings, by model."""
    taught_problems: list[str] = field(default_factory=list)
    alerts: dict[str, Counter[str]] = field(default_factory=dict)
    """Sounds that the rules for alerts asked for, by rule and state ("unsent": they wait, since the
    server ends with the run)."""
    alert_problems: dict[str, str] = field(default_factory=dict)
    """What is wrong with a rule, by its name."""

    @classmethod
    def of(cls, found: Discovery, models: Sequence[str]) -> Summary:
        """The summary of a run that has discovered its files, and labelled none yet."""
        return cls(
            models=tuple(models),
            n_found=found.n_found,
            n_known=found.verdicts[FileState.DONE],
            n_failed_before=found.verdicts[FileState.FAILED],
            n_waiting=found.n_waiting,
            n_missing=found.n_missing,
            n_back=found.n_back,
            passed_over=found.passed_over,
            problems=found.problems,
        )

    def add(self, receipt: Receipt) -> None:
        """Count a shard in."""
        kinds = {(path, kind) for path, kind, _ in receipt.remarks}
        self.failures.update(reason for _, reason, _ in receipt.failures)
        self.remarks.update(kind for _, kind in kinds)
        self._add(receipt.counts, receipt.failures, receipt.remarks)

    def add_part(self, counts: RunCounts, part: Mapping[str, Any]) -> None:
        """Count in a run that did a part of this one's work.

        `part` is its `as_json`, empty of a run that crashed.
        """
        self.failures.update(part.get("failures", {}))
        self.remarks.update(part.get("remarks", {}))
        counted = ShardCounts(
            n_labelled=counts.n_labelled,
            n_partial=part.get("n_partial", 0),
            n_added=part.get("n_added", 0),
            n_known=part.get("n_copies", 0),
            n_busy=part.get("n_busy", 0),
            audio_s=counts.audio_s,
        )
        failures = [(p, r, d) for p, r, d in part.get("shown_failures", [])]
        self._add(counted, failures, [(p, k, d) for p, k, d in part.get("shown_remarks", [])])

    def _add(
        self, counts: ShardCounts, failures: Sequence[_Triple], remarks: Sequence[_Triple]
    ) -> None:
        self.n_labelled += counts.n_labelled
        self.n_partial += counts.n_partial
        self.n_added += counts.n_added
        self.n_copies += counts.n_known
        self.n_busy += counts.n_busy
        self.audio_s += counts.audio_s
        self.shown_failures += failures[: _KEPT_FAILURES - len(self.shown_failures)]
        self.shown_remarks += remarks[: _KEPT_FAILURES - len(self.shown_remarks)]

    @property
    def model(self) -> str:
        """All models in one text."""
        return " and ".join(self.models)

    @property
    def n_failed(self) -> int:
        """Files that failed in this run."""
        return self.failures.total()

    @property
    def times_real_time(self) -> float:
        """Seconds of audio labelled per second."""
        return self.audio_s / self.wall_s if self.wall_s else 0.0

    @property
    def counts(self) -> RunCounts:
        """What the run's row holds."""
        return RunCounts(
            n_found=self.n_found,
            n_labelled=self.n_labelled,
            # A part whose files failed as copies of another part's has less than none.
            n_known=self.n_known + max(0, self.n_copies),
            n_failed=self.n_failed,
            audio_s=self.audio_s,
        )

    def as_json(self) -> Mapping[str, Any]:
        """What is stored of the run beside `counts`."""
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            "wall_s": round(self.wall_s, 3),
            "failures": dict(self.failures),
            "shown_failures": [list(map(one_line, failure)) for failure in self.shown_failures],
            "remarks": dict(self.remarks),
            "shown_remarks": [list(map(one_line, remark)) for remark in self.shown_remarks],
            "ignored": {one_line(suffix): n for suffix, n in self.passed_over.by_suffix.items()},
            "problems": [one_line(text) for text in self.problems],
            "labels": self.labels,
            "taught": self.taught,
            "alerts": {rule: dict(counts) for rule, counts in self.alerts.items()},
        }

    def rows(self) -> list[tuple[str, str]]:
        """(what, how much) for a table; lines that would say nothing are left out."""
        hours = f"{self.audio_s / 3600:.2f} h" if self.audio_s >= 360 else f"{self.audio_s:.1f} s"
        ignored, untaught = self.passed_over.by_suffix, self.taught_problems
        rows = [
            ("files found", self.n_found, ""),
            ("labelled now", self.n_labelled, f"{hours} of audio"),
            ("labelled in part", self.n_partial, "something of these is missing"),
            ("embeddings added", self.n_added, "had labels, which stay as they are"),
            *((f"remark: {kind}", count, "") for kind, count in self.remarks.most_common()),
            *((f"scored by {model}", count, "taught") for model, count in self.taught.items()),
            *(
                (f"alert {rule}", counts.total(), _held_back(counts))
                for rule, counts in sorted(self.alerts.items())
            ),
            *((f"alert {rule}: {why}", 1, "") for rule, why in self.alert_problems.items()),
            ("labelled before", self.n_known, ""),
            ("copies of labelled content", self.n_copies, ""),
            ("still being written, for the next run", self.n_waiting, ""),
            ("vanished; their labels are kept", self.n_missing, ""),
            ("moved or renamed", self.n_moved, "content known, not labelled again"),
            ("had vanished, are back", self.n_back, ""),
            ("being labelled by another run", self.n_busy, "or a copy of such a file"),
            *((f"failed: {reason}", count, "") for reason, count in self.failures.most_common()),
            ("failed before, unchanged", self.n_failed_before, ""),
            ("ignored: not an audio ending", ignored.total(), self.passed_over.endings),
            ("ignored: links", self.passed_over.n_links, ""),
            ("ignored: hidden", self.passed_over.n_hidden, ""),
            ("folders that could not be listed", len(self.passed_over.unlistable), ""),
            ("folders to look at", len(self.problems), "; ".join(self.problems)),
            ("not scored by a taught model", len(untaught), "; ".join(untaught[:_SHOWN_PROBLEMS])),
        ]
        kept = [
            (what, f"{count:,}" + (f" ({more})" if more else ""))
            for what, count, more in rows
            if count or what in ("files found", "labelled now")
        ]
        if self.models:
            what = "model" if len(self.models) == 1 else "models"
            kept.insert(0, (what, self.model))
        if self.n_labelled:
            speed = f"{self.times_real_time:,.0f} x real time, {self.wall_s:.1f} s in all"
            kept.append(("speed", speed))
        return kept

    def as_markdown(self, title: str, app: str | None = None) -> str:
        """The page that the run leaves in Prefect; ``app`` is where `audioset app` is."""
        look = f"[Search, listen and judge]({app})" if app else "`audioset app` finds and plays"
        look += " what was labelled; `audioset report` writes a page about all of it."
        lines = [f"# {cleaned(title)}", "", look, ""]
        lines += [f"**{cleaned(problem)}**\n" for problem in self.problems]
        lines += table(("", ""), [(cleaned(what), cleaned(value)) for what, value in self.rows()])
        lines += _section(
            "New labels",
            "",
            ("second-level category", "clips with a peak of 0.5 or above"),
            [(cleaned(name), f"{count:,}") for name, count in self.labels.items()],
        )
        lines += _section(
            "Drift",
            "Share of clips, against the run before of the same folders.",
            ("category", "before", "now", "change"),
            [
                (
                    cleaned(s.category),
                    f"{s.before:.1%}",
                    f"{s.now:.1%}",
                    f"{100 * s.change:+.1f} points",
                )
                for s in self.drift
            ],
        )
        about = "Labelled, but not as the file says."
        lines += _section("Remarks", about, ("file", "kind", "detail"), _shown(self.shown_remarks))
        failures = _shown(self.shown_failures)
        lines += _section("Failures", "", ("file", "reason", "detail"), failures)
        if failures and self.n_failed > len(failures):
            lines += ["", f"... and {self.n_failed - len(failures):,} more: `audioset failures`"]
        return "\n".join(lines)


def _held_back(counts: Mapping[str, int]) -> str:
    """How many of a rule's sounds are not told, and why."""
    parts = (f"{counts[s]:,} {why}" for s, why in _HELD_BACK.items() if counts.get(s))
    text = ", ".join(parts)
    return f"not told: {text}" if text else ""


def _shown(triples: Sequence[_Triple]) -> list[_Triple]:
    """The first few, a path and two texts each, for a table."""
    return [(as_code(p), cleaned(k), cleaned(d)) for p, k, d in triples[:_SHOWN_FAILURES]]


def _section(
    title: str, about: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]
) -> list[str]:
    """A heading and a table; nothing where there are no rows."""
    if not rows:
        return []
    return ["", f"## {title}", "", *([about, ""] if about else []), *table(head, rows)]
