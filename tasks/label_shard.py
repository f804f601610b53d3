"""Task label-shard: the three tasks of a shard one after the other, in one process.

For task runners whose tasks run in other processes, where patches would have to travel. A long
clip is read to its end part by part, so that memory stays as flat as elsewhere.
"""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.chunk_and_featurize import Logger, featurize_shard
from tasks.infer import score_shard
from tasks.job import Job
from tasks.persist import is_passing, log_receipt, persist_shard
from tasks.shards import Receipt, Shard, ShardFeatures, ShardScores


@task(
    name="label-shard",
    task_run_name="label shard {shard.label}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_condition_fn=is_passing,
)
def label_shard(job: Job, shard: Shard) -> Receipt:
    """Label the shard; tried again, it goes on with what is not in the database."""
    logger = get_run_logger()
    receipt = label_whole_shard(job, shard, logger)
    log_receipt(logger, shard, receipt)
    return receipt


def label_whole_shard(job: Job, shard: Shard, logger: Logger) -> Receipt:
    """As the task, without Prefect."""
    features: ShardFeatures | None = None
    scores: ShardScores | None = None
    receipt: Receipt | None = None
    while True:
        features = featurize_shard(job, shard, features, logger)
        scores = score_shard(job, features, scores)
        latest = persist_shard(job, shard, scores)
        receipt = latest if receipt is None else receipt + latest
        if not latest.continues:
            return receipt
        shard = shard.next_part()
