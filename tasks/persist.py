"""Task persist: score files first, durable, then one transaction for the rows that name them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from audioset_core.audio.remarks import is_partial
from audioset_core.errors import AudioError
from audioset_core.scores.pooling import Pooled, pool
from audioset_core.storage.atomic_files import Block, write_many
from audioset_core.storage.score_files import Kind, NewFile, check_scores, new_file
from audioset_core.system import release_memory
from db.errors import DatabaseUnavailableError
from db.ledger.claims import LEASE_S, commit_labellings, record_failures, renew_leases
from db.records import Committed, FailedSource, Labelling, Lease, Remark
from tasks.chunk_and_featurize import Logger
from tasks.labelling.job import Job, Jobs, engine_for, now
from tasks.labelling.shards import (
    FinishedClip,
    Receipt,
    Shard,
    ShardCounts,
    ShardScores,
    failed_source,
)

# Clips per transaction: their folders are synced once, and little is redone after a crash.
_BATCH = 32
_TOO_SHORT = "too short for a patch under this framing: no results"


def is_transient(task: Task[..., object], task_run: TaskRun, state: State[object]) -> bool:
    """Whether the error may pass by itself: the database cannot be reached for a moment."""
    del task, task_run
    return isinstance(state.data, DatabaseUnavailableError)


@task(
    name="persist",
    task_run_name="persist shard {shard.label}",
    persist_result=False,
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_condition_fn=is_transient,
)
def persist(jobs: Jobs, shard: Shard, scores: ShardScores) -> Receipt:
    """Write the shard's score files and rows; idempotent."""
    receipt = persist_shard(jobs, shard, scores)
    log_receipt(get_run_logger(), shard, receipt)
    return receipt


def log_receipt(logger: Logger, shard: Shard, receipt: Receipt) -> None:
    """The one line that a shard leaves in the log."""
    logger.info(
        "shard %s: %d clips labelled (%.2f h), %d known, %d failed",
        shard.label, receipt.counts.n_labelled, receipt.counts.audio_s / 3600,
        receipt.counts.n_known, len(receipt.failures),
    )  # fmt: skip


def persist_shard(jobs: Jobs, shard: Shard, scores: ShardScores) -> Receipt:
    """As the task, without Prefect."""
    engine, run_id = engine_for(jobs[0].database_url), jobs[0].run_id
    failures = list(scores.failures)
    stored: dict[int, FinishedClip] = {}
    added: set[int] = set()
    named = [job.variant for job in jobs]
    for at, job in enumerate(jobs):
        clips = (finished for finished in scores.finished if finished.job == at)
        while batch := list(islice(clips, _BATCH)):
            labellings, refused = _labellings(job, batch)
            failures += refused
            kept = commit_labellings(engine, job.variant, labellings, run_id, now(), named)
            own = [f for f in batch if f.claim in {lab.claim for lab in labellings}]
            won = [(f, how) for f, how in zip(own, kept, strict=True) if how]
            stored |= {f.claim.source_id: f for f, _ in won}
            added |= {f.claim.source_id for f, how in won if how is Committed.ADDED}
    of_failures = [failed.failure for failed in failures]
    copies = record_failures(engine, of_failures, now(), run_id)
    renew_leases(engine, Lease(run_id, LEASE_S, now()))
    release_memory()
    failed = {each.failure.source_id: each for each in reversed(failures + copies)}
    labelled = [finished for source_id, finished in stored.items() if source_id not in failed]
    n_read = len({finished.claim.source_id for finished in scores.finished} - failed.keys())
    return Receipt(
        counts=scores.counts
        + ShardCounts(
            n_labelled=len(labelled),
            n_partial=sum(is_partial(f.remarks) for f in labelled),
            n_added=sum(f.claim.source_id in added for f in labelled),
            # Another run was faster with the rest. Copies were taken for known when they were left
            # to the claim that has failed now.
            n_known=n_read - len(labelled) - len(copies),
            audio_s=sum(f.clip.duration_s for f in labelled),
        ),
        estimated_s=shard.estimated_s,
        failures=tuple(
            (os.fsdecode(each.path), each.failure.reason, each.failure.detail)
            for each in reversed(failed.values())
        ),
        continues=scores.continues,
        remarks=tuple((os.fsdecode(f.path), r.kind, r.detail) for f in labelled for r in f.remarks),
    )


def _labellings(
    job: Job, batch: Sequence[FinishedClip]
) -> tuple[list[Labelling], list[FailedSource]]:
    """Pool a batch of clips and write their files; clips that must not be stored are failures."""
    bundle = job.bundle
    widths = {"scores": len(bundle.categories), "embeddings": bundle.embedding_dim}
    files: list[tuple[Path, tuple[Block, ...]]] = []
    labellings: list[Labelling] = []
    refused: list[FailedSource] = []
    for finished in batch:
        try:
            for kind, array in finished.results.items():
                check_scores(array, widths[kind], kind)
        except AudioError as error:
            claim = finished.claim
            refused.append(failed_source(finished.path, claim.source_id, error, claim))
            continue
        own = _files(job, finished)
        files += [(job.home / file.path, file.blocks) for file in own.values()]
        labellings.append(_labelling(job, finished, own))
    write_many(files)
    return labellings, refused


def _files(job: Job, finished: FinishedClip) -> dict[Kind, NewFile]:
    """The file of each result that has a patch."""
    model, clip = job.weights.model, finished.claim.sha256
    return {k: new_file(x, model, clip, k) for k, x in finished.results.items() if len(x)}


def _labelling(job: Job, finished: FinishedClip, files: Mapping[Kind, NewFile]) -> Labelling:
    n_patches = max((len(array) for array in finished.results.values()), default=0)
    # From the stored values, not the computed ones: rows can be derived again from the file.
    pooled = Pooled((), ())
    if "scores" in files:
        pooled = pool(
            finished.results["scores"],
            floor=job.parameters.score_floor,
            threshold=job.parameters.detection_threshold,
        )
    if finished.detections is not None:
        pooled = replace(pooled, detections=finished.detections)
    scores, embeddings = files.get("scores"), files.get("embeddings")
    return Labelling(
        claim=finished.claim,
        clip=finished.clip,
        n_patches=n_patches,
        scores_path=scores.path if scores else None,
        scores_sha256=scores.sha256 if scores else None,
        score_dtype=job.options.score_dtype if files else None,
        embeddings_path=embeddings.path if embeddings else None,
        embeddings_sha256=embeddings.sha256 if embeddings else None,
        note=None if files else _TOO_SHORT,
        is_partial=is_partial(finished.remarks),
        remarks=tuple(Remark(r.kind, r.detail, r.start_s, r.end_s) for r in finished.remarks),
        class_scores=pooled.class_scores,
        detections=pooled.detections,
    )
