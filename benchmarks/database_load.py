"""What labelling costs the database: clips a second, and its CPU time per million clips.

    .venv/bin/python -m benchmarks.database_load [--clips 5000] [--url postgresql+psycopg://...]

Claims and commits made-up labellings (12 class scores and 25 detections each, as 10 minutes of
ordinary sound have) exactly as runs do: a claim per clip, 32 clips a commit, from 1 and from 4
threads. Without a URL: SQLite, and a PostgreSQL that is started for the purpose where one is
installed (with fsync, unlike in the tests).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from audioset_core.models.registry import YAMNET
from audioset_core.ontology.graph import load_default
from audioset_core.records import ClassScore, Detection
from db.catalog.model_registry import register_model, register_parameters
from db.catalog.sources import add_to_work_list, iter_items
from db.engine import open_engine
from db.ledger.claims import claim_clip, commit_labellings
from db.ledger.runs import start_run
from db.migrate import ensure_schema
from db.records import (
    Claim,
    Clip,
    Labelling,
    Lease,
    Model,
    Parameters,
    SeenSource,
    Variant,
    WorkItem,
)
from tasks.labelling.job import now
from tasks.load_ontology import store_ontology

BATCH, N_SCORES, N_DETECTIONS = 32, 12, 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=5_000)
    parser.add_argument("--url")
    options = parser.parse_args()
    head = ("database", "threads", "clips/s", "CPU of database per million clips")
    print(f"{head[0]:12}{head[1]:>8}{head[2]:>10}{head[3]:>36}")
    for name, url, server in databases(options.url):
        engine = open_engine(url)
        ensure_schema(engine)
        for n_threads in (1, 4):
            rate, cpu_s = measure(engine, options.clips, n_threads, server)
            cpu = f"{cpu_s * 1e6 / options.clips / 60:.0f} min" if cpu_s is not None else "in ours"
            print(f"{name:12}{n_threads:8}{rate:10,.0f}{cpu:>36}", flush=True)
        engine.dispose()


def databases(url: str | None) -> Iterator[tuple[str, str, Path | None]]:
    if url:
        yield "given", url, None
        return
    with tempfile.TemporaryDirectory() as folder:
        yield "SQLite", f"sqlite:///{folder}/labels.db", None
    from tests import postgres

    binaries = postgres.find_binaries()
    if binaries is not None:
        postgres._FAST = "-c max_connections=100"
        with postgres.running_postgres(binaries) as running:
            yield "PostgreSQL", running, binaries


def measure(
    engine: Engine, n_clips: int, n_threads: int, server: Path | None
) -> tuple[float, float | None]:
    run_id, variant = str(uuid.uuid4()), prepare(engine)
    start_run(engine, run_id, "host", os.getpid(), {}, now())
    seen = [
        (SeenSource(f"/{run_id}/{number}.wav".encode(), 1, 1), 600.0) for number in range(n_clips)
    ]
    add_to_work_list(engine, run_id, seen, now=now())
    items = list(iter_items(engine, run_id))
    before = cpu_of_server() if server else 0.0
    began = time.perf_counter()
    threads = [
        threading.Thread(target=label, args=(engine, items[part::n_threads], variant, run_id))
        for part in range(n_threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = n_clips / (time.perf_counter() - began)
    return rate, cpu_of_server() - before if server else None


def label(engine: Engine, items: list[WorkItem], variant: Variant, run_id: str) -> None:
    rng = np.random.default_rng(0)
    for start in range(0, len(items), BATCH):
        labellings = []
        for item in items[start : start + BATCH]:
            sha256 = hashlib.sha256(item.path).hexdigest()
            clip = Clip(sha256, 1, 600.0, 16_000, 1, 9_600_000, "wav")
            claim = claim_clip(engine, item.source_id, clip, variant, Lease(run_id, 600.0, now()))
            assert isinstance(claim, Claim)
            labellings.append(made_up(claim, clip, rng))
        assert all(commit_labellings(engine, variant, labellings, run_id, now()))


def made_up(claim: Claim, clip: Clip, rng: np.random.Generator) -> Labelling:
    classes = rng.choice(521, N_SCORES, replace=False).tolist()
    peaks = (0.1 + 0.9 * rng.beta(1.0, 2.5, N_DETECTIONS)).round(4).tolist()
    own = [max(peaks[n::N_SCORES]) for n in range(N_SCORES)]
    return Labelling(
        claim, clip, 1_249, f"scores/yamnet/{clip.sha256}.npy", clip.sha256, "float16",
        class_scores=tuple(ClassScore(c, p, p / 5) for c, p in zip(classes, own, strict=True)),
        detections=tuple(
            Detection(classes[n % N_SCORES], 40 * n, 40 * n + 7, p, 0.8 * p, 40 * n + 3)
            for n, p in enumerate(peaks)
        ),
    )  # fmt: skip


def prepare(engine: Engine) -> Variant:
    store_ontology(engine, load_default())
    categories = tuple((c.index, c.mid, c.name) for c in YAMNET.categories)
    model = Model("yamnet", "benchmark", "0" * 64, 16_000, 0.96, 1024, categories)
    parameters = Parameters(0.48, 0.1, 0.1)
    return Variant(register_model(engine, model, now()), register_parameters(engine, parameters))


def cpu_of_server() -> float:
    """Seconds of CPU that all processes called postgres have used, ended children included."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, fields = stat.read_text().rsplit(")", 1)
        except OSError:
            continue
        if "(postgres" in name:
            total += sum(map(int, fields.split()[11:15])) / ticks
    return total


if __name__ == "__main__":
    main()
