"""The lake: what an export costs, and how fast DuckDB answers the ten questions of docs/lake.md.

    .venv/bin/python -m benchmarks.lake [--clips 50000] [--detections 10000000] [--folder DIR]

First a database of so many recordings, twenty detections each, is exported, exported again, and
exported after one start was corrected. Then a lake of so many detections is made past the database
(a hundred a recording of ten minutes, twenty recorders; 2.4 GB for 100 million), or taken from the
folder, and each question is asked four times: the first, and the median of the others.
"""

from __future__ import annotations

import argparse
import re
import resource
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, update

from audioset_core.system import n_cores
from benchmarks.database_load import prepare
from benchmarks.sql_scale import fill
from db.engine import open_engine, reading, writing
from db.migrate import ensure_schema
from db.reports.lake_rows import LakeRow, names_by_model, node_names
from db.schema.tables import nodes, sources
from tasks.lake.tables import (
    ClassRows,
    arrow_table,
    file_name,
    labelling_values,
    partition_of,
    table_file,
)
from tasks.lake.update import update_lake

_DOCS = Path(__file__).parents[1] / "docs" / "lake.md"
_FIRST_MS = 1_714_521_600_000  # 2024-05-01, UTC: questions of docs/lake.md ask about that month
_DETECTIONS, _SCORES, _A_DAY = 100, 30, 20 * 144


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=50_000)
    parser.add_argument("--detections", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="audioset-lake-") as name:
        folder = Path(name)
        engine = open_engine(f"sqlite:///{folder / 'labels.db'}")
        ensure_schema(engine)
        variant = prepare(engine)
        lake = options.folder or folder / "large"
        if options.detections and not lake.exists():
            make(engine, lake, options.detections)
        if options.clips:
            fill(engine, variant, options.clips)
            export(engine, folder / "lake")
        engine.dispose()
        if options.detections:
            ask(lake)


def export(engine: Engine, lake: Path) -> None:
    for what in ("everything", "nothing has changed", "one start corrected"):
        if what.startswith("one"):
            with writing(engine) as conn:
                late = {"recorded_unix_ms": sources.c.recorded_unix_ms + 86_400_000}
                conn.execute(update(sources).where(sources.c.id == 1).values(late))
        began, cpu = time.perf_counter(), time.process_time()
        done = update_lake(engine, lake)
        took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        most_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{what:22}{took_s:8.1f} s, {cpu_s:6.1f} s of CPU, peak of {most_mb:,.0f} MB: "
              f"{done.n_written:,} files written, {done.n_kept:,} kept; "
              f"{done.n_detections:,} detections, {_megabytes(lake):,.0f} MB",
              flush=True)  # fmt: skip


def make(engine: Engine, lake: Path, n_detections: int) -> None:
    """The lake of a database without recordings, then the rows of each day."""
    began = time.perf_counter()
    update_lake(engine, lake)
    with reading(engine) as conn:
        names = node_names(conn)
        (predicted,) = names_by_model(conn).values()
        mids = {row.mid: row.id for row in conn.execute(nodes.select())}
    node_ids = [mids[mid] for _, mid, _ in predicted]
    n_labellings = n_detections // _DETECTIONS
    with ProcessPoolExecutor(n_cores()) as pool:
        days = range(0, n_labellings, _A_DAY)
        jobs = [
            pool.submit(write_day, lake, names, node_ids, range(x, min(x + _A_DAY, n_labellings)))
            for x in days
        ]
        for job in jobs:
            job.result()
    took_s = time.perf_counter() - began
    print(f"{n_detections:,} detections made in {took_s:,.0f} s: {_megabytes(lake):,.0f} MB")


def write_day(lake: Path, names: Any, node_ids: list[int], ids: range) -> None:
    rng = np.random.default_rng(ids.start)
    weights = np.random.default_rng(0).permutation(1.0 / np.arange(1, len(node_ids) + 1))
    weights /= weights.sum()
    rows = [_row(each) for each in ids]
    key = partition_of(rows[0])
    labelled = [
        labelling_values(row)
        | {"parameters": "{}", "n_detections": _DETECTIONS, "n_scores": _SCORES}
        for row in rows
    ]
    made_of = ClassRows(names)
    for table, n in (("detections", _DETECTIONS), ("clip_scores", _SCORES)):
        labelling = np.repeat(np.asarray(ids, np.float64), n)
        node = rng.choice(node_ids, len(labelling), p=weights)
        start = rng.integers(0, 1_200, len(labelling)) * 0.48
        order = np.lexsort((start, node, labelling))
        peak = np.round(10_000 * (0.1 + 0.9 * rng.beta(1.0, 2.5, len(labelling))))
        end = start + 0.96 + rng.integers(0, 9, len(labelling)) * 0.48
        columns = [labelling, node, peak, np.round(peak / 2), start, start, end]
        matrix = np.stack(columns[: 7 if table == "detections" else 4], axis=1)[order]
        _write(
            lake / file_name(table, key, "made up"), table, made_of.table(table, matrix, labelled)
        )
    _write(
        lake / file_name("labellings", key, "made up"),
        "labellings",
        arrow_table("labellings", labelled),
    )


def _write(path: Path, name: str, table: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, table_file(file, name) as add:
        for first in range(0, table.num_rows, 100_000):
            add(table.slice(first, 100_000))


def _row(number: int) -> LakeRow:
    """The labelling of a recording of ten minutes."""
    place = number % 20
    began_ms = _FIRST_MS + number // 20 * 600_000
    return LakeRow(
        number, f"{number:064x}", True, "yamnet", "1", "benchmark", None,
        datetime(2025, 1, 1, tzinfo=UTC), 1_250, False, 600.0,
        f"/data/site-{place}/{number}.wav", "identified", began_ms, 0, f"site {place}",
    )  # fmt: skip


def ask(lake: Path) -> None:
    import duckdb

    questions = re.findall(r"([^\n]*\?)\n\n```sql\n(.*?)```", _DOCS.read_text(), re.DOTALL)
    assert len(questions) == 10
    conn = duckdb.connect()
    conn.execute(f"SET file_search_path = '{lake}'")
    conn.execute((lake / "views.sql").read_text())
    (n,) = conn.execute("SELECT count(*) FROM detections").fetchone() or (0,)
    print(f"\nDuckDB {duckdb.__version__}, {n_cores()} cores, {n:,} detections")
    print(f"  {'':66}{'first s':>9}{'median s':>10}")
    for what, question in questions:
        seconds = []
        for _ in range(4):
            began = time.perf_counter()
            rows = conn.execute(question).fetchall()
            seconds.append(time.perf_counter() - began)
        first, *others = seconds
        print(f"  {what:66}{first:9.2f}{statistics.median(others):10.2f}   ({len(rows):,} rows)",
              flush=True)  # fmt: skip


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*.parquet")) / 1e6


if __name__ == "__main__":
    main()
