"""Intervals of a set of thresholds from the scores that are stored: no model runs.

Restartable and idempotent: a clip is done once its intervals are committed for the very score file
that its labelling names. Without Prefect and torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine

from audioset_core.arrays import Floats
from audioset_core.errors import AudioError, Reason, UserError
from audioset_core.records import Detection
from audioset_core.scores.thresholds import IntervalRules, derive_intervals, in_steps
from audioset_core.storage.score_file_check import Promise, check_file
from audioset_core.storage.score_files import Kind, read_scores
from db.engine import reading
from db.ledger.label_rows import category_nodes
from db.score_files.labelled import ScoredClip, commit_intervals, count_underived, iter_underived
from db.thresholds.sets import StoredSet

Progress = Callable[[int, int], None]

# Clips per transaction; a batch is also closed by its intervals, so that memory stays flat.
_BATCH_CLIPS = 64
_BATCH_INTERVALS = 20_000


@dataclass(slots=True)
class Derived:
    """What was derived; `failures` are (clip, score file, reason)."""

    n_clips: int = 0
    n_intervals: int = 0
    n_changed: int = 0
    """Labelled again while their scores were read: left for the next time."""
    failures: list[tuple[str, str, str]] = field(default_factory=list)


def derive_set(
    engine: Engine, home: Path, stored: StoredSet, progress: Progress | None = None
) -> Derived:
    """Apply the set to every clip that it was not applied to yet.

    `progress` is called with (clips looked at, all) after each.

    Raises:
        UserError: the folder of scores is not there.
    """
    total = count_underived(engine, stored)
    if total:
        need_folder(home)
    rules = _Rules(engine, stored)
    done = Derived()
    batch: list[tuple[ScoredClip, list[Detection]]] = []

    def commit() -> None:
        n_kept = commit_intervals(engine, stored, batch, rules.node_of, datetime.now(UTC))
        done.n_clips += n_kept
        done.n_changed += len(batch) - n_kept
        done.n_intervals += sum(len(rows) for _, rows in batch)
        batch.clear()

    for n_seen, clip in enumerate(iter_underived(engine, stored), 1):
        try:
            batch.append((clip, rules.intervals_of(home, clip)))
        except AudioError as error:
            done.failures.append((clip.clip_sha256, clip.scores_path or "", error.detail))
        is_full = sum(len(rows) for _, rows in batch) >= _BATCH_INTERVALS
        if batch and (is_full or len(batch) >= _BATCH_CLIPS):
            commit()
        if progress is not None:
            progress(n_seen, max(total, n_seen))
    if batch:
        commit()
    return done


def need_folder(home: Path, kind: Kind = "scores") -> None:
    """A missing folder is most likely a mistake, and no reason to call every file missing.

    Raises:
        UserError: the folder of scores, or of embeddings, is not there.
    """
    if not (home / kind).is_dir():
        raise UserError(
            f"the tables name files in {home / kind}, which is not there: is --home right, "
            "is its disk mounted?"
        )


def checked_scores(home: Path, clip: ScoredClip, kind: Kind = "scores") -> Floats | None:
    """The clip's logits, or embeddings, mapped, after a look at every byte; None without a patch.

    Raises:
        AudioError: the file is missing, damaged, unreadable, or not the one that its row names.
    """
    is_scores = kind == "scores"
    named = clip.scores_path if is_scores else clip.embeddings_path
    if named is None:
        if clip.n_patches:
            raise AudioError(Reason.INTERNAL, f"no file of {kind}, though it has patches")
        return None
    path = home / named
    sha256 = clip.scores_sha256 if is_scores else clip.embeddings_sha256
    n_columns = clip.n_classes if is_scores else clip.embedding_dim
    promise = Promise(sha256, clip.n_patches, clip.score_dtype, n_columns)
    checked = check_file(path, promise, is_deep=True)
    if checked.fault is not None:
        raise AudioError(Reason.INTERNAL, checked.reason)
    try:
        return read_scores(path, mmap=True)
    except OSError as error:
        raise AudioError(Reason.INTERNAL, error.strerror or str(error)) from error


class _Rules:
    """A set's rules by the category indices of each model."""

    def __init__(self, engine: Engine, stored: StoredSet) -> None:
        self._engine, self._stored = engine, stored
        self.node_of: dict[int, dict[int, int]] = {}
        self._rules: dict[int, IntervalRules] = {}

    def intervals_of(self, home: Path, clip: ScoredClip) -> list[Detection]:
        rules = self._of(clip.model_id)
        logits = checked_scores(home, clip)
        if logits is None:
            return []
        hop_s, window_s = clip.patch_hop_s, clip.window_s
        found = derive_intervals(logits, rules, patch_hop_s=hop_s, window_s=window_s)
        return [in_steps(each, clip.steps_per_row) for each in found]

    def _of(self, model_id: int) -> IntervalRules:
        if model_id not in self._rules:
            with reading(self._engine) as conn:
                node_of = category_nodes(conn, model_id)
            values = self._stored.values
            self.node_of[model_id] = node_of
            self._rules[model_id] = IntervalRules(
                values.default,
                {
                    index: self._stored.by_node[node_id]
                    for index, node_id in node_of.items()
                    if node_id in self._stored.by_node
                },
                min_duration_s=values.min_duration_s,
                merge_gap_s=values.merge_gap_s,
            )
        return self._rules[model_id]
