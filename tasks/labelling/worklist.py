"""A run's work list: what there is at some paths, and what is known of it.

A known file costs one look at its size and time; only new or changed ones join the list, which
lies in the database, so that a run of ten million files needs no more memory than one of ten.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from sqlalchemy import Engine

from audioset_core.audio.recording import stated_duration_s, usual_duration_s
from audioset_core.audio.remarks import STRICTLY
from audioset_core.errors import Reason
from audioset_core.inputs.walk import Found, Inputs, PassedOver, find_recordings
from db.catalog.sources import add_to_work_list, triage, update_annotations
from db.catalog.vanished_files import mark_missing, mark_present, mark_waiting
from db.engine import reading
from db.ledger.runs import record_heartbeat
from db.records import FileState, SeenSource, Triaged, Variant
from db.types import path_digest
from tasks.labelling.job import now
from tasks.labelling.watched_folders import Watch, mark_moved_away

_BATCH = 2_000
# Files that seem longer than this have their header read, so that long ones are cut evenly;
# for the many short ones the guess from size and ending is enough.
_PROBE_FROM_S = 60.0
_KINDS_REMEMBERED = 10_000
_SIGN_OF_LIFE_S = 30.0
_SETTLED = frozenset({FileState.DONE, FileState.FAILED})
_TRANSIENT_REASONS = frozenset(str(reason) for reason in Reason if not reason.is_permanent)


@dataclass(slots=True)
class Discovery:
    """What a walk over the inputs found."""

    verdicts: Counter[FileState] = field(default_factory=Counter)
    passed_over: PassedOver = field(default_factory=PassedOver)
    n_items: int = 0
    estimated_s: float = 0.0
    n_waiting: int = 0
    """Files that may still be being written, left for the next run."""
    n_missing: int = 0
    """Known files that have vanished since the run before."""
    n_back: int = 0
    """Files that had vanished and are there again."""
    problems: list[str] = field(default_factory=list)
    """What is odd about the folders."""
    roots: list[str] = field(default_factory=list)
    """The folders that were walked."""

    @property
    def n_found(self) -> int:
        """Files seen."""
        return self.verdicts.total()


def discover(
    engine: Engine,
    run_id: str,
    variants: Sequence[Variant],
    inputs: Inputs,
    *,
    is_strict: bool = False,
    settle_s: float | None = None,
) -> Discovery:
    """Walk the inputs, and put what needs labelling on the run's work list.

    What a strict run refused is tried again by one that is not. Vanished files are marked. With a
    settle time the folders are watched ones: a file that is not ready waits for the next run.
    """
    result = Discovery(roots=[os.fsdecode(folder) for folder in inputs.folders])
    watch, lengths, alive_at = Watch(result.roots, settle_s, now()), _Lengths(), now()
    for batch in _judged(engine, variants, inputs, result.passed_over, is_strict=is_strict):
        _store_known(engine, batch, watch, result)
        ready: list[tuple[SeenSource, float]] = []
        waiting: list[SeenSource] = []
        for each in batch:
            if each.is_open and watch.is_ready(each.found, each.judgement):
                ready.append((each.seen, lengths.estimated_s(each.seen)))
            elif each.is_open:
                waiting.append(each.seen)
        mark_waiting(engine, waiting, now())
        add_to_work_list(engine, run_id, ready, start=result.n_items, now=now())
        result.n_items += len(ready)
        result.estimated_s += sum(estimated_s for _, estimated_s in ready)
        result.n_waiting += len(waiting)
        if (now() - alive_at).total_seconds() > _SIGN_OF_LIFE_S:
            alive_at = now()
            record_heartbeat(engine, run_id, alive_at)
    _store_vanished(engine, inputs, watch, result)
    return result


def look_for_work(
    engine: Engine, variants: Sequence[Variant], inputs: Inputs, *, is_strict: bool = False
) -> Discovery | None:
    """What a walk finds if nothing is left to do; None as soon as something is.

    Annotations that a manifest changed, files that are back, and those that are gone are stored on
    the way.
    """
    result = Discovery(roots=[os.fsdecode(folder) for folder in inputs.folders])
    watch = Watch(result.roots, None, now())
    for batch in _judged(engine, variants, inputs, result.passed_over, is_strict=is_strict):
        if any(each.is_open for each in batch):
            return None
        _store_known(engine, batch, watch, result)
    _store_vanished(engine, inputs, watch, result)
    result.n_missing += mark_moved_away(engine, result.roots, None, now())
    return result


class _Judged(NamedTuple):
    """A file of the walk, and what the database knows of it."""

    found: Found
    seen: SeenSource
    judgement: Triaged

    @property
    def is_gone(self) -> bool:
        """Whether a file that is named is not there, and was read before: its labels are kept."""
        is_known = self.judgement.state not in (FileState.NEW, FileState.RETRY)
        return is_known and not self.found.is_there

    @property
    def is_open(self) -> bool:
        """Whether the file must be labelled, now or later."""
        return self.judgement.state not in _SETTLED and not self.is_gone


def _judged(
    engine: Engine,
    variants: Sequence[Variant],
    inputs: Inputs,
    passed_over: PassedOver,
    *,
    is_strict: bool,
) -> Iterator[list[_Judged]]:
    recordings = find_recordings(inputs, passed_over)
    refused = None if is_strict else STRICTLY
    while batch := list(islice(recordings, _BATCH)):
        seen = [
            SeenSource(f.path, f.size_bytes, f.mtime_ns, f.user_id, f.meta, f.etag) for f in batch
        ]
        with reading(engine) as connection:
            judgements = triage(connection, variants, seen, _TRANSIENT_REASONS, refused)
        yield [_Judged(*each) for each in zip(batch, seen, judgements, strict=True)]


def _store_known(engine: Engine, batch: list[_Judged], watch: Watch, result: Discovery) -> None:
    """Count the files, and store what is new about those that need no labelling."""
    there = [each for each in batch if not each.is_gone]
    gone = [path_digest(each.found.path) for each in batch if each.is_gone]
    back = [each.seen for each in there if each.judgement.is_back]
    mark_missing(engine, gone, now())
    mark_present(engine, back)
    update_annotations(engine, [each.seen for each in batch if not each.is_open])
    for each in there:
        watch.meet(each.found)
    result.verdicts.update(each.judgement.state for each in batch)
    result.n_missing += len(gone)
    result.n_back += len(back)


def _store_vanished(engine: Engine, inputs: Inputs, watch: Watch, result: Discovery) -> None:
    n_vanished, problems = watch.mark_vanished(engine, now())
    result.n_missing += n_vanished
    result.problems = [*inputs.remarks, *problems]


class _Lengths:
    """Guesses at recordings' lengths, opening as few of them as will do.

    Files of one folder and ending are usually of one kind, so the first one's header tells the
    bytes per second of the others.
    """

    def __init__(self) -> None:
        self._bytes_per_s: dict[tuple[bytes, bytes], float | None] = {}

    def estimated_s(self, seen: SeenSource) -> float:
        """Seconds that the file will probably hold."""
        folder, name = os.path.split(seen.path)
        kind = (folder, os.path.splitext(name)[1].lower())
        if kind not in self._bytes_per_s and seen.size_bytes:
            if len(self._bytes_per_s) >= _KINDS_REMEMBERED:
                self._bytes_per_s.clear()
            stated_s = stated_duration_s(seen.path)
            self._bytes_per_s[kind] = seen.size_bytes / stated_s if stated_s else None
        rate = self._bytes_per_s.get(kind)
        guess_s = seen.size_bytes / rate if rate else usual_duration_s(seen.path, seen.size_bytes)
        if guess_s <= _PROBE_FROM_S:
            return guess_s
        stated_s = stated_duration_s(seen.path)
        return guess_s if stated_s is None else stated_s
