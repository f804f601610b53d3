"""Bring a lake up to date with the tables: files are written anew of which any row has changed."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine

from audioset_core.errors import UserError
from audioset_core.export_formats.parquet import load_pyarrow
from audioset_core.storage.atomic_files import write_text
from audioset_core.storage.lake_files import Lake, LakeFile, open_lake
from db.engine import reading
from db.paging import batches
from db.reports import lake_rows
from tasks.lake.tables import (
    PARTITIONED,
    ClassRows,
    arrow_table,
    file_name,
    file_values,
    labelling_values,
    partition_of,
    table_file,
    views_sql,
)

# Files of another version are written anew.
_VERSION = 1
_AT_ONCE = 500


@dataclass(slots=True)
class Partition:
    """The labellings of a model and a day, and a digest of all that their rows are made of."""

    digest: Any = field(default_factory=hashlib.sha256)
    ids: array[int] = field(default_factory=lambda: array("q"))

    def names(self, key: str) -> dict[str, str]:
        """The names of its files by table."""
        return {table: file_name(table, key, self.digest.hexdigest()) for table in PARTITIONED}


@dataclass(frozen=True, slots=True)
class Updated:
    """What came of the update: files by what happened to them, and what the lake has now."""

    n_written: int
    n_kept: int
    n_removed: int
    n_labellings: int
    n_detections: int
    strays: list[str]


def update_lake(
    engine: Engine, folder: Path, progress: Callable[[int, int], None] | None = None
) -> Updated:
    """Write what has changed since the last time; the first time, everything.

    `progress` is told how many partitions of how many are done.

    Raises:
        UserError: pyarrow is not installed, somebody else has the lake open, the folder is none of
            a lake, or one of another database.
        OSError: the disk is full, ...; what is in the lake stays.
    """
    load_pyarrow()
    with open_lake(folder) as lake, reading(engine) as conn:
        ledger = same_ledger(conn, lake)
        files: dict[str, LakeFile] = {}
        for of in lake_rows.whole_tables():
            name = name_of_table(conn, of)
            files |= _files(lake, [name], 0, partial(_write_table, conn, lake, of, name))
        made_of = ClassRows(lake_rows.node_names(conn))
        found = partitions(conn)
        for n_done, (key, partition) in enumerate(found.items(), 1):
            names = partition.names(key)
            write = partial(_write_partition, conn, lake, names, partition, made_of)
            files |= _files(lake, names.values(), len(partition.ids), write)
            if progress is not None:
                progress(n_done, len(found))
        views = folder / "views.sql"
        if not views.is_file() or views.read_bytes() != views_sql().encode():
            write_text(views, [views_sql()])
        return _replace(lake, files, ledger)


def same_ledger(conn: Connection, lake: Lake) -> str | None:
    """By what the database is known from now on.

    Raises:
        UserError: the lake is of another one.
    """
    if lake.ledger is not None and lake_rows.first_run(conn, lake.ledger) is None:
        raise UserError(
            f"the lake in {lake.folder} is of another collection: name a new folder for this one"
        )
    return lake.ledger or lake_rows.first_run(conn)


def partitions(conn: Connection) -> dict[str, Partition]:
    """Every partition that the lake has to have, by the path of its files below each table."""
    found: dict[str, Partition] = {}
    names = lake_rows.names_by_model(conn)
    for row in lake_rows.iter_labellings(conn):
        key = partition_of(row)
        if key not in found:
            found[key] = Partition()
            found[key].digest.update(repr((_VERSION, names.get(row.model))).encode())
        found[key].digest.update(repr(row).encode())
        found[key].ids.append(row.labelling_id)
    return found


def name_of_table(conn: Connection, name: str) -> str:
    """The name of the file of a table that is one file."""
    digest = hashlib.sha256(repr(_VERSION).encode())
    for rows in lake_rows.table_rows(conn, name):
        for row in rows:
            digest.update(repr(tuple(row)).encode())
    return file_name(name, "part-0", digest.hexdigest())


def _files(
    lake: Lake, names: Collection[str], n_labellings: int, write: Callable[[], None]
) -> dict[str, LakeFile]:
    """Those files, which are written unless they are in the lake or have outlasted a stop."""
    if all(map(lake.has, names)):
        return {name: lake.files[name] for name in names}
    if not all(map(lake.is_coming, names)):
        write()
    _, parquet = load_pyarrow()
    n_rows = {name: parquet.read_metadata(lake.next_path(name)).num_rows for name in names}
    return {name: lake.written(name, n, n_labellings) for name, n in n_rows.items()}


def _write_table(conn: Connection, lake: Lake, of: str, name: str) -> None:
    with _next_file(lake, name) as add, closing(lake_rows.table_rows(conn, of)) as parts:
        for rows in parts:
            add(arrow_table(of, [file_values(row) for row in rows]))


def _write_partition(
    conn: Connection,
    lake: Lake,
    names: Mapping[str, str],
    partition: Partition,
    made_of: ClassRows,
) -> None:
    sets = lake_rows.parameters_by_set(conn)
    read = {"detections": lake_rows.detection_rows, "clip_scores": lake_rows.score_rows}
    with ExitStack() as stack:
        add = {table: stack.enter_context(_next_file(lake, name)) for table, name in names.items()}
        for ids in batches(partition.ids, _AT_ONCE):
            labelled = [
                labelling_values(row) for row in lake_rows.labellings_by_id(conn, list(ids))
            ]
            counts = {table: Counter[int]() for table in read}
            for table, rows_of in read.items():
                before = None
                with closing(rows_of(conn, ids)) as parts:  # also where a disk is full
                    for rows in parts:
                        matrix = np.array([tuple(row) for row in rows], np.float64)
                        add[table](made_of.table(table, matrix, labelled, before))
                        before = matrix[-1]
                        counts[table].update(matrix[:, 0].astype(int).tolist())
            for each in labelled:
                each["parameters"] = sets[each["parameter_set"]]
                own = (counts[table][each["labelling_id"]] for table in read)
                each["n_detections"], each["n_scores"] = own
            add["labellings"](arrow_table("labellings", labelled))


@contextmanager
def _next_file(lake: Lake, name: str) -> Iterator[Callable[[Any], None]]:
    with lake.next_file(name) as file, table_file(file, name.partition("/")[0]) as add:
        yield add


def _replace(lake: Lake, files: dict[str, LakeFile], ledger: str | None) -> Updated:
    n_kept = sum(lake.files.get(name) is file for name, file in files.items())
    n_removed = len(set(lake.files) - set(files))
    if n_kept < len(files) or n_removed or ledger != lake.ledger:
        lake.replace(files, ledger)
    n_rows = {
        table: sum(file.n_rows for name, file in files.items() if name.startswith(f"{table}/"))
        for table in PARTITIONED
    }
    return Updated(
        len(files) - n_kept, n_kept, n_removed, n_rows["labellings"], n_rows["detections"],
        Lake(lake.folder, ledger, files).strays(),
    )  # fmt: skip
