"""Combined scores of clips, from the stored scores of the parts: no recording is decoded.

Or taught scores, from the stored embeddings of the one part.

As when a recording is labelled: a claim, then the score files, durable, then one transaction.
Killed at any moment, and run again, the same command goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from audioset_core.arrays import Floats
from audioset_core.errors import AudioError
from audioset_core.scores import combination
from audioset_core.scores.combination import combined, united
from audioset_core.scores.pooling import pool
from audioset_core.storage.atomic_files import write_many
from audioset_core.storage.score_files import Kind, NewFile, check_scores, new_file
from audioset_core.teaching.heads import read_heads
from db.ledger.claims import (
    LEASE_S,
    claim_known,
    commit_labellings,
    release_claims,
    renew_leases,
)
from db.records import Claim, Labelling, Lease
from db.reports.model_coverage import categories_of
from db.score_files.combinable import Combinable
from db.score_files.labelled import ScoredClip
from tasks.combining.recipe import Planned
from tasks.evaluation.derive_intervals import checked_scores
from tasks.labelling.job import now

# Clips per transaction; fewer where their files are long, so that memory stays flat.
_BATCH_CLIPS = 32
_BATCH_BYTES = 2**26
_TOO_SHORT = "too short for a patch of one of the models: no results"


@dataclass(slots=True)
class Combined:
    """What came of some clips; `failures` are (clip, score file, reason)."""

    n_clips: int = 0
    n_busy: int = 0
    """Left to another run that is combining them."""
    audio_s: float = 0.0
    failures: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, other: Combined) -> None:
        """Count in what came of other clips."""
        self.n_clips += other.n_clips
        self.n_busy += other.n_busy
        self.audio_s += other.audio_s
        self.failures += other.failures


def combine_clips(engine: Engine, home: Path, plan: Planned, run_id: str) -> Iterator[Combined]:
    """Combine the plan's clips, some at a time; one whose scores cannot be read is a failure."""
    work = _Work(engine, home, plan, run_id)
    clips = plan.clips(engine)
    while some := list(islice(clips, _BATCH_CLIPS)):
        yield work.combine(some)


class _Work:
    """One run's combining by one recipe."""

    def __init__(self, engine: Engine, home: Path, plan: Planned, run_id: str) -> None:
        self.engine, self.home, self.run_id = engine, home, run_id
        self.recipe, self.whole = plan.recipe, plan.whole
        heads = self.recipe.heads
        self.heads = read_heads(home / heads.file, heads.sha256) if heads else None
        own = [[mid for _, mid, _ in categories_of(engine, p.title)] for p in self.recipe.parts]
        self.mids, self.columns = united(own)
        self.n_classes = len(self.heads.bias) if self.heads else len(self.mids)

    def combine(self, clips: Sequence[Combinable]) -> Combined:
        lease = Lease(self.run_id, LEASE_S, now())
        claims = claim_known(self.engine, [c.clip for c in clips], self.whole, lease)
        done = Combined(n_busy=claims.count(None))
        unused: list[Claim] = []
        files: list[NewFile] = []
        ready: list[tuple[Labelling, float]] = []  # with the clip's seconds

        def commit() -> None:
            write_many([(self.home / file.path, file.blocks) for file in files])
            rows = [labelling for labelling, _ in ready]
            kept = commit_labellings(self.engine, self.whole, rows, self.run_id, now())
            done.n_clips += sum(map(bool, kept))
            done.n_busy += len(kept) - sum(map(bool, kept))
            done.audio_s += sum(s for (_, s), is_kept in zip(ready, kept, strict=True) if is_kept)
            files.clear()
            ready.clear()

        for clip, claim in zip(clips, claims, strict=True):
            if claim is None:
                continue
            try:
                labelling, file = self._labelling(clip, claim)
            except _UnusableError as error:
                done.failures.append((claim.sha256, error.file, error.reason))
                unused.append(claim)
                continue
            ready.append((labelling, clip.parts[0].duration_s))
            files += [file] if file else []
            if sum(file.blocks[1].nbytes for file in files) >= _BATCH_BYTES:
                commit()
        commit()
        release_claims(self.engine, unused)
        renew_leases(self.engine, Lease(self.run_id, LEASE_S, now()))
        return done

    def _labelling(self, clip: Combinable, claim: Claim) -> tuple[Labelling, NewFile | None]:
        """The clip's labelling, and its file if there are rows.

        Raises:
            _UnusableError: a score file of a part, or what follows from it.
        """
        whole = self._scores(clip)
        if whole is None:
            short = Labelling(claim, None, 0, note=_TOO_SHORT)
            return replace(short, is_partial=clip.is_partial, remarks=clip.remarks), None
        try:
            check_scores(whole, self.n_classes)
        except AudioError as error:
            raise _UnusableError("", error.detail) from None
        file = new_file(whole, self.recipe.name, claim.sha256)
        set_ = self.recipe.stored_parameters()
        pooled = pool(whole, floor=set_.score_floor, threshold=set_.detection_threshold)
        labelling = Labelling(
            claim=claim,
            clip=None,
            n_patches=len(whole),
            scores_path=file.path,
            scores_sha256=file.sha256,
            score_dtype=str(whole.dtype),
            is_partial=clip.is_partial,
            remarks=clip.remarks,
            class_scores=pooled.class_scores,
            detections=pooled.detections,
        )
        return labelling, file

    def _scores(self, clip: Combinable) -> Floats | None:
        """The logits to store; None where one of the parts has no patch."""
        stored = [_stored(self.home, scored, self.recipe.reads) for scored in clip.parts]
        rows = [each for each in stored if each is not None]
        if len(rows) < len(stored):
            return None
        if self.heads is not None:
            return self.heads.logits(rows[0])
        own = [
            combination.Part(logits, part.grid, columns, part.scale, part.shift)
            for logits, part, columns in zip(rows, self.recipe.parts, self.columns, strict=True)
        ]
        dtype = np.result_type(*(logits.dtype for logits in rows))
        return combined(own, self.n_classes, dtype)


class _UnusableError(Exception):
    """A clip cannot be combined: which score file, and why."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, reason)
        self.file, self.reason = file, reason


def _stored(home: Path, scored: ScoredClip, kind: Kind) -> Floats | None:
    try:
        return checked_scores(home, scored, kind)
    except AudioError as error:
        path = scored.scores_path if kind == "scores" else scored.embeddings_path
        raise _UnusableError(path or "", error.detail) from None
