"""Parquet: the columns of the CSV, typed and packed; for DuckDB, pandas, Polars and Spark."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, BinaryIO

from audioset_core.errors import UserError
from audioset_core.export_formats.delimited import COLUMNS, values
from audioset_core.export_formats.rows import Labelled

_NUMBERS = frozenset(
    {"start_s", "end_s", "peak", "mean", "peak_s", "duration_s"}
    | {"patch_hop_s", "window_s", "detection_threshold"}
)
_MAY_LACK = ("id", "site")
_ROWS = 65_536


def write_parquet(file: BinaryIO, labelled: Iterable[Labelled], root: bytes) -> None:  # noqa: ARG001
    """A row per detection, in groups of rows, so that memory stays flat.

    Raises:
        UserError: pyarrow is not installed.
    """
    pyarrow, parquet = load_pyarrow()
    schema = pyarrow.schema(
        pyarrow.field(name, _type(pyarrow, name), nullable=name in _MAY_LACK) for name in COLUMNS
    )
    rows = (values(recording, event) for recording, events in labelled for event in events)
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while some := list(islice(rows, _ROWS)):
            arrays = [
                pyarrow.array(column, field.type)
                for column, field in zip(zip(*some, strict=True), schema, strict=True)
            ]
            writer.write_table(pyarrow.table(arrays, schema))


def _type(pyarrow: Any, name: str) -> Any:
    if name == "is_partial":
        return pyarrow.bool_()
    return pyarrow.float64() if name in _NUMBERS else pyarrow.string()


def load_pyarrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet.

    Raises:
        UserError: they are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"Parquet needs pyarrow, which does not load here ({error}): "
            f"pip install 'audioset-flows[parquet]'"
        ) from None
    return pyarrow, pyarrow.parquet
