"""Flow label-audio: label what is at some paths, once.

convert-weights -> load-ontology -> discover-files, then shard by shard
chunk-and-featurize -> infer -> persist, chained through futures. A few shards are in flight at
a time, so that decoding, inference and writing overlap while memory stays flat.
"""

# No `from __future__ import annotations`: Prefect reads the parameters' types at run time,
# also where it loads this file by its path.

from collections import deque
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar, cast

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import SecretStr

from db.migrate import ensure_schema
from db.sources import iter_items
from flows.options import LabelOptions, database_url, default_home
from flows.progress import listener
from flows.run_ledger import recorded_run
from flows.settings import labelling_settings
from flows.summary import Summary
from tasks.chunk_and_featurize import chunk_and_featurize
from tasks.convert_weights import convert_weights
from tasks.discover_files import discover_files
from tasks.infer import infer
from tasks.job import Job, engine_for, stop_event
from tasks.load_ontology import load_ontology
from tasks.persist import persist
from tasks.shards import Receipt, Shard, ShardFeatures, ShardScores, cut_shards, shard_length_s

R = TypeVar("R")

_SHARDS_IN_FLIGHT = 2
# A task that waits for the one before it holds its thread: three per shard, and the first tasks.
_THREADS = 3 * _SHARDS_IN_FLIGHT + 3


def _run_name() -> str:
    parameters: dict[str, Any] = flow_run.parameters
    paths = [str(path) for path in parameters.get("paths") or []]
    what = paths[0] if paths else str(parameters.get("manifest") or "")
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"label {what[-60:]}{more}"


@flow(
    name="label-audio",
    flow_run_name=_run_name,
    task_runner=cast(Any, ThreadPoolTaskRunner(max_workers=_THREADS)),
    persist_result=False,
)
def label_audio(
    paths: list[str],
    manifest: Path | None = None,
    home: Path | None = None,
    options: LabelOptions = LabelOptions(),  # noqa: B008 (frozen)
    database: SecretStr | None = None,
) -> Summary:
    """Label every recording at the paths that is not labelled yet.

    Args:
        paths: Files, folders and globs; absolute, since a worker runs anywhere.
        manifest: A CSV or JSONL with path, optional id and meta.
        home: The folder of labels.db and scores/. Empty: AUDIOSET_HOME.
        options: Model, hop, framing, device and score type.
        database: The database's URL. Empty: AUDIOSET_DB, or SQLite in the home folder.

    Raises:
        UserError, DatabaseUserError: a parameter is off; the message says which and why.
    """
    home = (home or default_home()).absolute()
    home.mkdir(parents=True, exist_ok=True)
    url = database_url(home, database.get_secret_value() if database else None)
    engine = engine_for(url)
    ensure_schema(engine)
    frontend, parameters = labelling_settings(options)
    described = {
        "paths": paths,
        "manifest": str(manifest) if manifest else None,
        **options.model_dump(mode="json"),
    }
    with recorded_run(engine, home, described, flow_run.name) as run:
        weights_future = convert_weights.submit(options.model, options.weights)
        variant_future = load_ontology.submit(url, _later(weights_future), parameters)
        found_future = discover_files.submit(
            url, run.run_id, _later(variant_future), paths, manifest
        )
        # In the order of the chain: the first that failed says why, the rest only that it did.
        weights, variant = weights_future.result(), variant_future.result()
        found = found_future.result()
        run.summary = Summary.of(found)
        listener().begin(found)
        job = Job(
            run_id=run.run_id,
            home=home,
            database_url=url,
            weights=weights,
            frontend=frontend,
            parameters=parameters,
            variant=variant,
            device=options.device,
            score_dtype=options.score_dtype,
            # Without a classifier head there is nothing else to store.
            embeddings=options.embeddings or not weights.has_scores,
            shard_s=shard_length_s(found.estimated_s),
        )
        try:
            with closing(label_shards(job)) as receipts:
                for receipt in receipts:
                    run.summary.add(receipt)
                    listener().advance(receipt)
        finally:
            run.stop_clock()
            _leave_page(run.summary, f"Labelled with {weights.model} {weights.version}")
        return run.summary


def _leave_page(summary: Summary, title: str) -> None:
    """The run's page in Prefect, also of a run that fails: how far it came is worth knowing."""
    try:
        create_markdown_artifact(
            summary.as_markdown(title),
            key="label-audio-summary",
            description="What the run labelled, knew already, and could not read.",
        )
    except Exception:  # the labels are in the database, whatever becomes of the page
        get_run_logger().warning("the summary page could not be stored", exc_info=True)


def label_shards(job: Job) -> Generator[Receipt, None, None]:
    """Run the work list's shards through the three tasks, a bounded window of them at a time.

    However it ends, no task of the run is at work afterwards.
    """
    engine = engine_for(job.database_url)
    total = sum(1 for _ in cut_shards(iter_items(engine, job.run_id), job.shard_s))
    window: deque[_InFlight] = deque()

    def collect() -> Receipt:
        done = window[0]
        receipt = done.result()
        window.popleft()
        if done.shard.is_last_part and receipt.continues:  # more than the headers announced
            window.append(_submit(job, done.shard.next_part(), done))
        return receipt

    try:
        previous: _InFlight | None = None
        for shard in cut_shards(iter_items(engine, job.run_id), job.shard_s, total):
            previous = _submit(job, shard, previous if shard.part else None)
            window.append(previous)
            while len(window) >= _SHARDS_IN_FLIGHT:
                yield collect()
        while window:
            yield collect()
    except BaseException:
        # A shard that works on would claim clips behind the back of a run that has ended.
        stop_event(job.run_id).set()
        for shard_in_flight in window:
            shard_in_flight.receipt.wait()
        raise


class _InFlight:
    """The futures of one shard."""

    def __init__(
        self,
        shard: Shard,
        features: PrefectFuture[ShardFeatures],
        scores: PrefectFuture[ShardScores],
        receipt: PrefectFuture[Receipt],
    ) -> None:
        self.shard, self.features, self.scores, self.receipt = shard, features, scores, receipt

    def result(self) -> Receipt:
        """Wait for the shard; of a broken chain, the first task's error is raised."""
        self.features.wait()
        self.scores.wait()
        for future in (self.features, self.scores):
            if not future.state.is_completed():
                future.result()
        return self.receipt.result()


def _submit(job: Job, shard: Shard, before: "_InFlight | None") -> "_InFlight":
    """Chain the tasks of a shard; ``before`` is the part before it of the same clip."""
    earlier = (_later(before.features), _later(before.scores)) if before else (None, None)
    features = chunk_and_featurize.submit(job, shard, earlier[0])
    scores = infer.submit(job, shard, _later(features), earlier[1])
    return _InFlight(shard, features, scores, persist.submit(job, shard, _later(scores)))


def _later(future: PrefectFuture[R]) -> R:
    """A future as an argument: Prefect waits for it and hands its result to the task."""
    return cast(R, future)
