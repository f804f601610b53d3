"""Shards: pieces of a run's work of bounded audio, and what travels between their tasks.

The containers that hold arrays are plain classes on purpose: Prefect looks into dataclasses
and lists that it is handed, and would walk through every array.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audioset_core.audio.remarks import Remark
from audioset_core.errors import AudioError
from audioset_core.features.patch_reader import Piece
from audioset_core.features.shared_reader import SharedReader
from audioset_core.records import Detection
from audioset_core.scores.pooling import Runs
from audioset_core.storage.score_files import Kind
from audioset_core.system import n_cores
from db.records import Claim, Clip, FailedSource, Failure, WorkItem

Results = dict[Kind, NDArray[np.floating[Any]]]
"""``scores``: logits ``[n_rows, n_classes]``; ``embeddings``: ``[n_rows, dim]``.

A row is a patch, or several steps of a network that scores steps within a patch.

float16 or float32, as they are stored; a model without a head, or a run that was not asked for
embeddings, has only the other.
"""

MIN_SHARD_S, MAX_SHARD_S = 600.0, 2400.0
# Files without a length (empty, vanished) would all fit into one shard, however many there are.
_MAX_ITEMS = 2_000
# A header may state years of audio: beyond so many parts, only what is there is read.
_MAX_PARTS = 1_000
# A last part may hold this much more than planned, so that an inexact header makes no crumbs.
_LAST_PART_FACTOR = 1.5
SHARDS_IN_FLIGHT = 2 + n_cores() // 2
"""One is scored, on all cores, the next is ready, and others are read, by a thread each: half of
the cores can read as fast as all of them score (YAMNet: an hour is read in 3 to 9 s of a core and
scored in 20)."""
# Enough for reading, scoring and writing to overlap also in a small corpus; each costs Prefect
# about 0.1 s of CPU.
_SHARDS_WANTED = SHARDS_IN_FLIGHT + 2


class Shard:
    """Some short clips, or one part of a long clip (whose further parts have no items)."""

    __slots__ = ("budget_s", "estimated_s", "index", "is_last_part", "items", "part", "total")

    def __init__(
        self,
        index: int,
        total: int,
        items: tuple[WorkItem, ...],
        *,
        estimated_s: float,
        budget_s: float,
        part: int = 0,
        is_last_part: bool = True,
    ) -> None:
        self.index, self.total, self.items = index, total, items
        self.estimated_s, self.budget_s = estimated_s, budget_s
        self.part, self.is_last_part = part, is_last_part

    @property
    def label(self) -> str:
        """How a person finds it: ``3/40 (0.9 h)``."""
        return f"{self.index}/{self.total} ({self.estimated_s / 3600:.2g} h)"

    def next_part(self) -> Shard:
        """A part for what the header did not announce."""
        later = copy(self)
        later.items, later.part, later.is_last_part = (), self.part + 1, True
        return later


@dataclass(frozen=True, slots=True)
class OpenClip:
    """A clip that is being read, and the right to label it."""

    item: WorkItem
    claims: Mapping[int, Claim]
    """By the place of their job, in the order of the reader's front ends."""
    reader: SharedReader


@dataclass(frozen=True, slots=True)
class ClipPiece:
    """Patches of one clip; ``clip`` is set, and remarks are known, when they are its last."""

    path: bytes
    claim: Claim
    piece: Piece
    clip: Clip | None
    remarks: tuple[Remark, ...] = ()
    job: int = 0
    """The place among the run's jobs of the one that the patches are for."""


def failed_source(
    path: bytes, source_id: int, error: AudioError, claim: Claim | None = None
) -> FailedSource:
    """The failure that an error tells of."""
    return FailedSource(path, Failure(source_id, str(error.reason), error.detail, claim))


@dataclass(frozen=True, slots=True)
class FinishedClip:
    """A clip with all its results, as they are stored."""

    path: bytes
    claim: Claim
    clip: Clip
    results: Results
    remarks: tuple[Remark, ...] = ()
    job: int = 0
    """As of its pieces."""
    detections: tuple[Detection, ...] | None = None
    """Found step by step, where a row is several steps; None: they are those of the rows."""


@dataclass(frozen=True, slots=True)
class ShardCounts:
    """What became of a shard's files. Each task adds its part and hands the sum on.

    A file counts once, however many models label: as failed if it failed under any, else as
    labelled if any has labelled it now, else as busy if another run holds it, else as known.
    """

    n_labelled: int = 0
    n_partial: int = 0
    """Of those labelled, how many recordings are not whole."""
    n_added: int = 0
    """Of those labelled, how many had labels, which stay, and got embeddings."""
    n_known: int = 0
    n_busy: int = 0
    audio_s: float = 0.0
    """Audio of the clips that were labelled."""
    read_s: float = 0.0
    """Audio read, also of clips that are not finished or failed."""

    def __add__(self, other: ShardCounts) -> ShardCounts:
        """The sum, field by field."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return ShardCounts(*(mine + others for mine, others in pairs))


class ShardFeatures:
    """What chunk-and-featurize hands to infer."""

    def __init__(self) -> None:
        self.pieces: list[ClipPiece] = []
        self.failures: list[FailedSource] = []
        self.counts = ShardCounts()
        self.open_clip: OpenClip | None = None
        self.left: tuple[WorkItem, ...] = ()

    @property
    def continues(self) -> bool:
        """Whether the shard's files hold more than fitted."""
        return self.open_clip is not None or bool(self.left)

    def take_pieces(self, job: int) -> list[ClipPiece]:
        """A job's pieces, no longer kept here: a future lives on, its arrays need not."""
        taken = [piece for piece in self.pieces if piece.job == job]
        self.pieces = [piece for piece in self.pieces if piece.job != job]
        return taken


class UnfinishedClip:
    """Results of a clip's earlier pieces, and the runs of steps that were found in them."""

    def __init__(self) -> None:
        self.blocks: list[Results] = []
        self.runs: list[Runs] = []
        self.n_steps = 0


class ShardScores:
    """What infer hands to persist, and to the infer of a long clip's next part."""

    def __init__(self) -> None:
        self.finished: list[FinishedClip] = []
        self.failures: list[FailedSource] = []
        self.unfinished: dict[int, UnfinishedClip] = {}
        self.counts = ShardCounts()
        self.continues = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of a shard, once it is in the database."""

    counts: ShardCounts
    estimated_s: float
    """The shard's share of the estimate that the whole run began with."""
    failures: tuple[tuple[str, str, str], ...] = ()
    """(path, reason, detail)"""
    continues: bool = False
    remarks: tuple[tuple[str, str, str], ...] = ()
    """(path, kind, detail) of recordings that were labelled."""

    def __add__(self, later: Receipt) -> Receipt:
        """Both as one; `later` is of a later part of the same shard."""
        return Receipt(
            counts=self.counts + later.counts,
            estimated_s=self.estimated_s,
            failures=self.failures + later.failures,
            continues=later.continues,
            remarks=self.remarks + later.remarks,
        )


def shard_length_s(
    estimated_s: float, n_wanted: int = _SHARDS_WANTED, most_s: float = MAX_SHARD_S
) -> float:
    """How much audio a shard of a run should hold."""
    return min(most_s, max(MIN_SHARD_S, estimated_s / n_wanted))


def whole_shards(shards: Iterable[Shard]) -> Iterator[Shard]:
    """The same shards with the parts of a long clip as one, to be read to the end by one task."""
    pending: Shard | None = None
    for shard in shards:
        if shard.part and pending is not None:
            pending.estimated_s += shard.estimated_s
            continue
        if pending is not None:
            yield pending
        pending = shard
    if pending is not None:
        yield pending


def cut_shards(items: Iterable[WorkItem], shard_s: float, total: int = 0) -> Iterator[Shard]:
    """Cut a work list into shards, in order; a long clip becomes several parts in a row."""
    index = 0
    pending: list[WorkItem] = []
    pending_s = 0.0

    def flush() -> Iterator[Shard]:
        nonlocal index, pending, pending_s
        if pending:
            index += 1
            budget_s = shard_s * _LAST_PART_FACTOR
            yield Shard(index, total, tuple(pending), estimated_s=pending_s, budget_s=budget_s)
            pending, pending_s = [], 0.0

    for item in items:
        if pending_s + item.estimated_s > shard_s or len(pending) >= _MAX_ITEMS:
            yield from flush()
        if item.estimated_s <= shard_s:
            pending.append(item)
            pending_s += item.estimated_s
            continue
        n_parts = min(_MAX_PARTS, int(-(-item.estimated_s // shard_s)))
        part_s = min(shard_s, item.estimated_s / n_parts)
        for part in range(n_parts):
            index += 1
            is_last = part == n_parts - 1
            yield Shard(
                index,
                total,
                (item,) if part == 0 else (),
                estimated_s=part_s,
                budget_s=part_s * (_LAST_PART_FACTOR if is_last else 1.0),
                part=part,
                is_last_part=is_last,
            )
    yield from flush()
