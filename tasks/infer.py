"""Task infer: a shard's patches to logits, in batches filled across clips."""

from __future__ import annotations

from functools import partial

import numpy as np
from prefect import task

from audioset_core.inference.scorer import Output
from audioset_core.scores.pooling import detected_runs, detections_of, joined, pooled_rows
from audioset_core.system import release_memory
from tasks.labelling.job import Job, Jobs, is_stopping, scorer_for
from tasks.labelling.shards import (
    ClipPiece,
    FinishedClip,
    Results,
    Shard,
    ShardFeatures,
    ShardScores,
    UnfinishedClip,
)


@task(name="infer", task_run_name="infer shard {shard.label}", persist_result=False)
def infer(
    jobs: Jobs, shard: Shard, features: ShardFeatures, previous: ShardScores | None
) -> ShardScores:
    """Score the shard; ``previous`` holds the logits of a long clip's earlier parts."""
    del shard  # names the task run
    return score_shard(jobs, features, previous)


def score_shard(jobs: Jobs, features: ShardFeatures, previous: ShardScores | None) -> ShardScores:
    """As the task, without Prefect."""
    scores = ShardScores()
    scores.failures = features.failures
    scores.counts, scores.continues = features.counts, features.continues
    if previous is not None:
        scores.unfinished = previous.unfinished
    failed_ids = {f.failure.claim.labelling_id for f in features.failures if f.failure.claim}
    for labelling_id in failed_ids:
        scores.unfinished.pop(labelling_id, None)
    for at, job in enumerate(jobs):
        pieces = [p for p in features.take_pieces(at) if p.claim.labelling_id not in failed_ids]
        if pieces:
            _score(job, pieces, scores)
    return scores


def _score(job: Job, pieces: list[ClipPiece], scores: ShardScores) -> None:
    """Add the results of a job's pieces, of which none is kept."""
    owners = [(p.path, p.claim, p.clip, p.remarks, p.job) for p in pieces]
    pieces.reverse()
    outputs = scorer_for(job.weights, job.options.compute).run(
        (pieces.pop().piece for _ in owners),  # an hour of frames is 90 MB: freed once scored
        job.frontend,
        should_stop=partial(is_stopping, job),
        embeddings=job.has_embeddings,
    )
    for (path, claim, clip, remarks, at), output in zip(owners, outputs, strict=True):
        parts = scores.unfinished.setdefault(claim.labelling_id, UnfinishedClip())
        _add(job, parts, output)
        if clip is not None:
            del scores.unfinished[claim.labelling_id]
            found = detections_of(joined(parts.runs)) if parts.runs else None
            whole = _joined(parts.blocks)
            done = FinishedClip(path, claim, clip, whole, remarks, job=at, detections=found)
            scores.finished.append(done)


def _add(job: Job, parts: UnfinishedClip, output: Output) -> None:
    """The output in the precision of its files, and as rows.

    What is detected within a row is looked for here, before the steps are pooled.
    """
    steps_per_row, dtype = job.frontend.steps_per_row, job.options.score_dtype
    threshold = job.parameters.detection_threshold
    stored: Results = {}
    # Half precision reaches 65,504; what is beyond becomes infinite and is refused later.
    with np.errstate(over="ignore"):
        if output.embeddings is not None:
            rows = pooled_rows(output.embeddings, steps_per_row, mode="mean")
            stored["embeddings"] = rows.astype(dtype)
        if output.logits is not None:
            rows = pooled_rows(output.logits, steps_per_row, mode="max")
            stored["scores"] = rows.astype(dtype)
            if steps_per_row > 1:
                steps = output.logits.astype(dtype)
                parts.runs += detected_runs(steps, threshold, parts.n_steps)
                parts.n_steps += len(steps)
    parts.blocks.append(stored)


_BLOCKS_KEPT = 8


def _joined(blocks: list[Results]) -> Results:
    """Join the blocks. Each is freed once it is copied: to keep all would take twice the memory.

    The memory goes back to the system: glibc would keep the gaps, 150 MB after ten hours.
    """
    if len(blocks) == 1:
        return blocks[0]
    n_rows = {kind: sum(len(block[kind]) for block in blocks) for kind in blocks[0]}
    whole = {kind: np.empty((n_rows[kind], x.shape[1]), x.dtype) for kind, x in blocks[0].items()}
    row = dict.fromkeys(whole, 0)
    blocks.reverse()
    while blocks:
        if len(blocks) % _BLOCKS_KEPT == 0:
            release_memory()
        for kind, part in blocks.pop().items():
            whole[kind][row[kind] : row[kind] + len(part)] = part
            row[kind] += len(part)
    return whole
