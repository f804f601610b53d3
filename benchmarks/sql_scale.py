"""SQL on a large collection: a million clips, ten classes and twenty detections each.

    .venv/bin/python -m benchmarks.sql_scale [--clips 1000000] [--detections 20]
                                             [--database sqlite postgresql]

Rows are made up (a few classes are everywhere, most are rare) and written past the application;
what runs write, and how fast, is in `database_load`. Then the questions of `audioset query` and of
an analyst are asked, warm, and medians printed beside the project's targets. PostgreSQL is started
for the purpose where one is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, Table, event, insert, text

from benchmarks.database_load import prepare
from db.answer_records import Hit
from db.engine import open_engine, writing
from db.migrate import ensure_schema
from db.query.find import find_clips
from db.query.hours import Grouping, HeardFor, hours_heard
from db.query.question import Question
from db.query.totals import totals_by_mid
from db.records import Variant
from db.reports.collection import node_hours
from db.schema.tables import categories, clip_scores, clips, detections, labellings, sites, sources
from db.totals.keeping import add_totals
from db.totals.recount import missing_totals
from tasks.labelling.job import now

N_SCORES, N_DETECTIONS = 10, 20
_PATCHES = 1_250
_BLOCK = 10_000
_FIRST_MS = 1_704_067_200_000  # 2024-01-01, UTC
_ANIMAL, _DOG, _MUSIC, _SPEECH = "/m/0jbk", "/m/0bt9lr", "/m/04rlf", "/m/09x0r"
_INTERVALS = "SELECT count(*) FROM detections WHERE labelling_id = :id"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--detections", type=int, default=N_DETECTIONS, help="of each clip")
    parser.add_argument("--database", nargs="*", default=["sqlite", "postgresql"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="audioset-sql-") as name:
        for kind in options.database:
            with database(kind, Path(name)) as url:
                if url is None:
                    print(f"{kind}: left out, no server is installed")
                    continue
                engine = open_engine(url)
                ensure_schema(engine)
                variant = prepare(engine)
                began = time.perf_counter()
                n_rows = fill(engine, variant, options.clips, options.detections)
                took_s = time.perf_counter() - began
                print(f"\n{kind}: {options.clips:,} clips, {n_rows:,} rows, written at "
                      f"{n_rows / took_s:,.0f} rows/s", flush=True)  # fmt: skip
                ask(engine)
                engine.dispose()


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str | None]:
    if kind == "sqlite":
        yield f"sqlite:///{folder}/labels.db"
        return
    from tests import postgres

    binaries = postgres.find_binaries()
    if binaries is None:
        yield None
        return
    with postgres.running_postgres(binaries) as url:
        yield url


def ask(engine: Engine) -> None:
    """Time the questions; the first of each warms the cache up."""

    def best(mid: str, *not_under: str) -> list[Hit]:
        return find_clips(engine, Question(under=(mid,), not_under=not_under))

    def count(mid: str) -> int:
        return totals_by_mid(engine, [mid], 0.5)[mid].n_clips

    def hours(by: Grouping) -> list[HeardFor]:
        return hours_heard(engine, Question(under=(_MUSIC,), min_score=0.5), by)

    def intervals() -> int:
        with engine.connect() as connection:
            return int(connection.execute(text(_INTERVALS), {"id": 4_711}).scalar_one())

    questions: list[tuple[str, Callable[[], Any], float]] = [
        ("top 100 under Animal", lambda: best(_ANIMAL), 20),
        ("top 100 under Dog", lambda: best(_DOG), 20),
        ("top 100 under Music", lambda: best(_MUSIC), 20),
        ("top 100 under Music, not Speech", lambda: best(_MUSIC, _SPEECH), 20),
        ("clips with Animal at 0.5, counted", lambda: count(_ANIMAL), 100),
        ("clips with Music at 0.5, counted", lambda: count(_MUSIC), 100),
        ("hours of each class", lambda: hours("class"), 100),
        ("hours of each branch of Music", lambda: hours("second-level"), 100),
        ("hours of every node", lambda: node_hours(engine, 0.5), 100),
        ("the intervals of one clip", intervals, 20),
    ]
    print(f"  {'medians':36}{'SQL ms':>9}{'target':>9}{'with Python':>13}")
    for what, question, target_ms in questions:
        rounds = [timed(engine, question) for _ in range(10)][1:]
        answer, sql_ms, whole_ms = zip(*rounds, strict=True)
        size = answer[0] if isinstance(answer[0], int) else len(answer[0])
        print(f"  {what:36}{statistics.median(sql_ms):9.1f}{target_ms:9g}"
              f"{statistics.median(whole_ms):13.1f}   ({size:,})", flush=True)  # fmt: skip


def timed(engine: Engine, question: Callable[[], Any]) -> tuple[Any, float, float]:
    """The answer, milliseconds in the database's driver, and in all: statements are built too.

    Rows that SQLite computes while they are fetched count for "all" only; those that are sorted
    or counted, as all of these, are computed before the first.
    """
    sql_s = 0.0
    began = 0.0

    def before(*_: Any) -> None:
        nonlocal began
        began = time.perf_counter()

    def after(*_: Any) -> None:
        nonlocal sql_s
        sql_s += time.perf_counter() - began

    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "after_cursor_execute", after)
    whole_began = time.perf_counter()
    answer = question()
    whole_s = time.perf_counter() - whole_began
    event.remove(engine, "before_cursor_execute", before)
    event.remove(engine, "after_cursor_execute", after)
    return answer, sql_s * 1e3, whole_s * 1e3


def fill(engine: Engine, variant: Variant, n_clips: int, n_detections: int = N_DETECTIONS) -> int:
    """Write the rows, past the application and without indexes, which follow; returns how many."""
    rng = np.random.default_rng(0)
    with engine.connect() as connection:
        query = categories.select().where(categories.c.model_id == variant.model_id)
        node_ids = np.array([row.node_id for row in connection.execute(query)])
    weights = 1.0 / np.arange(1, len(node_ids) + 1)  # Zipf: few classes make up most of it
    weights = rng.permutation(weights) / weights.sum()
    tables = (clips, sources, labellings, clip_scores, detections)
    indexes = [index for table in tables for index in table.indexes]
    names = [*(f"site {n}" for n in range(20)), "small site"]
    places = [
        {"id": n, "name": name, "latitude_deg": 46.99 + n / 100, "longitude_deg": 7.99 + n / 100}
        for n, name in enumerate(names, 1)
    ]
    with writing(engine) as connection:
        connection.execute(insert(sites), [place | {"added_at": now()} for place in places])
        for index in indexes:
            index.drop(connection)
    n_rows = 0
    for first in range(1, n_clips + 1, _BLOCK):
        ids = range(first, min(first + _BLOCK, n_clips + 1))
        with writing(engine) as connection:
            for table, columns in _columns(ids, node_ids, weights, variant, rng, n_detections):
                n_rows += _write(connection, table, columns)
    with writing(engine) as connection:
        for index in indexes:
            index.create(connection)
        began = time.perf_counter()
        add_totals(connection, missing_totals(connection))
        took_s = time.perf_counter() - began
        print(f"\n{n_clips / took_s:,.0f} clips/s counted, as by the migration of old databases")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # As PostgreSQL does by itself in a while; its index-only scans depend on it.
        is_sqlite = engine.dialect.name == "sqlite"
        connection.exec_driver_sql("ANALYZE" if is_sqlite else "VACUUM ANALYZE")
    return n_rows


Columns = dict[str, Sequence[Any]]


def _columns(
    ids: range,
    node_ids: Any,
    weights: Any,
    variant: Variant,
    rng: np.random.Generator,
    n_detections: int,
) -> Iterator[tuple[Table, Columns]]:
    def all_alike(**values: Any) -> Columns:
        return {name: [value] * len(ids) for name, value in values.items()}

    at = now()
    sha256 = [hashlib.sha256(str(clip_id).encode()).hexdigest() for clip_id in ids]
    yield clips, {"id": ids, "sha256": sha256} | all_alike(
        size_bytes=1, duration_s=600.0, sample_rate_hz=16_000, n_channels=1,
        n_samples=9_600_000, format="WAV", first_seen_at=at,
    )  # fmt: skip
    # Twenty recorders, each of which begins a file every ten minutes.
    paths = [f"/data/site-{clip_id % 20}/{clip_id}.wav" for clip_id in ids]
    began_ms = [_FIRST_MS + clip_id // 20 * 600_000 for clip_id in ids]
    digests = [bytes.fromhex(digest[:32]) for digest in sha256]
    own = {"id": ids, "path_digest": digests, "path": [path.encode() for path in paths]}
    own |= {"path_text": paths, "clip_id": ids, "recorded_unix_ms": began_ms}
    own |= {"site_id": [21 if clip_id <= 1_000 else clip_id % 20 + 1 for clip_id in ids]}
    yield sources, own | all_alike(
        size_bytes=1, mtime_ns=1, status="identified", first_seen_at=at, last_read_at=at,
        recorded_utc_offset_s=0, recorded_by="benchmark", site_by="folder",
    )  # fmt: skip
    yield labellings, {"id": ids, "clip_id": ids, "source_id": ids} | all_alike(
        model_id=variant.model_id, parameter_set_id=variant.parameter_set_id, status="done",
        token=1, n_patches=_PATCHES, is_current=True, labelled_at=at,
    )  # fmt: skip
    # The best of random keys divided by weights: a weighted draw without repetition.
    keys = rng.exponential(size=(len(ids), len(node_ids))) / weights
    chosen = np.sort(node_ids[np.argpartition(keys, N_SCORES, axis=1)[:, :N_SCORES]])
    peaks = 0.1 + 0.9 * rng.beta(1.0, 2.5, size=chosen.shape)
    labelling_ids = np.asarray(ids)
    scores = (labelling_ids.repeat(N_SCORES), chosen.ravel(), peaks.ravel(), peaks.ravel() / 2)
    names = ("labelling_id", "node_id", "peak", "mean")
    yield clip_scores, dict(zip(names, (x.tolist() for x in scores), strict=True))
    nth = np.tile(np.arange(n_detections), len(ids))
    which = (np.arange(len(nth)) // n_detections, nth % N_SCORES)
    apart = _PATCHES // n_detections
    intervals = {
        "labelling_id": labelling_ids.repeat(n_detections), "node_id": chosen[which],
        "start_patch": apart * nth, "end_patch": apart * nth + 7, "peak": peaks[which],
        "mean": peaks[which] / 2, "peak_patch": apart * nth + 3,
    }  # fmt: skip
    yield detections, {name: x.tolist() for name, x in intervals.items()}


def _write(connection: Connection, table: Table, columns: Columns) -> int:
    """The fastest way that the driver has; returns the number of rows."""
    bound = []
    for name, values in columns.items():
        kind = table.c[name].type.dialect_impl(connection.dialect)
        process = kind.bind_processor(connection.dialect)
        bound.append(values if process is None else map(process, values))
    names, rows = ", ".join(columns), zip(*bound, strict=True)
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(columns))
        driver.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608
    else:
        with driver.cursor().copy(f"COPY {table} ({names}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    return len(columns[next(iter(columns))])


if __name__ == "__main__":
    main()
