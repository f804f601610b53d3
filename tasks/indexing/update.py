"""Bring indexes of vectors up to date with the tables: what is new is added.

An index may be behind, damaged or gone at any time: questions compare it with the tables
(`flows.analysis.similar`).
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from audioset_core.arrays import Floats, row_blocks
from audioset_core.errors import AudioError, Reason, UserError
from audioset_core.scores.similarity import mean_vector, prepare_of
from audioset_core.storage.index_files import (
    ROWS,
    About,
    DamagedIndexError,
    Rows,
    Stored,
    is_there,
    remove_all,
    sweep,
)
from audioset_core.storage.score_files import read_scores
from audioset_core.storage.vector_index import (
    MOST_PATCHES,
    NOTHING,
    Coverage,
    Digests,
    IndexWriter,
    are_among,
    digest_of,
    member_digest,
)
from db.paging import PAGE
from db.score_files.indexed import Series, finished_runs, iter_files, series_to_compare
from tasks.evaluation.derive_intervals import need_folder
from tasks.labelling.job import now

_MOST_GONE = 0.25
"""An index of which a larger part was labelled again or removed is built anew."""

_SAVED_EVERY = 250_000
"""After so many new vectors: a build that is stopped goes on there."""

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Updated:
    """What came of an index: what it is now, and how many recordings are new."""

    stored: Stored
    n_new: int = 0
    remark: str | None = None
    """Why what was there was not kept."""
    failures: list[tuple[str, str]] = field(default_factory=list)
    """(file, reason)"""

    def conclusion(self) -> str:
        """One line."""
        about, n = self.stored.about, self.stored.n_recordings
        return f"{about.model}, {about.kind} of {about.rows}: {self.n_new:,} added, {n:,} in all"


@dataclass(frozen=True, slots=True)
class _Begun:
    """An index to add files to; how many are to come; members that are none any more."""

    writer: IndexWriter
    n_to_come: int
    n_gone: int
    remark: str | None


@contextmanager
def alone(home: Path) -> Iterator[Path]:
    """The folder of the indexes, in which nobody else writes inside the block.

    Raises:
        UserError: somebody does.
    """
    folder, lock = home / "index", home / "locks" / "index.lock"
    for each in (folder, lock.parent):
        each.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                "another process is writing an index in this home: try again when that has ended"
            ) from None
        sweep(folder)
        yield folder


def update_indexes(
    engine: Engine,
    home: Path,
    model: str | None = None,
    *,
    with_moments: bool = False,
    progress: Progress | None = None,
) -> list[Updated]:
    """Bring every index up to date: of recordings for all that can be compared (or for one model),
    of moments where there is one, or for all.

    Raises:
        UserError: usearch is not installed, the folder of stored files is not there, or another
            process is writing an index.
        DatabaseUserError: no model has that name.
        OSError: the disk is full, ...
    """
    done = []
    with alone(home) as folder:
        for series in series_to_compare(engine, model):
            need_folder(home, series.kind)
            for rows in ROWS:
                about = about_of(series, rows)
                if rows == "recordings" or with_moments or is_there(folder, about):
                    done.append(_update(engine, home, series, about, progress))
    return done


def remove_indexes(home: Path) -> int:
    """Delete every index, damaged ones too; returns how many bytes they had.

    Raises:
        UserError: another process is writing an index.
    """
    with alone(home) as folder:
        return remove_all(folder)


def about_of(series: Series, rows: Rows) -> About:
    """The index of a series."""
    return About(series.model, series.parameters, series.kind, rows)


def _update(
    engine: Engine, home: Path, series: Series, about: About, progress: Progress | None
) -> Updated:
    """Add to an index what is not in it. A file that cannot be read is a failure: it stays out."""
    # Before the files are listed: what these runs have labelled is all in that list.
    runs = np.array([digest_of(run) for run in finished_runs(engine, now())], np.uint64)
    begun = _begun(engine, home / "index", series, about)
    writer = begun.writer
    failures: list[tuple[str, str]] = []
    left_out: list[int] = []
    n_new, n_saved = 0, writer.n_vectors
    for (labelling, path), digest, is_known in _files(engine, series, writer.digests):
        if is_known:
            continue
        try:
            writer.add(labelling, digest, _vectors(home / path, writer))
            n_new += 1
        except (AudioError, OSError) as error:
            left_out.append(labelling)
            failures.append((path, _reason(error)))
        if progress is not None:
            n_read = n_new + len(left_out)
            progress(n_read, max(n_read, begun.n_to_come))
        if writer.n_vectors - n_saved >= _SAVED_EVERY:
            writer.save(NOTHING, now())
            n_saved = writer.n_vectors
    stored = writer.save(Coverage(runs, np.array(left_out, np.int64), begun.n_gone), now())
    return Updated(stored, n_new, begun.remark, failures)


def _begun(engine: Engine, folder: Path, series: Series, about: About) -> _Begun:
    """What is there, or a new index where that cannot be used, or is mostly of the past."""
    fresh, remark = IndexWriter(folder, about, series.width), None
    try:
        writer = IndexWriter.continuing(folder, about) or fresh
    except DamagedIndexError as error:
        writer, remark = fresh, f"built anew: {error}"
    n_files = n_known = 0
    for _, _, is_known in _files(engine, series, writer.digests):
        n_files += 1
        n_known += is_known
    n_members = len(writer.members)
    n_gone = n_members - n_known
    if n_gone > _MOST_GONE * n_members:
        what = f"{n_gone:,} of {n_members:,} recordings were labelled again or removed"
        return _Begun(fresh, n_files, 0, f"built anew: {what}")
    return _Begun(writer, n_files - n_known, n_gone, remark)


def _files(
    engine: Engine, series: Series, known: Digests
) -> Iterator[tuple[tuple[int, str], int, bool]]:
    """((labelling, path), digest, whether that is among the known) of every file of the series."""
    files = iter_files(engine, series)
    while some := list(islice(files, PAGE)):
        digests = [member_digest(*file) for file in some]
        yield from zip(some, digests, are_among(digests, known).tolist(), strict=True)


def _vectors(path: Path, writer: IndexWriter) -> Iterable[tuple[int, Floats]]:
    """(number of the first patch, vectors), as `IndexWriter.add` takes them.

    Raises:
        AudioError: the file is damaged, or cannot be indexed.
        OSError: it cannot be read.
    """
    matrix = read_scores(path, mmap=True)
    if matrix.shape[1] != writer.width or len(matrix) > MOST_PATCHES:
        raise AudioError(Reason.INTERNAL, f"its shape is {matrix.shape}")
    prepare = prepare_of(writer.about.kind)
    if writer.about.rows == "moments":
        return ((first, prepare(rows)) for first, rows in row_blocks(matrix))
    return [(0, mean_vector(matrix, prepare)[np.newaxis])] if len(matrix) else []


def _reason(error: AudioError | OSError) -> str:
    return error.detail if isinstance(error, AudioError) else error.strerror or str(error)
