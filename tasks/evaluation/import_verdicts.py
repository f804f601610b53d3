"""Marks of people, matched with clips and stored as verdicts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from sqlalchemy import Engine

from audioset_core.marks.mark import Mark, MarkFile, Problem
from audioset_core.ontology.graph import Ontology
from db.judging.verdicts import (
    UNKNOWN,
    Verdict,
    VerdictFile,
    clip_facts,
    iter_recordings,
    store_verdicts,
)
from db.types import path_text
from tasks.evaluation.fit_thresholds import digest_of
from tasks.evaluation.match_truth import match_keys

# An edge may be rounded, or taken from a program that counts samples otherwise.
_SLACK_S = 0.1
_MOST_NAMES = 200_000
_MOST_GUESSES = 20


@dataclass(slots=True)
class Imported:
    """What was stored of one file, and what was not."""

    name: str
    format: str
    n_stored: int = 0
    n_known: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def import_verdicts(
    engine: Engine,
    files: Sequence[MarkFile],
    ontology: Ontology,
    *,
    by: str | None,
    complete: bool,
    now: datetime,
) -> list[Imported]:
    """Store the marks of recordings that are known; a mark that cannot be used is a problem.

    `by` is who judged, where the file does not say. `complete`: what the files do not mark, of the
    classes and in the recordings that they name, is absent.
    """
    wanted = {mark.keys for file in files for mark in file.marks}
    wanted |= {file.silent for file in files if file.silent and complete}
    clip_ids = match_keys(wanted, iter_recordings(engine))
    facts = clip_facts(engine, sorted({each for found in clip_ids.values() for each in found}))
    near = _Nearest(engine)
    mids = sorted({mark.mid for file in files for mark in file.marks})
    done = []
    for file in files:
        result = Imported(file.name, file.format, problems=list(file.problems), counts=file.counts)
        path = Path(file.name)
        saved_at = min(now, datetime.fromtimestamp(path.stat().st_mtime, UTC))
        found: list[Verdict] = []
        marked: dict[str, set[str]] = {}
        for mark in file.marks:
            fits = clip_ids[mark.keys]
            problem = _problem(mark, fits, facts, near)
            if problem:
                result.problems.append(Problem(problem, mark.place))
                continue
            clip, duration_s = facts[fits[0]]
            at = min(now, mark.at or saved_at)
            who = mark.by or by or UNKNOWN
            found.append(
                Verdict(
                    clip, mark.mid, _span_ms(mark, duration_s), mark.verdict, who, at, mark.place
                )
            )
            marked.setdefault(clip, set()).add(mark.mid)
        if complete:
            for each in clip_ids.get(file.silent, []) if file.silent else []:
                marked.setdefault(facts[each][0], set())
            found += _absent(marked, mids, ontology, by or UNKNOWN, saved_at)
        digest = digest_of(path)
        name = path_text(os.fsencode(file.name))
        result.n_stored = store_verdicts(engine, VerdictFile(digest, name, file.format), found, now)
        result.n_known = len(found) - result.n_stored
        result.verdicts.update(each.verdict for each in found)
        done.append(result)
    return done


def _absent(
    marked: dict[str, set[str]], mids: Sequence[str], ontology: Ontology, who: str, at: datetime
) -> list[Verdict]:
    """Classes that are marked somewhere, but not in these clips, nor anything below them."""
    below = {mid: {node.mid for node in ontology.subtree(mid)} for mid in mids}
    return [
        Verdict(clip, mid, None, "absent", who, at, "not marked")
        for clip, own in marked.items()
        for mid in mids
        if not below[mid] & own
    ]


def _problem(
    mark: Mark, fits: Sequence[int], facts: dict[int, tuple[str, float]], near: _Nearest
) -> str:
    """Why a mark cannot be stored; "" if it can."""
    shown = mark.keys[-1]
    if len(fits) > 1:
        return f"{shown!r} may be any of {len(fits)} recordings: name it by its path"
    if not fits:
        return f"no recording here is called {shown!r}{near.hint(mark.keys)}"
    duration_s = facts[fits[0]][1]
    if mark.span_s is not None and mark.span_s[1] > duration_s + _SLACK_S:
        start_s, end_s = mark.span_s
        return f"{start_s:g} s to {end_s:g} s is outside {shown!r}, which ends at {duration_s:g} s"
    return ""


def _span_ms(mark: Mark, duration_s: float) -> tuple[int, int] | None:
    if mark.span_s is None:
        return None
    start_ms, end_ms = (round(min(each, duration_s) * 1000) for each in mark.span_s)
    return start_ms, end_ms


class _Nearest:
    """The names of known files that are most like an unknown one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._names: list[str] | None = None
        self._hints: dict[tuple[str, ...], str] = {}

    def hint(self, keys: tuple[str, ...]) -> str:
        """``; did you mean 'x.wav'?``, or nothing."""
        if keys not in self._hints:
            self._hints[keys] = self._hint(keys) if len(self._hints) < _MOST_GUESSES else ""
        return self._hints[keys]

    def _hint(self, keys: tuple[str, ...]) -> str:
        from difflib import get_close_matches

        if self._names is None:
            paths = zip(iter_recordings(self._engine), range(_MOST_NAMES), strict=False)
            self._names = sorted({PurePosixPath(path_text(row[2])).name for row, _ in paths})
        close = get_close_matches(keys[-1], self._names, n=2, cutoff=0.6)
        return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
