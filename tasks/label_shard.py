"""Task label-shard: the three tasks of a shard in one, part by part.

While a part is scored and stored, the next one is read. A long clip is read to its end, so that
memory stays as flat as elsewhere.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from prefect import get_run_logger, task

from tasks.chunk_and_featurize import Logger, featurize_shard, release_shard
from tasks.infer import score_shard
from tasks.labelling.job import Jobs
from tasks.labelling.shards import Receipt, Shard, ShardScores
from tasks.persist import is_transient, log_receipt, persist_shard

PART_S = 600.0
"""Audio of a part: an hour of frames is 90 MB, and several shards have two parts each in memory."""


@task(
    name="label-shard",
    task_run_name="label shard {shard.label}",
    persist_result=False,
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_condition_fn=is_transient,
)
def label_shard(jobs: Jobs, shard: Shard) -> Receipt:
    """Label the shard; tried again, it goes on with what is not in the database."""
    logger = get_run_logger()
    receipt = label_whole_shard(jobs, shard, logger)
    log_receipt(logger, shard, receipt)
    return receipt


def label_whole_shard(jobs: Jobs, shard: Shard, logger: Logger) -> Receipt:
    """As the task, without Prefect."""
    scores: ShardScores | None = None
    receipt: Receipt | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        ahead = reader.submit(featurize_shard, jobs, shard, None, logger)
        try:
            while True:
                features = ahead.result()
                if features.continues:
                    shard = shard.next_part()
                    ahead = reader.submit(featurize_shard, jobs, shard, features, logger)
                scores = score_shard(jobs, features, scores)
                latest = persist_shard(jobs, shard, scores)
                receipt = latest if receipt is None else receipt + latest
                if not latest.continues:
                    return receipt
        except BaseException:
            with suppress(BaseException):  # unless reading ahead is what failed
                release_shard(jobs[0], ahead.result())
            raise
