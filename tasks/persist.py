"""Task persist: score files first, durable, then one transaction for the rows that name them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from audioset_core.audio.remarks import is_partial
from audioset_core.errors import AudioError
from audioset_core.scores.pooling import Pooled, pool
from audioset_core.storage.atomic_files import Block, write_many
from audioset_core.storage.score_files import Kind, check_scores, npy_blocks, scores_path
from audioset_core.system import release_memory
from db.errors import DatabaseUnavailableError
from db.ledger.claims import commit_labellings, record_failures, renew_leases
from db.records import FailedSource, Failure, Labelling, Lease, Remark
from tasks.chunk_and_featurize import Logger
from tasks.labelling.job import LEASE_S, Job, engine_for, now
from tasks.labelling.shards import FinishedClip, Receipt, Shard, ShardScores

# Clips per transaction: their folders are synced once, and little is redone after a crash.
_BATCH = 32
_TOO_SHORT = "too short for a patch under this framing: no results"


def is_passing(task: Task[..., object], task_run: TaskRun, state: State[object]) -> bool:
    """Retry only what may pass by itself: a database that is away for a moment."""
    del task, task_run
    return isinstance(state.data, DatabaseUnavailableError)


@task(
    name="persist",
    task_run_name="persist shard {shard.label}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_condition_fn=is_passing,
)
def persist(job: Job, shard: Shard, scores: ShardScores) -> Receipt:
    """Write the shard's score files and rows; idempotent."""
    receipt = persist_shard(job, shard, scores)
    log_receipt(get_run_logger(), shard, receipt)
    return receipt


def log_receipt(logger: Logger, shard: Shard, receipt: Receipt) -> None:
    """The one line that a shard leaves in the log."""
    logger.info(
        "shard %s: %d clips labelled (%.2f h), %d known, %d failed",
        shard.label, receipt.n_labelled, receipt.audio_s / 3600, receipt.n_known,
        len(receipt.failures),
    )  # fmt: skip


def persist_shard(job: Job, shard: Shard, scores: ShardScores) -> Receipt:
    """As the task, without Prefect."""
    engine = engine_for(job.database_url)
    failures = list(scores.failures)
    n_labelled, n_lost, audio_s, n_partial = 0, 0, 0.0, 0
    remarks: list[tuple[str, str, str]] = []
    clips = iter(scores.finished)
    while batch := list(islice(clips, _BATCH)):
        labellings, refused = _labellings(job, batch)
        failures += refused
        kept = commit_labellings(engine, job.variant, labellings, job.run_id, now())
        n_labelled += sum(kept)
        own = [f for f in batch if f.claim in {lab.claim for lab in labellings}]
        stored = [f for f, is_kept in zip(own, kept, strict=True) if is_kept]
        n_partial += sum(is_partial(f.remarks) for f in stored)
        remarks += [(os.fsdecode(f.path), r.kind, r.detail) for f in stored for r in f.remarks]
        n_lost += len(kept) - sum(kept)
        audio_s += sum(lab.clip.duration_s for lab, k in zip(labellings, kept, strict=True) if k)
    of_failures = [failed.failure for failed in failures]
    copies = record_failures(engine, of_failures, now(), job.run_id)
    failures += copies
    renew_leases(engine, Lease(job.run_id, LEASE_S, now()))
    release_memory()
    return Receipt(
        n_labelled=n_labelled + scores.n_again,
        # Copies were taken for known when they were left to the claim that has failed now.
        n_known=scores.n_known + n_lost - len(copies),
        n_busy=scores.n_busy,
        audio_s=audio_s + scores.again_s,
        heard_s=scores.heard_s,
        estimated_s=shard.estimated_s,
        failures=tuple(
            (os.fsdecode(failed.path), failed.failure.reason, failed.failure.detail)
            for failed in failures
        ),
        continues=scores.continues,
        n_partial=n_partial,
        remarks=tuple(remarks),
    )


def _labellings(
    job: Job, batch: Sequence[FinishedClip]
) -> tuple[list[Labelling], list[FailedSource]]:
    """Pool and write a batch of clips; what must not be stored is refused with a reason."""
    files: list[tuple[Path, tuple[Block, ...]]] = []
    labellings: list[Labelling] = []
    refused: list[FailedSource] = []
    for finished in batch:
        try:
            for kind, array in finished.results.items():
                check_scores(array, _width(job, kind), kind)
        except AudioError as error:
            claim = finished.claim
            failure = Failure(claim.source_id, str(error.reason), error.detail, claim)
            refused.append(FailedSource(finished.path, failure))
            continue
        own = _files(job, finished)
        files += [(job.home / path, blocks) for path, _, blocks in own.values()]
        labellings.append(_labelling(job, finished, own))
    write_many(files)
    return labellings, refused


def _width(job: Job, kind: Kind) -> int:
    return len(job.bundle.categories) if kind == "scores" else job.bundle.embedding_dim


def _files(job: Job, finished: FinishedClip) -> dict[Kind, tuple[str, str, tuple[Block, ...]]]:
    """(path, SHA-256, content) of each result that has a patch."""
    found: dict[Kind, tuple[str, str, tuple[Block, ...]]] = {}
    for kind, array in finished.results.items():
        if len(array):
            blocks = npy_blocks(array)
            hashed = hashlib.sha256()
            for block in blocks:
                hashed.update(block)
            digest = hashed.hexdigest()
            path = scores_path(job.weights.model, finished.claim.sha256, digest, kind)
            found[kind] = (str(path), digest, blocks)
    return found


def _labelling(
    job: Job, finished: FinishedClip, files: dict[Kind, tuple[str, str, tuple[Block, ...]]]
) -> Labelling:
    n_patches = max((len(array) for array in finished.results.values()), default=0)
    # From the stored values, not the computed ones: rows can be derived again from the file.
    pooled = Pooled((), ())
    if "scores" in files:
        pooled = pool(
            finished.results["scores"],
            floor=job.parameters.score_floor,
            threshold=job.parameters.detection_threshold,
        )
    scores_file, scores_sha256, _ = files.get("scores", (None, None, None))
    embeddings_file, embeddings_sha256, _ = files.get("embeddings", (None, None, None))
    return Labelling(
        claim=finished.claim,
        clip=finished.clip,
        n_patches=n_patches,
        scores_path=scores_file,
        scores_sha256=scores_sha256,
        score_dtype=job.score_dtype if files else None,
        embeddings_path=embeddings_file,
        embeddings_sha256=embeddings_sha256,
        note=None if files else _TOO_SHORT,
        is_partial=is_partial(finished.remarks),
        remarks=tuple(Remark(r.kind, r.detail, r.start_s, r.end_s) for r in finished.remarks),
        class_scores=pooled.class_scores,
        detections=pooled.detections,
    )
