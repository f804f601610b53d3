"""The tables of a lake: their columns, where their files are, and Arrow tables of rows.

Strings are plain, not Arrow's dictionaries, which not every program reads: both pack alike.
Times have no zone, and their names tell whose clock is meant: programs show others by their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

import numpy as np

from audioset_core.export_formats.file_names import uri
from audioset_core.export_formats.parquet import load_pyarrow
from db.reports.lake_rows import LakeRow
from db.types import SCORE_SCALE

PARTITIONED = ("detections", "clip_scores", "labellings")
UNKNOWN_DAY = "unknown"

_TEXT, _REAL, _WHOLE, _FLAG, _TIME = "string", "double", "int64", "bool", "timestamp[us]"
_OF_LABELLING = {
    "labelling_id": _WHOLE, "clip": _TEXT, "counts": _FLAG, "model_version": _TEXT,
    "parameter_set": _TEXT, "path": _TEXT, "site": _TEXT,
}  # fmt: skip
_OF_CLASS = {"mid": _TEXT, "name": _TEXT, "peak": _REAL, "mean": _REAL}
_RECORDED = {"recorded_utc": _TIME, "recorded_local": _TIME}

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "detections": _OF_LABELLING | _OF_CLASS | {
        "start_s": _REAL, "end_s": _REAL, "peak_s": _REAL, "new_s": _REAL,
        "heard_utc": _TIME, "heard_local": _TIME,
    },
    "clip_scores": _OF_LABELLING | _OF_CLASS | _RECORDED,
    "labellings": _OF_LABELLING | _RECORDED | {
        "parameters": _TEXT, "labelled_utc": _TIME, "status": _TEXT, "duration_s": _REAL,
        "n_patches": _WHOLE, "is_partial": _FLAG, "n_detections": _WHOLE, "n_scores": _WHOLE,
    },
    "files": {
        "path": _TEXT, "uri": _TEXT, "clip": _TEXT, "status": _TEXT, "reason": _TEXT, "id": _TEXT,
        "size_bytes": _WHOLE, **_RECORDED, "recorded_by": _TEXT, "site": _TEXT, "site_by": _TEXT,
    },
    "clips": {
        "clip": _TEXT, "duration_s": _REAL, "sample_rate_hz": _WHOLE, "n_channels": _WHOLE,
        "format": _TEXT, "size_bytes": _WHOLE, "device": _TEXT, "serial": _TEXT,
        "latitude_deg": _REAL, "longitude_deg": _REAL,
    },
    "sites": {
        "site": _TEXT, "latitude_deg": _REAL, "longitude_deg": _REAL, "timezone": _TEXT,
        "notes": _TEXT,
    },
    "nodes": {
        "mid": _TEXT, "name": _TEXT, "is_abstract": _FLAG, "is_blacklisted": _FLAG,
        "description": _TEXT,
    },
    "closure": {
        "ancestor_mid": _TEXT, "ancestor_name": _TEXT, "mid": _TEXT, "name": _TEXT,
        "depth": _WHOLE,
    },
    "verdicts": {
        "clip": _TEXT, "mid": _TEXT, "name": _TEXT, "start_s": _REAL, "end_s": _REAL,
        "verdict": _TEXT, "judged_by": _TEXT, "judged_utc": _TIME, "file": _TEXT,
    },
}  # fmt: skip
"""The columns of each table with their types; those of `PARTITIONED` have model and day besides."""

_MANY_LABELLINGS = 20_000
_ROW_GROUP = 131_072
# Source: org.apache.hadoop.hive.common.FileUtils escapes these; other characters stay as they are.
_UNSAFE = re.compile("[\x00-\x1f\x7f\"#%'*/:=?\\\\{}\\[\\]^]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def partition_of(row: LakeRow) -> str:
    """Where the files of a labelling's rows are below each table of `PARTITIONED`.

    The day is that on which the recording began, on the recorder's clock. Recordings whose start is
    unknown have a file for each 20,000 ids, since a day of theirs would grow for ever.
    """
    day, part = UNKNOWN_DAY, row.labelling_id // _MANY_LABELLINGS
    if row.recorded_unix_ms is not None:
        local_ms = row.recorded_unix_ms + (row.recorded_utc_offset_s or 0) * 1_000
        day, part = f"{_EPOCH + timedelta(milliseconds=local_ms):%Y-%m-%d}", 0
    return f"model={escaped(row.model)}/day={day}/part-{part}"


def file_name(table: str, partition: str, digest: str) -> str:
    """The path of a file in the lake, whose rows are made of what the digest is of.

    >>> file_name("clips", "part-0", "0123456789abcdef0123")
    'clips/part-0-0123456789abcdef.parquet'
    """
    return f"{table}/{partition}-{digest[:16]}.parquet"


def escaped(value: str) -> str:
    """A value in the name of a folder, as Hive writes it.

    >>> escaped("a/b=100 %")
    'a%2Fb%3D100 %25'
    """
    return _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", value)


def views_sql() -> str:
    """DuckDB's views of the tables, to be read in the folder of the lake."""
    lines = [
        "-- The tables of this lake, for DuckDB. In this folder: duckdb -init views.sql",
        "-- In Python: duckdb.sql(\"SET file_search_path = 'LAKE'\"), then this file.",
    ]
    options = "hive_partitioning = true, hive_types = {'model': VARCHAR, 'day': VARCHAR}"
    for name in COLUMNS:
        what = f"'{name}/*.parquet'"
        if name in PARTITIONED:
            what = f"'{name}/*/*/*.parquet', {options}"
        lines.append(f"CREATE OR REPLACE TEMP VIEW {name} AS FROM read_parquet({what});")
    return "\n".join(lines) + "\n"


def labelling_values(row: LakeRow) -> dict[str, Any]:
    """The columns that a labelling has in any table of `PARTITIONED`, as Python values."""
    values = {name: getattr(row, name) for name in LakeRow.__match_args__}
    return values | _recorded(row.recorded_unix_ms, row.recorded_utc_offset_s) | {
        "labelled_utc": row.labelled_at.replace(tzinfo=None),
    }  # fmt: skip


def file_values(row: Any) -> dict[str, Any]:
    """A row of a table that is one file, as Python values."""
    values = dict(row._mapping)
    if "path_bytes" in values:
        values["uri"] = uri(values["path_bytes"])
        values |= _recorded(values["recorded_unix_ms"], values["recorded_utc_offset_s"])
    if "judged_at" in values:
        values["judged_utc"] = values["judged_at"].replace(tzinfo=None)
    return values


def arrow_table(name: str, values: Sequence[Mapping[str, Any]]) -> Any:
    """Rows of a table, or of the part of its columns that the values have."""
    pyarrow, _ = load_pyarrow()
    fields = COLUMNS[name]
    arrays = {
        column: pyarrow.array([each[column] for each in values], pyarrow.type_for_alias(kind))
        for column, kind in fields.items()
        if not values or column in values[0]
    }
    return pyarrow.table(arrays)


class ClassRows:
    """Arrow tables of the rows that labellings have by class: detections, or clip scores."""

    def __init__(self, names: Mapping[int, tuple[str, str]]) -> None:
        """`names`: (MID, name) of each node by id."""
        self.pyarrow, _ = load_pyarrow()
        self._ids = np.array(sorted(names), np.int64)
        ordered = [names[each] for each in self._ids.tolist()]
        self._mids, self._names = (
            self.pyarrow.array([each[n] for each in ordered], "string") for n in (0, 1)
        )

    def table(
        self, name: str, matrix: Any, labelled: Sequence[Mapping[str, Any]], before: Any = None
    ) -> Any:
        """The table of rows, as `db.reports.lake_rows` has them, in an array.

        `labelled`: their labellings by id; `before`: the row that came before these.
        """
        ids = np.array([each["labelling_id"] for each in labelled], np.int64)
        which = np.searchsorted(ids, matrix[:, 0].astype(np.int64))
        node = np.searchsorted(self._ids, matrix[:, 1].astype(np.int64))
        own = arrow_table(name, labelled).take(self.pyarrow.array(which))
        columns = {column: own[column] for column in own.column_names} | {
            "mid": self._mids.take(self.pyarrow.array(node)),
            "name": self._names.take(self.pyarrow.array(node)),
            "peak": matrix[:, 2] / SCORE_SCALE,
            "mean": matrix[:, 3] / SCORE_SCALE,
        }
        if name == "detections":
            begins, ends = matrix[:, 5], matrix[:, 6]
            columns |= {"peak_s": matrix[:, 4], "start_s": begins, "end_s": ends}
            columns["new_s"] = ends - np.maximum(begins, _covered_to(matrix, before))
            # Whole milliseconds, as everywhere.
            since = (np.round(begins * 1_000).astype(np.int64) * 1_000).view("timedelta64[us]")
            for clock in ("utc", "local"):
                began = [each[f"recorded_{clock}"] for each in labelled]
                heard = np.array(began, "datetime64[us]")[which] + since
                columns[f"heard_{clock}"] = self.pyarrow.array(heard)
        return self.pyarrow.table({column: columns[column] for column in COLUMNS[name]})


@contextmanager
def table_file(file: BinaryIO, name: str) -> Iterator[Callable[[Any], None]]:
    """Write a Parquet file, by a function that adds rows, in the order of the table's columns.

    They are written in groups of rows, in each of which classes lie together.
    """
    pyarrow, parquet = load_pyarrow()
    schema = pyarrow.schema(
        [(x, pyarrow.type_for_alias(kind)) for x, kind in COLUMNS[name].items()]
    )
    writer = parquet.ParquetWriter(file, schema, compression="zstd")
    waiting: list[Any] = []

    def add(table: Any) -> None:
        waiting.append(table.cast(schema))
        if sum(each.num_rows for each in waiting) >= _ROW_GROUP:
            write()

    def write() -> None:
        if waiting:
            rows = pyarrow.concat_tables(waiting)
            if name in ("detections", "clip_scores"):
                rows = rows.sort_by("name")
            writer.write_table(rows, row_group_size=max(rows.num_rows, 1))
        waiting.clear()

    try:
        yield add
        write()
        writer.close()
    except BaseException:
        writer.is_open = False  # or else it writes to a closed file when it is deleted
        raise


def _covered_to(matrix: Any, before: Any) -> Any:
    """Where the detection before that of the same class in the same recording ends, or 0."""
    former = np.vstack([np.zeros(matrix.shape[1]) if before is None else before, matrix])[:-1]
    return np.where(np.all(matrix[:, :2] == former[:, :2], axis=1), former[:, 6], 0.0)


def _recorded(unix_ms: int | None, utc_offset_s: int | None) -> dict[str, datetime | None]:
    if unix_ms is None:
        return {"recorded_utc": None, "recorded_local": None}
    began = (_EPOCH + timedelta(milliseconds=unix_ms)).replace(tzinfo=None)
    local = began + timedelta(seconds=utc_offset_s or 0)
    return {"recorded_utc": began, "recorded_local": local}
