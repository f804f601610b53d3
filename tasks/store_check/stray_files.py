"""Files in the results folders that no row names: reported, and on request deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import islice
from pathlib import Path

from sqlalchemy import Engine

from audioset_core.storage.score_file_check import StoredFile, stored_files
from db.integrity.audit import named_files
from db.integrity.repair import holding_stray_file
from tasks.labelling.job import now
from tasks.store_check.report import Damage, Finding, Outcome, Report

GRACE_S = 3600.0
"""A younger file may belong to a run that has not renamed it or committed its row yet."""

_BATCH = 1_000


def sweep(engine: Engine, home: Path, report: Report, *, is_repair: bool) -> None:
    """Report files that no row names and old temporary files; delete them in a repair."""
    oldest_s = time.time() - GRACE_S
    is_deleting = is_repair
    if is_repair and _is_anothers(engine, home):
        is_deleting = False
        own = home / "labels.db"
        report.notes.append(f"nothing deleted: {own} may name the files; verify it, or remove it")
    n_strange = n_held = 0
    files = stored_files(home)
    while batch := list(islice(files, _BATCH)):
        known = [file for file in batch if isinstance(file, StoredFile)]
        n_strange += len(batch) - len(known)
        old = [file for file in known if file.mtime_s <= oldest_s]
        for file in old:
            if file.is_temporary:
                # Safe: a run renames its temporary files within seconds, not after an hour.
                _report(report, Damage.TEMPORARY, file, _deleted(home, file, is_deleting))
        for file, clip in _unnamed(engine, old):
            if is_deleting:
                n_held += not _delete_orphan(engine, home, report, file, clip)
            else:
                _report(report, Damage.ORPHAN, file, None)
    if n_strange:
        report.notes.append(f"left alone: {n_strange:,} files that no labelling run writes")
    if n_held:
        report.notes.append(f"left alone: {n_held:,} files of clips that a run has claimed")


def _is_anothers(engine: Engine, home: Path) -> bool:
    """Whether the home has a database of its own, and this is another one."""
    own = home / "labels.db"
    if not own.exists():
        return False
    database = Path(engine.url.database or "")
    is_own = engine.dialect.name == "sqlite" and database.exists() and own.samefile(database)
    return not is_own


def _unnamed(engine: Engine, files: Sequence[StoredFile]) -> Iterator[tuple[StoredFile, str]]:
    """Results that no row names, each with its clip."""
    results = [(file, file.clip_sha256) for file in files if file.clip_sha256 is not None]
    if results:
        named = named_files(engine, sorted({clip for _, clip in results}))
        yield from ((file, clip) for file, clip in results if file.path not in named)


def _delete_orphan(engine: Engine, home: Path, report: Report, file: StoredFile, clip: str) -> bool:
    """False if a run may still come to name the file."""
    moment = now()
    silent_since = moment - timedelta(seconds=GRACE_S)
    # Safe: no run can claim or commit the clip inside the block, and silent claims have ended.
    with holding_stray_file(engine, file.path, clip, silent_since, moment) as is_unwanted:
        if is_unwanted:
            _report(report, Damage.ORPHAN, file, _deleted(home, file, is_deleting=True))
    return is_unwanted


def _deleted(home: Path, file: StoredFile, is_deleting: bool) -> str | None:
    """None if the file was not to be deleted, "" if it was, else why it could not be."""
    if not is_deleting:
        return None
    try:
        (home / file.path).unlink(missing_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _report(report: Report, what: Damage, file: StoredFile, deleted: str | None) -> None:
    age = f"{(time.time() - file.mtime_s) / 3600:,.0f} hours old"
    outcome = Outcome.REPAIRED if deleted == "" else Outcome.LEFT
    reason = f"{age}; cannot be deleted: {deleted}" if deleted else age
    report.add(Finding(what, file.path, reason, outcome))
