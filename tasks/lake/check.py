"""Whether a lake has every labelling of the tables exactly once, with the same rows."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, Engine

from audioset_core.export_formats.parquet import load_pyarrow
from audioset_core.storage.lake_files import LIST, Lake, reading_lake, sha256_of
from db.engine import reading
from db.paging import batches
from db.reports import lake_rows
from db.types import SCORE_SCALE
from tasks.lake.tables import PARTITIONED
from tasks.lake.update import name_of_table, partitions, same_ledger

_AT_ONCE = 500
_LACKING = "not there yet: export again"
_GONE = "gone: export again"
_BETWEEN = "an export was stopped while files changed places: export again"
_FORMER = "no longer what the database says: export again"
_DELETE = "delete it, and export again"

Problem = tuple[str, str]
"""(file, what is wrong)"""


def check_lake(engine: Engine, folder: Path) -> tuple[int, list[Problem]]:
    """(how many files were read, what is wrong). Every byte of the lake is read, none written.

    Raises:
        UserError: pyarrow is not installed, there is no lake, the lake is of another database, or
            somebody is changing it.
    """
    load_pyarrow()
    with reading_lake(folder) as lake, reading(engine) as conn:
        same_ledger(conn, lake)
        if lake.is_between():
            return 0, [(LIST, _BETWEEN)]
        damaged = dict(_of_files(lake))
        return len(lake.files), [*damaged.items(), *_of_rows(conn, lake, damaged)]


def _of_files(lake: Lake) -> Iterator[Problem]:
    """Files that are not what was written."""
    for name, told in lake.files.items():
        try:
            if sha256_of(lake.folder / name) != told.sha256:
                yield name, f"damaged: {_DELETE}"
        except FileNotFoundError:
            yield name, _GONE
        except OSError as error:
            yield name, f"{error.strerror}: {_DELETE}"
    for name in lake.strays():
        yield name, "not of this lake, but a glob would read it: move it away"


def _of_rows(conn: Connection, lake: Lake, damaged: Container[str]) -> Iterator[Problem]:
    """Whole files whose rows are not those of the tables."""
    expected = {name_of_table(conn, of) for of in lake_rows.whole_tables()}
    for key, partition in partitions(conn).items():
        names = partition.names(key)
        expected.update(names.values())
        if not lake.files.keys() >= set(names.values()):
            continue
        stored = _stored(conn, list(partition.ids))
        for table, name in names.items():
            if name in damaged:
                continue
            read = _read(lake.folder / name, table)
            if n := sum(stored[table].get(x) != read.get(x) for x in stored[table].keys() | read):
                yield name, f"{n:,} labellings have other rows: {_DELETE}"
    for name in sorted(expected ^ lake.files.keys()):
        yield name, _LACKING if name in expected else _FORMER


Sums = dict[int, tuple[int, int]]
"""(rows, sum of peaks in 1/10,000) by labelling."""


def _stored(conn: Connection, ids: list[int]) -> dict[str, Sums]:
    found: dict[str, Sums] = {table: {} for table in PARTITIONED}
    found["labellings"] = dict.fromkeys(ids, (1, 0))
    for batch in batches(ids, _AT_ONCE):
        for table, rows in lake_rows.sums(conn, batch).items():
            found[table] |= {row[0]: (row[1], row[2]) for row in rows}
    return found


def _read(path: Path, table: str) -> Sums:
    _, parquet = load_pyarrow()
    columns = ["labelling_id"] if table == "labellings" else ["labelling_id", "peak"]
    found: Sums = {}
    with parquet.ParquetFile(path) as file:
        for part in file.iter_batches(columns=columns):
            ids, index = np.unique(part["labelling_id"].to_numpy(), return_inverse=True)
            peaks = np.zeros(len(index)) if len(columns) == 1 else part["peak"].to_numpy()
            rows = np.bincount(index, minlength=len(ids)).tolist()
            scores = np.round(peaks * SCORE_SCALE)
            totals = np.bincount(index, scores, minlength=len(ids)).astype(int).tolist()
            for each, n, total in zip(ids.tolist(), rows, totals, strict=True):
                before = found.get(each, (0, 0))
                found[each] = (before[0] + n, before[1] + total)
    return found
