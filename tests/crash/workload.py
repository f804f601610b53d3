"""A few clips through the real claim, write and commit code: what the crash tests disturb.

Only decoding and the network are left out. Two runs: the first labels two clips in one batch, meets
a copy of one and a file that fails; the second labels one clip again under other parameters, whose
scores are the same bytes and so the same file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, make_url, text

from audioset_core.models.registry import YAMNET
from audioset_core.ontology.graph import load_default
from audioset_core.storage.atomic_files import TEMP_SUFFIX
from audioset_core.weights.locate import ReadyWeights
from db.catalog.model_registry import find_variant, register_model, register_parameters
from db.catalog.sources import add_to_work_list, iter_items, triage
from db.engine import open_engine, reading, writing
from db.ledger import claims
from db.ledger.claims import LEASE_S
from db.migrate import ensure_schema
from db.records import (
    Claim,
    Clip,
    FailedSource,
    Failure,
    FileState,
    Lease,
    Parameters,
    SeenSource,
    WorkItem,
)
from flows.run import live_runs as run_ledger
from tasks import persist
from tasks.chunk_and_featurize import counted
from tasks.labelling import job
from tasks.labelling.job import Job, labelling_settings
from tasks.labelling.options import LabelOptions
from tasks.labelling.shards import FinishedClip, Receipt, Shard, ShardScores
from tasks.load_ontology import model_record, store_ontology
from tasks.store_check import stray_files as store_folders
from tasks.store_check.report import Report

WEIGHTS = ReadyWeights(Path("none"), "yamnet", "crash-test", "c" * 64)
OPTIONS = LabelOptions(device="cpu")
FRONTEND, FIRST = labelling_settings(OPTIONS, "yamnet")
SECOND = Parameters(FIRST.patch_hop_s, FIRST.score_floor, 0.3, FIRST.extra)
HOP_SAMPLES = 7_680
# Two clips share a folder. Files are named by their first letter; the copy holds a's content.
SHA256 = {"a": "ab" + "1" * 62, "b": "ab" + "2" * 62, "f": "ef" + "3" * 62}
N_PATCHES = {"a": 3, "b": 2}
FIRST_FILES = ("a.wav", "b.wav", "a-copy.wav", "fails.wav")
SECOND_FILES = ("a.wav",)
N_LABELLINGS = 3

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class State:
    """What is in the tables and the results folder: everything but ids, times and tokens."""

    done: Mapping[tuple[str, float], Rows]
    """By (clip, threshold): for each labelling its own columns, class scores and detections."""
    current: Mapping[str, Rows]
    sources: Rows
    n_claimed: int
    n_counted: int
    """Clips that the runs say they have labelled."""
    files: Mapping[str, str]
    """SHA-256 by path; temporary files are not results."""


def prepare(url: str) -> None:
    """An empty database that knows the ontology, the model and both sets of parameters."""
    engine = open_engine(url)
    ensure_schema(engine)
    store_ontology(engine, load_default())
    register_model(engine, model_record(YAMNET, WEIGHTS), job.now())
    for parameters in (FIRST, SECOND):
        register_parameters(engine, parameters)
    engine.dispose()


def reset(url: str, template: Path) -> None:
    """Only the ontology, the model and the parameters are left."""
    database = make_url(url).database
    if url.startswith("sqlite"):
        for path in Path(str(database)).parent.glob(Path(str(database)).name + "*"):
            path.unlink()
        shutil.copy(template, str(database))
        return
    with writing(job.engine_for(url)) as conn:
        conn.execute(text("TRUNCATE sources, clips, labellings, runs, run_items CASCADE"))


def work(url: str, home: Path) -> None:
    """Both runs, as often as one likes: what is done is not done again."""
    engine = job.engine_for(url)
    for files, parameters in ((FIRST_FILES, FIRST), (SECOND_FILES, SECOND)):
        _run(engine, url, home, files, parameters)


def let_go(url: str) -> None:
    """Close the connections, so that a file may be replaced, or a process forked."""
    if job.engine_for.cache_info().currsize:
        job.engine_for(url).dispose()


@contextmanager
def later(seconds: float) -> Iterator[None]:
    """Everything that asks for the time inside the block gets a later one."""
    before = job.now
    with _clock(lambda: before() + timedelta(seconds=seconds)):
        yield


def gather(engine: Engine, home: Path) -> State:
    """Everything that a crash must not change."""
    done: dict[tuple[str, float], Rows] = {}
    with reading(engine) as conn:

        def rows(sql: str, **values: Any) -> Rows:
            return [tuple(row) for row in conn.execute(text(sql), values)]

        thresholds = {FIRST.digest: 0.1, SECOND.digest: 0.3}
        for key, clip, digest, *own in rows(
            "SELECT l.id, c.sha256, p.digest, l.scores_path, l.scores_sha256, l.score_dtype, "
            "l.n_patches, c.n_samples FROM labellings l JOIN clips c ON c.id = l.clip_id "
            "JOIN parameter_sets p ON p.id = l.parameter_set_id WHERE l.status = 'done'"
        ):
            scores = rows(
                "SELECT node_id, peak, mean FROM clip_scores WHERE labelling_id = :key "
                "ORDER BY node_id", key=key,
            )  # fmt: skip
            found = rows(
                "SELECT node_id, start_patch, end_patch, peak, mean, peak_patch FROM detections "
                "WHERE labelling_id = :key ORDER BY node_id, start_patch", key=key,
            )  # fmt: skip
            done.setdefault((clip, thresholds[digest]), []).append((*own, scores, found))
        current: dict[str, Rows] = {}
        for clip, digest in rows(
            "SELECT c.sha256, p.digest FROM labellings l JOIN clips c ON c.id = l.clip_id "
            "JOIN parameter_sets p ON p.id = l.parameter_set_id WHERE l.is_current"
        ):
            current.setdefault(clip, []).append((thresholds[digest],))
        sources = rows(
            "SELECT s.path, s.status, s.reason, c.sha256 FROM sources s "
            "LEFT JOIN clips c ON c.id = s.clip_id ORDER BY s.path_digest"
        )
        ((n_claimed,),) = rows("SELECT count(*) FROM labellings WHERE status <> 'done'")
        ((n_counted,),) = rows("SELECT coalesce(sum(n_labelled), 0) FROM runs")
    return State(done, current, sources, n_claimed, int(n_counted), _files(home))


def violations(found: State, undisturbed: State) -> list[str]:
    """What must not be whatever happens at whatever moment: every row is whole, its file there."""
    wrong = []
    for key, labellings in found.done.items():
        if labellings != undisturbed.done.get(key):
            wrong.append(f"{key}: not the rows of an undisturbed run")
        for path, digest, *_ in labellings:
            if found.files.get(str(path)) != digest:
                wrong.append(f"{key}: {path} is missing or is another")
    for clip in {clip for clip, _ in found.done}:
        if len(found.current.get(clip, ())) != 1:
            wrong.append(f"{clip}: not one current labelling")
    return wrong


def differences(found: State, undisturbed: State) -> list[str]:
    """In what a state, after all runs have ended, is not that of an undisturbed run."""
    return [
        f"{name} {getattr(found, name)} instead of {getattr(undisturbed, name)}"[:400]
        for name in State.__slots__
        if getattr(found, name) != getattr(undisturbed, name)
    ]


def sweep(engine: Engine, home: Path) -> None:
    """Delete what crashes leave in the results folder, however young, as `verify --repair`."""
    with _no_grace():
        store_folders.sweep(engine, home, Report(is_deep=False), is_repair=True)


def temporaries(home: Path) -> list[Path]:
    """Files that a killed process left unfinished."""
    return list((home / "scores").rglob(f"*{TEMP_SUFFIX}"))


def _run(
    engine: Engine, url: str, home: Path, files: tuple[str, ...], parameters: Parameters
) -> None:
    variant = find_variant(engine, WEIGHTS.model, WEIGHTS.version, parameters)
    assert variant is not None
    with run_ledger.recorded_run(engine, home, {}) as run:
        own = Job(
            run_id=run.run_id, home=home, database_url=url, options=OPTIONS, weights=WEIGHTS,
            frontend=FRONTEND, parameters=parameters, variant=variant,
        )  # fmt: skip
        seen = [SeenSource(f"/corpus/{name}".encode(), 1_000, 7) for name in files]
        with reading(engine) as conn:
            judged = triage(conn, [variant], seen)
        open_files = [
            (file, 1.0)
            for file, judgement in zip(seen, judged, strict=True)
            if judgement.state not in (FileState.DONE, FileState.FAILED)
        ]
        add_to_work_list(engine, run.run_id, open_files, start=0, now=job.now())
        items = tuple(iter_items(engine, run.run_id))
        shard = Shard(1, 1, items, estimated_s=5.0, budget_s=60.0)
        run.summary.add(_label(engine, own, shard))


def _label(engine: Engine, own: Job, shard: Shard) -> Receipt:
    """The shard's claims, then what takes the place of the network, then persist."""
    scores = ShardScores()
    for item in shard.items:
        clip = _clip(item)
        outcome = claims.claim_clip(
            engine, item.source_id, clip, own.variant, Lease(own.run_id, LEASE_S, job.now())
        )
        if not isinstance(outcome, Claim):
            scores.counts += counted(outcome, clip)
        elif _letter(item) == "f":
            failure = Failure(item.source_id, "truncated", "ends early", outcome)
            scores.failures.append(FailedSource(item.path, failure))
        else:
            results = {"scores": logits(_letter(item))}
            scores.finished.append(FinishedClip(item.path, outcome, clip, results))
    return persist.persist_shard((own,), shard, scores)


def logits(letter: str) -> Any:
    """What the network says of a clip. Shape: [n_patches, 521], float16."""
    rng = np.random.default_rng(ord(letter))
    found = np.full((N_PATCHES[letter], 521), -8, np.float16)
    found[:, rng.choice(521, 6, replace=False)] = rng.uniform(-3, 3, 6).astype(np.float16)
    return found


def _letter(item: WorkItem) -> str:
    return os.fsdecode(item.path).rsplit("/", 1)[1][0]


def _clip(item: WorkItem) -> Clip:
    letter = _letter(item)
    n_samples = 15_600 + HOP_SAMPLES * (N_PATCHES.get(letter, 1) - 1)
    return Clip(SHA256[letter], 1_000, n_samples / 16_000, 16_000, 1, n_samples, "wav")


def _files(home: Path) -> dict[str, str]:
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (home / "scores").rglob("*")
        if path.is_file() and not path.name.endswith(TEMP_SUFFIX)
    }


@contextmanager
def _clock(clock: Any) -> Iterator[None]:
    modules = (job, persist, run_ledger)
    before = [module.now for module in modules]
    for module in modules:
        module.now = clock
    try:
        yield
    finally:
        for module, function in zip(modules, before, strict=True):
            module.now = function


@contextmanager
def _no_grace() -> Iterator[None]:
    before = store_folders.GRACE_S
    store_folders.GRACE_S = -10.0
    try:
        yield
    finally:
        store_folders.GRACE_S = before
