"""What Prefect costs: the flow against the same engine without it, on the same files.

    .venv/bin/python -m benchmarks.orchestration            (1 hour, and 200 files of 5 s)
    .venv/bin/python -m benchmarks.orchestration --full     (10 hours, and 1,000 files of 5 s)

Both label generated FLAC files into fresh homes: discovery, claims, decoding, network, fsynced
score files and SQL rows. "engine" hands the shards to the very functions that the tasks wrap,
overlapped in the same way by plain threads; "flow" is `label-audio` reporting to a Prefect server
that runs beside it (its CPU time is in the figure, its start is not). The two take turns; medians
are compared, and, since a machine's noise only ever adds, the fastest of each; "CPU" compares the
CPU seconds that all of the work took, the server's included. The growth of Prefect's database is
printed per 100 hours of audio, and once more for a run of days, whose network is left out.

Measured on 2 cores (--full --repeats 3):

- 10 h: 76.9 s without Prefect, 80.8 s with it, medians; the fastest differ by 1.6 %, CPU by 0.7 %.
  On a slower machine 138.6 and 139.2 s.
- 1,000 files of 5 s: 13.3 s against 14.1 s (6.6 %; the fastest: 3.3 %; CPU: 2.4 %).
- Before the flow itself started each task with what the one before gave, Prefect asked its server
  about every future that a task was handed: 137 and 148 s against 162 and 156 s for 10 h.
- A task run takes 23 ms of the server's CPU, which by default writes each event by itself and takes
  60. Prefect's heartbeat thread, which deployments have and `audioset label` has not, adds up to
  1 s.
- Prefect's database: 0.37 MB for a run of 10 h, 0.6 MB for one of 100: some ten task runs of 24 kB
  from four hours on. A shorter run has three for every shard: 0.55 MB for an hour. Most of that are
  events, which Prefect deletes after a week.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import shutil
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.corpora import make_flac
from benchmarks.processes import call

RATE_HZ = 32_000
LOGGER = logging.getLogger("benchmark")


def main() -> None:
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"  # before Prefect is imported
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the sizes that the targets name")
    parser.add_argument("--heartbeat", action="store_true", help="as deployments have it")
    parser.add_argument("--repeats", type=int, default=3, help="of the long corpus; short: double")
    parser.add_argument("--only", choices=("long", "short", "growth"))
    options = parser.parse_args()
    hours, n_short = (10.0, 1_000) if options.full else (1.0, 200)
    corpora = {
        "long": (f"{hours:g} h in 5-minute files", round(hours * 12), 300.0, 0.02),
        "short": (f"{n_short:,} files of 5 s", n_short, 5.0, 0.05),
    }
    with (
        tempfile.TemporaryDirectory() as name,
        prefect_server(Path(name), heartbeat=options.heartbeat) as database,
    ):
        compare(corpus_of(Path(name), 10, 5.0), Path(name), database, 50.0, 1)  # loads the network
        print(
            f"{'':26}{'engine s':>10}{'flow s':>9}{'overhead':>10}{'of fastest':>12}{'target':>8}"
            f"{'CPU':>8}{'server CPU s':>14}{'MB of Prefect per 100 h':>25}"
        )
        for which, (what, n_files, length_s, target) in corpora.items():
            if options.only not in (None, which):
                continue
            repeats = options.repeats * (2 if which == "short" else 1)
            folder = corpus_of(Path(name), n_files, length_s)
            row = compare(folder, Path(name), database, n_files * length_s, repeats)
            print(
                f"{what:26}{row['engine_s']:10.2f}{row['flow_s']:9.2f}{row['overhead']:10.1%}"
                f"{row['overhead_fastest']:12.1%}{target:8.0%}{row['overhead_cpu']:8.1%}"
                f"{row['server_cpu_s']:14.2f}{row['prefect_mb_per_100_h']:25.2f}",
                flush=True,
            )
        if options.only in (None, "growth"):
            row = growth(Path(name), database, 100 if options.full else 30)
            print(f"{row['corpus']:26}{'':71}{row['prefect_mb_per_100_h']:25.2f}")


def corpus_of(folder: Path, n_files: int, length_s: float) -> Path:
    corpus = folder / f"corpus-{n_files}"
    call("benchmarks.orchestration:make_corpus", corpus, n_files, length_s)
    return corpus


def make_corpus(folder: str, n_files: int, length_s: float) -> None:
    for number in range(n_files):
        make_flac(f"{folder}/{number:05}.flac", length_s, number, RATE_HZ, 1)


def compare(
    corpus: Path, folder: Path, database: Path, audio_s: float, repeats: int
) -> dict[str, Any]:
    ways: dict[str, Callable[[Path, Path], int]] = {"engine": engine, "flow": flow}
    times: dict[str, list[float]] = {way: [] for way in ways}
    served: dict[str, list[float]] = {way: [] for way in ways}
    computed: dict[str, list[float]] = {way: [] for way in ways}
    grown: list[int] = []
    n_files = sum(1 for _ in corpus.iterdir())
    for repeat in range(repeats):
        turns = list(ways.items())
        for way, label in turns if repeat % 2 == 0 else reversed(turns):
            home = folder / f"home-{uuid.uuid4()}"
            before, server_s, decoders_s = size_of(database), *children_cpu_s()
            cpu_began, began = time.process_time(), time.perf_counter()
            n_labelled = label(corpus, home)
            times[way].append(time.perf_counter() - began)
            assert n_labelled == n_files, (way, n_labelled)
            if way == "flow":
                settle()
                grown.append(size_of(database) - before)
            server_now_s, decoders_now_s = children_cpu_s()
            served[way].append(server_now_s - server_s)
            own_s = time.process_time() - cpu_began
            computed[way].append(own_s + served[way][-1] + decoders_now_s - decoders_s)
            shutil.rmtree(home)
    engine_s, flow_s = (statistics.median(times[way]) for way in ways)
    return {
        "engine_s": engine_s,
        "flow_s": flow_s,
        "overhead": flow_s / engine_s - 1,
        "overhead_fastest": min(times["flow"]) / min(times["engine"]) - 1,
        "overhead_cpu": min(computed["flow"]) / min(computed["engine"]) - 1,
        "server_cpu_s": statistics.median(served["flow"]) - statistics.median(served["engine"]),
        "prefect_mb_per_100_h": statistics.median(grown) / 1e6 / (audio_s / 360_000),
    }


def growth(folder: Path, database: Path, hours: int) -> dict[str, Any]:
    """A run of days, as far as Prefect sees it: the network is left out."""
    import tasks.infer
    from audioset_core.inference.scorer import Output

    class Silent:
        def run(self, pieces: Any, *_: Any, **__: Any) -> list[Output]:
            return [Output(np.full((p.n_patches, 521), -9, np.float32), None) for p in pieces]

    corpus = folder / "corpus-growth"
    corpus.mkdir()
    for number in range(hours):
        samples = np.zeros(3_600_000 + number, np.int16)  # each of another length: another content
        soundfile.write(corpus / f"{number:03}.flac", samples, 1_000)
    before, scorer_for = size_of(database), tasks.infer.scorer_for
    tasks.infer.scorer_for = lambda *_: Silent()  # type: ignore[assignment,return-value]
    try:
        n_labelled = flow(corpus, folder / "home-growth")
    finally:
        tasks.infer.scorer_for = scorer_for
    assert n_labelled == hours, n_labelled
    settle()
    grown_mb = (size_of(database) - before) / 1e6
    return {"corpus": f"{hours} h in one run", "prefect_mb_per_100_h": grown_mb * 100 / hours}


def flow(corpus: Path, home: Path) -> int:
    from flows.label_audio import label_audio

    return label_audio(paths=[str(corpus)], home=home).n_labelled


def engine(corpus: Path, home: Path) -> int:
    """Label with the functions of the tasks, chained by threads."""
    from audioset_core.inputs.walk import read_inputs
    from audioset_core.ontology.graph import load_default
    from audioset_core.weights.locate import prepare
    from db.catalog.model_registry import register_model, register_parameters
    from db.catalog.sources import iter_items
    from db.records import Variant
    from flows.run.live_runs import recorded_run
    from flows.run.preparation import prepare_run
    from tasks.chunk_and_featurize import featurize_shard
    from tasks.infer import score_shard
    from tasks.labelling.job import now
    from tasks.labelling.options import LabelOptions
    from tasks.labelling.shards import SHARDS_IN_FLIGHT, cut_shards, shard_length_s
    from tasks.labelling.start_times import time_recordings
    from tasks.labelling.worklist import discover
    from tasks.load_ontology import model_record, store_ontology
    from tasks.persist import persist_shard

    prepared = prepare_run(LabelOptions(), home, None)
    connection = prepared.engine
    with recorded_run(connection, home, {}) as run:
        (model,) = prepared.models
        weights = prepare(model.bundle)
        store_ontology(connection, load_default())
        variant = Variant(
            register_model(connection, model_record(model.bundle, weights), now()),
            register_parameters(connection, model.parameters),
        )
        job = prepared.job(run.run_id, model, weights, variant)
        found = discover(connection, run.run_id, [variant], read_inputs([str(corpus)]))
        time_recordings(connection)
        window: deque[tuple[Future[Any], ...]] = deque()
        with ThreadPoolExecutor(3 * SHARDS_IN_FLIGHT) as pool:

            def submit(shard: Any, before: tuple[Future[Any], ...] | None) -> None:
                features = pool.submit(
                    lambda: featurize_shard(
                        (job,), shard, before[0].result() if before else None, LOGGER
                    )
                )
                scores = pool.submit(
                    lambda: score_shard(
                        (job,), features.result(), before[1].result() if before else None
                    )
                )
                receipt = pool.submit(lambda: persist_shard((job,), shard, scores.result()))
                window.append((features, scores, receipt))

            shard_s = shard_length_s(found.estimated_s)
            for shard in cut_shards(iter_items(connection, job.run_id), shard_s):
                submit(shard, window[-1] if shard.part else None)
                while len(window) >= SHARDS_IN_FLIGHT:
                    wait([chain[2] for chain in window], return_when="FIRST_COMPLETED")
                    for chain in [chain for chain in window if chain[2].done()]:
                        window.remove(chain)
                        run.summary.add(chain[2].result())
            for chain in window:
                run.summary.add(chain[2].result())
        return run.summary.n_labelled


@contextmanager
def prefect_server(folder: Path, *, heartbeat: bool = False) -> Iterator[Path]:
    """A Prefect server, to which flows report inside the block; its database."""
    from flows.prefect_server.settings import ENVIRONMENT

    os.environ.update(ENVIRONMENT)  # as every server that the project starts
    from prefect.events.worker import EventsWorker
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_SERVER_ANALYTICS_ENABLED,
        PREFECT_SERVER_DATABASE_CONNECTION_URL,
        temporary_settings,
    )

    database = folder / "prefect.db"
    settings = {
        PREFECT_SERVER_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{database}",
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
    }
    if not heartbeat:
        settings[PREFECT_FLOWS_HEARTBEAT_FREQUENCY] = None
    with temporary_settings(settings):
        server = SubprocessASGIServer()
        server.start(timeout=120)
        try:
            with temporary_settings({PREFECT_API_URL: server.api_url}):
                yield database
        finally:
            EventsWorker.drain_all(timeout=10)
            server.stop()


def settle() -> None:
    """Let the last events and logs reach Prefect's database."""
    time.sleep(8)


def children_cpu_s() -> tuple[float, float]:
    """CPU seconds of the server, its start included, and of the decoders, also of those before."""
    import psutil

    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    server_s, decoders_s = 0.0, ended.ru_utime + ended.ru_stime
    for process in psutil.Process().children(recursive=True):
        spent_s = sum(process.cpu_times()[:2])
        if "audioset_core.audio.sandbox_process" in process.cmdline():
            decoders_s += spent_s
        else:
            server_s += spent_s
    return server_s, decoders_s


def size_of(database: Path) -> int:
    """Bytes in use, whatever lies in the write-ahead log."""
    names = ("page_count", "freelist_count", "page_size")
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        pages, free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return int((pages - free) * size)


if __name__ == "__main__":
    main()
