"""What a labelling run came to, for people: a record and its Markdown page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from audioset_core.inputs.walk import PassedOver
from db.records import RunCounts, Verdict
from flows.run_report.drift import Share
from flows.terminal import one_line
from tasks.labelling.shards import Receipt
from tasks.labelling.worklist import Discovery

# Failures kept by path in the summary; all of them are in the database.
_KEPT_FAILURES = 200
_SHOWN_FAILURES = 20


@dataclass(slots=True)
class Summary:
    """Counts of one run; grows as shards come in."""

    model: str = ""
    """Name and version, with what a person should know of the model's answers."""
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
    remarks: Counter[str] = field(default_factory=Counter)
    """Labelled recordings by kind of remark."""
    shown_remarks: list[tuple[str, str, str]] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=PassedOver)
    problems: list[str] = field(default_factory=list)
    """Folders that could not be used, and why."""
    labels: dict[str, int] = field(default_factory=dict)
    """Clips by second-level category."""
    drift: tuple[Share, ...] = ()

    @classmethod
    def of(cls, found: Discovery, model: str) -> Summary:
        """A summary of a run that has only looked so far."""
        return cls(
            model=model,
            n_found=found.n_found,
            n_known=found.verdicts[Verdict.DONE],
            n_failed_before=found.verdicts[Verdict.FAILED],
            n_waiting=found.n_waiting,
            n_missing=found.n_missing,
            n_back=found.n_back,
            passed_over=found.passed_over,
            problems=found.problems,
        )

    def add(self, receipt: Receipt) -> None:
        """Count a shard in."""
        counts = receipt.counts
        self.n_labelled += counts.n_labelled
        self.n_partial += counts.n_partial
        self.n_copies += counts.n_known
        self.n_busy += counts.n_busy
        self.audio_s += counts.audio_s
        self.failures.update(reason for _, reason, _ in receipt.failures)
        room = _KEPT_FAILURES - len(self.shown_failures)
        self.shown_failures += receipt.failures[:room]
        self.remarks.update(kind for _, kind in {(path, kind) for path, kind, _ in receipt.remarks})
        self.shown_remarks += receipt.remarks[: _KEPT_FAILURES - len(self.shown_remarks)]

    def add_part(self, counts: RunCounts, part: Mapping[str, Any]) -> None:
        """Count in a run that did a part of this one's work.

        `part` is its `as_json`, empty of a run that crashed.
        """
        self.n_labelled += counts.n_labelled
        self.audio_s += counts.audio_s
        self.n_copies += part.get("n_copies", 0)
        self.n_busy += part.get("n_busy", 0)
        self.failures.update(part.get("failures", {}))
        room = _KEPT_FAILURES - len(self.shown_failures)
        self.shown_failures += [(p, r, d) for p, r, d in part.get("shown_failures", [])[:room]]
        self.n_partial += part.get("n_partial", 0)
        self.remarks.update(part.get("remarks", {}))
        room = _KEPT_FAILURES - len(self.shown_remarks)
        self.shown_remarks += [(p, r, d) for p, r, d in part.get("shown_remarks", [])[:room]]

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
        """The parts that the counts do not hold."""
        return {
            "wall_s": round(self.wall_s, 3),
            "failures": dict(self.failures),
            "shown_failures": [
                [one_line(text) for text in failure] for failure in self.shown_failures
            ],
            "n_partial": self.n_partial,
            "remarks": dict(self.remarks),
            "shown_remarks": [[one_line(text) for text in remark] for remark in self.shown_remarks],
            "n_failed_before": self.n_failed_before,
            "n_labelled": self.n_labelled,
            "n_copies": self.n_copies,
            "n_busy": self.n_busy,
            "n_waiting": self.n_waiting,
            "n_missing": self.n_missing,
            "n_moved": self.n_moved,
            "n_back": self.n_back,
            "ignored": {one_line(suffix): n for suffix, n in self.passed_over.by_suffix.items()},
            "problems": [one_line(text) for text in self.problems],
            "labels": self.labels,
        }

    def rows(self) -> list[tuple[str, str]]:
        """(what, how much) for a table; lines that would say nothing are left out."""
        hours = f"{self.audio_s / 3600:.2f} h" if self.audio_s >= 360 else f"{self.audio_s:.1f} s"
        ignored = self.passed_over.by_suffix
        rows = [
            ("files found", self.n_found, ""),
            ("labelled now", self.n_labelled, f"{hours} of audio"),
            ("labelled in part", self.n_partial, "something of these is missing"),
            *((f"remark: {kind}", count, "") for kind, count in self.remarks.most_common()),
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
        ]
        kept = [
            (what, f"{count:,}" + (f" ({more})" if more else ""))
            for what, count, more in rows
            if count or what in ("files found", "labelled now")
        ]
        if self.model:
            kept.insert(0, ("model", self.model))
        if self.n_labelled:
            speed = f"{self.times_real_time:,.0f} x real time, {self.wall_s:.1f} s in all"
            kept.append(("speed", speed))
        return kept

    def as_markdown(self, title: str) -> str:
        """The page that the run leaves in Prefect."""
        lines = [f"# {cleaned(title)}", ""]
        lines += [f"**{cleaned(problem)}**\n" for problem in self.problems]
        lines += _table(("", ""), [(cleaned(what), cleaned(value)) for what, value in self.rows()])
        if self.labels:
            lines += ["", "## New labels", ""]
            shown = [(cleaned(name), f"{count:,}") for name, count in self.labels.items()]
            lines += _table(("second-level category", "clips with a peak of 0.5 or above"), shown)
        if self.drift:
            lines += [
                "",
                "## Drift",
                "",
                "Share of clips, against the run before of the same folders.",
                "",
            ]
            lines += _table(
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
        if self.shown_remarks:
            lines += ["", "## Remarks", "", "Labelled, but not as the file says.", ""]
            lines += _table(
                ("file", "kind", "detail"),
                [
                    (as_code(path), cleaned(kind), cleaned(detail))
                    for path, kind, detail in self.shown_remarks[:_SHOWN_FAILURES]
                ],
            )
        if self.shown_failures:
            lines += ["", "## Failures", ""]
            lines += _table(
                ("file", "reason", "detail"),
                [
                    (as_code(path), cleaned(reason), cleaned(detail))
                    for path, reason, detail in self.shown_failures[:_SHOWN_FAILURES]
                ],
            )
            more = self.n_failed - min(_SHOWN_FAILURES, len(self.shown_failures))
            if more > 0:
                lines += ["", f"... and {more:,} more: `audioset failures`"]
        return "\n".join(lines)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


# What Markdown takes for markup; the last three are what GitHub's takes for a link.
_MARKUP = re.compile(r"[\\`*_\[\]~!|]|:(?=//)|@|(?<=www)\.", re.IGNORECASE)
# A bar needs the backslash: one of Prefect's two sets of pages shows `&#124;` as it stands.
_AS_ENTITY = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_BEGINS_BLOCK = re.compile(r"(?:[-+=#]|(?<=\d)[.)])")
_MAY_BE_MARKUP = re.compile(
    r"[\\`*~@]|<[a-z/!?]|&[#\w]|\][(\[:]|!\[|://|www\.|(?<!\w)_|_(?!\w)|^(?![/\w])|^\d+[.)]",
    re.IGNORECASE,
)


def cleaned(text: str) -> str:
    """Text that Markdown shows as it is, in a line of its own and in a table; nothing links."""
    line = one_line(text)
    body = line.lstrip(" ")
    indent = "&#32;" * (len(line) - len(body))
    digits = len(body) - len(body.lstrip("0123456789"))
    block = _BEGINS_BLOCK.match(body, digits)
    shown = _MARKUP.sub(r"\\\g<0>", body.translate(_AS_ENTITY))
    return indent + (f"{shown[:digits]}\\{shown[digits:]}" if block else shown)


def as_code(text: str) -> str:
    """Text as code, also in a table; what code cannot hold there is text that is `cleaned`."""
    line = one_line(text)
    return cleaned(line) if re.search(r"[`|]|^ | $|^$", line) else f"`{line}`"


def as_cell(text: str) -> str:
    """Text for a cell of a table artifact.

    One of Prefect's two sets of pages takes a cell for Markdown, the other for plain text: what
    looks like markup is cleaned, and shows its backslashes on the other.
    """
    line = one_line(text)
    return cleaned(line) if _MAY_BE_MARKUP.search(line) else line
