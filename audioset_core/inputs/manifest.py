"""Manifests: lists of recordings with ids and metadata, as CSV or JSONL.

CSV: a header with ``path``, optional ``id`` and ``meta`` (JSON); JSONL: objects with the same keys.
Every other column or key goes into meta. A path may be an address of an object.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audioset_core.errors import UserError
from audioset_core.inputs.delimited import Table, encoding_of, heading, open_table
from audioset_core.inputs.start_times import START_FORMATS, unread_starts
from audioset_core.inputs.written_paths import meant_path
from audioset_core.object_storage.addresses import absolute

Listed = dict[bytes, tuple[str | None, dict[str, Any] | None]]
"""Id and meta by absolute path."""

_PATHS = (
    "path", "file_path", "filepath", "full_path", "fullpath", "fullname", "source_file",
    "sourcefile", "audio_path", "file", "file_name", "filename", "audio_file", "fname",
    "recording",
)  # fmt: skip
_OTHERS = "'file', 'filename', 'filepath', 'fullname'"


def read_manifest(manifest: Path) -> tuple[Listed, tuple[str, ...]]:
    """Entries by absolute path, and remarks; paths are relative to the manifest's own folder.

    Raises:
        UserError: the file cannot be read, or a line is not usable.
    """
    rows = _jsonl_rows if manifest.suffix.lower() in (".jsonl", ".ndjson", ".json") else _csv_rows
    base = os.fsencode(manifest.parent.absolute())
    listed: Listed = {}
    starts = _Starts()
    lines: dict[bytes | str, int] = {}
    try:
        for line, row in rows(manifest):
            where = f"{manifest.name}, line {line}"
            path, user_id, meta = _entry(where, row, base)
            place = absolute(path)
            starts.look_at(line, meta or {})
            for key, what in ((place, "path"), (user_id, "id")):
                if key is not None and lines.setdefault(key, line) != line:
                    raise UserError(f"{where}: the {what} of line {lines[key]} again")
            listed[place] = (user_id, meta)
    except OSError as error:
        raise UserError(f"cannot read the manifest {manifest}: {error.strerror}") from error
    except (UnicodeError, csv.Error) as error:
        raise UserError(
            f"the manifest {manifest} is not readable text (UTF-8 or UTF-16; of Excel's formats, "
            f"'CSV UTF-8' is): {error}"
        ) from error
    return listed, starts.remarks(manifest.name)


@dataclass(slots=True)
class _Starts:
    """Counts the start times that cannot be read, and keeps the first one."""

    first: dict[str, tuple[int, Any]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def look_at(self, line: int, meta: Mapping[str, Any]) -> None:
        for key, value in unread_starts(meta):
            self.first.setdefault(key, (line, value))
            self.counts[key] += 1

    def remarks(self, name: str) -> tuple[str, ...]:
        return tuple(
            f"{name}: {key} is not understood in {self.counts[key]:,} lines, first in line {line}: "
            f"{str(value)[:60]!r}; {START_FORMATS}"
            for key, (line, value) in self.first.items()
        )


def _csv_rows(manifest: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_table(manifest, {*_PATHS, "id", "meta"}) as table:
        at = _place(table, *_PATHS)
        if at is None:
            raise UserError(
                f"{manifest.name}: the first line must name a column 'path' (or {_OTHERS}); "
                f"{table.described}"
            )
        id_at, meta_at = _place(table, "id"), _place(table, "meta")
        for line, cells in table.rows:
            meta: dict[str, Any] = {
                table.columns[n]: cell
                for n, cell in enumerate(cells)
                if n not in (at, id_at, meta_at) and cell != ""
            }
            if meta_at is not None and cells[meta_at]:
                meta |= _json_object(f"{manifest.name}, line {line}", cells[meta_at])
            user_id = cells[id_at] if id_at is not None else ""
            yield line, {"path": cells[at], "id": user_id or None, "meta": meta}


def _place(table: Table, *names: str) -> int | None:
    """The position of the first of the names that is a column of the table."""
    return next((table.headings.index(name) for name in names if name in table.headings), None)


def _jsonl_rows(manifest: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    encoding = encoding_of(manifest)
    with manifest.open(encoding="utf-8-sig" if encoding == "utf-8" else encoding) as file:
        for line, text in enumerate(file, 1):
            if text.strip():
                row = _json_object(f"{manifest.name}, line {line}", text)
                meta = row.pop("meta", None)
                written = {heading(key): key for key in reversed(row)}
                path_key = next((written[name] for name in _PATHS if name in written), "path")
                rest = {k: v for k, v in row.items() if k not in (path_key, "id")}
                if meta is not None and not isinstance(meta, dict):
                    raise UserError(f"{manifest.name}, line {line}: meta must be an object")
                yield (
                    line,
                    {
                        "path": row.get(path_key),
                        "id": row.get("id"),
                        "meta": {**rest, **(meta or {})},
                    },
                )


def _json_object(where: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: a JSON object is expected")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _entry(
    where: str, row: dict[str, Any], base: bytes
) -> tuple[bytes, str | None, dict[str, Any] | None]:
    path, user_id = row["path"], row["id"]
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        raise UserError(f"{where}: 'path' is missing")
    if user_id is not None and (isinstance(user_id, bool) or not isinstance(user_id, str | int)):
        raise UserError(f"{where}: 'id' must be text or a whole number")
    if isinstance(user_id, str) and ("\0" in user_id or not _is_text(user_id)):
        raise UserError(f"{where}: the 'id' holds characters that a database cannot store")
    try:
        name = meant_path(path, base)
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: {path!r} cannot be the name of a file") from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return name, None if user_id is None else str(user_id), row["meta"] or None


def _is_text(text: str) -> bool:
    """Whether the text can be encoded as UTF-8 (lone surrogates cannot)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
