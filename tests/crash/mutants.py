"""The protocol broken on purpose, one way each: what the crash tests must find.

Each mutant changes production code in place while a block runs, and nothing else about it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, insert, select, text

from audioset_core.storage import atomic_files as durable
from db.engine import reading, writing
from db.ledger import claims
from db.records import Claim, NotClaimed
from db.schema.tables import labellings
from flows.run import live_runs as run_ledger
from tasks import persist

Change = tuple[Any, str, Any]
"""(object, attribute, what it is instead)"""


@contextmanager
def mutated(name: str | None) -> Iterator[None]:
    """The mutant of that name inside the block; None: nothing is changed."""
    with changed(MUTANTS[name]() if name else []):
        yield


@contextmanager
def changed(changes: list[Change]) -> Iterator[None]:
    """With these values inside the block."""
    before = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in changes]
    for owner, attribute, value in changes:
        setattr(owner, attribute, value)
    try:
        yield
    finally:
        for owner, attribute, value in before:
            setattr(owner, attribute, value)


def drop_unique_key(engine: Engine) -> None:
    """For the mutant that does without it: clip, model and parameters may occur twice."""
    key = ("clip_id", "model_id", "parameter_set_id")
    if engine.dialect.name == "postgresql":
        with writing(engine) as conn:
            (found,) = [
                c.name
                for c in labellings.constraints
                if tuple(column.name for column in getattr(c, "columns", ())) == key
            ]
            conn.execute(text(f'ALTER TABLE labellings DROP CONSTRAINT IF EXISTS "{found}"'))
        return
    # SQLite has no statement for it: the (empty) table is made again.
    raw = engine.raw_connection()
    cursor = raw.cursor()
    (made,) = cursor.execute("SELECT sql FROM sqlite_master WHERE name = 'labellings'").fetchone()
    without = re.sub(r",\s*CONSTRAINT \w+ UNIQUE \(clip_id[^)]*\)", "", made)
    assert without != made
    for statement in (
        "PRAGMA foreign_keys = OFF",
        "PRAGMA legacy_alter_table = ON",
        "DROP TABLE labellings",
        without,
    ):
        cursor.execute(statement)
    raw.close()
    engine.dispose()


def _no_sync(is_dropped: Callable[[int], bool]) -> list[Change]:
    real = os.fsync
    return [(os, "fsync", lambda fd: None if is_dropped(os.fstat(fd).st_mode) else real(fd))]


def _no_folder_chain() -> list[Change]:
    return [(durable, "make_folder", lambda folder: folder.mkdir(parents=True, exist_ok=True))]


def _rename_before_sync() -> list[Change]:
    """The file is synced under its final name."""
    real_sync, real_replace = os.fsync, os.replace

    def replace(source: Path, target: Path) -> None:
        real_replace(source, target)
        descriptor = os.open(target, os.O_RDONLY)
        real_sync(descriptor)
        os.close(descriptor)

    return [*_no_sync(stat.S_ISREG), (os, "replace", replace)]


def _straight(*, is_synced: bool) -> list[Change]:
    """As np.save: no temporary file, the final one is opened and written."""

    def write_many(items: Iterable[tuple[Path, Sequence[Any]]]) -> None:
        for path, blocks in items:
            durable.make_folder(path.parent)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for block in blocks:
                os.write(descriptor, block)
            if is_synced:
                os.fsync(descriptor)
            os.close(descriptor)
            if is_synced:
                durable.sync_folder(path.parent)

    return [(persist, "write_many", write_many)]


def _commit_before_file() -> list[Change]:
    write, commit, waiting = persist.write_many, persist.commit_labellings, []

    def commit_labellings(*arguments: Any) -> list[bool]:
        kept = commit(*arguments)
        write(waiting)
        waiting.clear()
        return kept

    return [
        (persist, "write_many", waiting.extend),
        (persist, "commit_labellings", commit_labellings),
    ]


def _split_transactions() -> list[Change]:
    """The labelling is made done in one transaction, its rows follow in another."""
    commit, write_rows, left = persist.commit_labellings, claims._write_rows, []

    def commit_labellings(engine: Engine, *arguments: Any) -> list[bool]:
        kept = commit(engine, *arguments)
        for done, node_of in left:
            with writing(engine) as conn:
                write_rows(conn, done, node_of)
        left.clear()
        return kept

    return [
        (claims, "_write_rows", lambda _, done, node_of: left.append((done, node_of))),
        (persist, "commit_labellings", commit_labellings),
    ]


def _token_not_checked() -> list[Change]:
    return [(claims, "_still_held", lambda _, held: set(held))]


def _reboot_is_not_seen() -> list[Change]:
    return [(run_ledger, "_booted_at", lambda: claims.ENDED)]


def _dead_runs_are_not_seen() -> list[Change]:
    return [(run_ledger, "abandon_dead_runs", lambda *_: [])]


def _temporaries_are_numbered() -> list[Change]:
    numbers = count()
    return [(durable.secrets, "token_hex", lambda _: f"{next(numbers):016x}")]


def _select_then_insert() -> list[Change]:
    """A look whether somebody has the clip, and then a claim; needs `drop_unique_key`."""

    def looking(engine: Engine, source_id: int, clip: Any, variant: Any, lease: Any) -> Any:
        with writing(engine) as conn:
            clip_id = claims.store_clip(conn, clip, lease.begins_at)
            claims._identify(conn, source_id, clip, clip_id, None, lease.begins_at)
        query = select(labellings.c.status).where(
            labellings.c.clip_id == clip_id,
            labellings.c.model_id == variant.model_id,
            labellings.c.parameter_set_id == variant.parameter_set_id,
        )
        with reading(engine) as conn:
            statuses = set(conn.execute(query).scalars())
        if statuses:
            return NotClaimed.DONE if "done" in statuses else NotClaimed.BUSY
        row = {
            "clip_id": clip_id, "model_id": variant.model_id, "status": "claimed", "token": 1,
            "parameter_set_id": variant.parameter_set_id, "is_current": False,
            "run_id": lease.run_id, "lease_until": lease.ends_at, "source_id": source_id,
        }  # fmt: skip
        with writing(engine) as conn:
            (labelling_id,) = conn.execute(insert(labellings), row).inserted_primary_key
        return Claim(labelling_id, 1, clip_id, source_id, clip.sha256)

    return [(claims, "claim_clip", looking)]


MUTANTS: dict[str, Callable[[], list[Change]]] = {
    "no fsync of the file": lambda: _no_sync(stat.S_ISREG),
    "no fsync of the folder": lambda: _no_sync(stat.S_ISDIR),
    "no fsync of a new folder's parent": _no_folder_chain,
    "rename before fsync": _rename_before_sync,
    "np.save to the final name": lambda: _straight(is_synced=False),
    "written in place, synced": lambda: _straight(is_synced=True),
    "commit before the file": _commit_before_file,
    "split transactions": _split_transactions,
    "token not checked": _token_not_checked,
    "select, then insert": _select_then_insert,
    "a reboot is not seen": _reboot_is_not_seen,
    "dead runs are not seen": _dead_runs_are_not_seen,
    "temporary files are numbered": _temporaries_are_numbered,
}
