"""What all commands of ``audioset export`` share: their options, rows and final report."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from sqlalchemy import Connection, Engine

from audioset_core.errors import AudioError, Reason, UserError
from audioset_core.export_formats.file_names import common_folder, flat_name
from audioset_core.export_formats.rows import Labelled
from audioset_core.object_storage.addresses import place_meant
from db.engine import reading
from db.query.question import Question
from db.reports import export_rows as exports
from db.reports import model_coverage as queries
from flows.cli.shared_options import Conditions, NotUnder, Store, mids, question_of
from flows.terminal import note, one_line

MinScore = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Least peak score; 0: all that is stored.")
]
OutFile = Annotated[Path, typer.Argument(help="The file to write; - for stdout.")]
OutFolder = Annotated[Path, typer.Argument(help="The folder to write to.")]
Root = Annotated[
    str | None,
    typer.Option(
        help="Folder that names are relative to. [default: the deepest with all files in it]"
    ),
]


@dataclass(frozen=True, slots=True)
class Recordings:
    """Which recordings are exported, and how their files are named."""

    not_under: NotUnder = None
    missing: Annotated[
        bool, typer.Option("--missing", help="Also recordings whose files are gone.")
    ] = False
    root: Root = None

    def of_question(self, engine: Engine) -> Mapping[str, Any]:
        """Fields of the `Question`."""
        return {"not_under": mids(engine, self.not_under), "there_only": not self.missing}


@dataclass(frozen=True, slots=True)
class Job:
    """A running export: one moment of the database, and the question."""

    engine: Engine
    conn: Connection
    question: Question
    counts: Counter[str]
    reading: ExitStack
    """Closed before the connection, where the reader of a pipe has gone away amid the rows."""

    def root(self, given: str | None, only: exports.Only = None) -> bytes:
        """The folder that names are relative to; without a given one, all paths are read for it."""
        if given is not None:
            return place_meant(given)
        return common_folder(exports.paths(self.conn, self.question, only))

    def labelled(self) -> Iterator[Labelled]:
        """Recordings with at least one detection; all are counted."""
        rows = self.reading.enter_context(closing(exports.labelled(self.conn, self.question)))
        for recording, events in rows:
            first = next(events, None)
            self.counts["recordings" if first else "silent"] += 1
            if first is not None:
                yield recording, self._counted(chain([first], events))

    def _counted(self, events: Iterable[exports.ModelInterval]) -> Iterator[exports.ModelInterval]:
        for event in events:
            self.counts["detections"] += 1
            yield event

    def report(self, out: Path) -> None:
        """Print what was written and what was left out."""
        n, silent = self.counts["recordings"], self.counts["silent"]
        say = note if is_stdout(out) else print
        what = f"{self.counts['detections']:,} detections of {n:,} recordings"
        say(f"{what}: {'stdout' if is_stdout(out) else one_line(str(out))}")
        if silent:
            note(f"left out: {silent:,} recordings without such a detection")


@contextmanager
def export_job(store: Store, *groups: Conditions, **more: Any) -> Iterator[Job]:
    """The rows that the options ask for, from one moment of the database.

    Raises:
        UserError: an option is wrong, or no model here can predict what is looked for.
    """
    with store.database() as engine:
        question = question_of(engine, *groups, **more)
        with reading(engine) as conn, ExitStack() as stack:
            exports.check(conn, question)
            yield Job(engine, conn, question, Counter(), stack)


@contextmanager
def output_file(out: Path) -> Iterator[BinaryIO]:
    """The file to write, which appears only when it is complete; or stdout."""
    from audioset_core.storage.atomic_files import replacing

    if is_stdout(out):
        yield sys.stdout.buffer
        return
    with replacing(out) as file:
        yield file


def write_sed_scores(job: Job, home: Path, out: Path, root: str | None) -> Counter[str]:
    """Write a table for each recording; count those written, failed and without scores."""
    from audioset_core.export_formats.sed_scores import (
        column_names,
        frame_borders,
        sed_scores_texts,
    )
    from audioset_core.storage.atomic_files import write_text
    from audioset_core.storage.score_files import read_scores

    assert job.question.model is not None  # noqa: S101 (for mypy: the command chose one)
    every = queries.categories_of(job.engine, job.question.model)
    wanted = dict(exports.classes(job.conn, job.question))
    columns = [(index, (mid, wanted[mid])) for index, mid, _ in every if mid in wanted]
    names = column_names([category for _, category in columns])
    folder = job.root(root)
    for row in exports.recordings(job.conn, job.question):
        if not row.scores_path or not row.n_patches:
            job.counts["without scores"] += 1
            continue
        try:
            logits = read_scores(home / row.scores_path, mmap=True)
            if logits.shape != (row.n_patches, len(every)):
                raise AudioError(Reason.INTERNAL, f"its scores have the shape {logits.shape}")
        except (AudioError, FileNotFoundError) as error:
            job.counts["failed"] += 1
            note(f"not written: {one_line(row.path_text)}: {one_line(str(error))}")
            continue
        borders = frame_borders(row.n_patches, row.patch_hop_s, row.window_s, row.duration_s)
        texts = sed_scores_texts(logits, [index for index, _ in columns], names, borders)
        write_text(_free_name(out, row.path, folder), texts)
        job.counts["written"] += 1
    return job.counts


def _free_name(out: Path, path: bytes, root: bytes) -> Path:
    """The name that evaluations look for: `x` for x.wav; `x.wav` if x.flac has taken that."""
    plain = out / flat_name(os.path.splitext(path)[0], root)  # noqa: PTH122 (bytes)
    return out / flat_name(path, root) if plain.exists() else plain


def is_stdout(out: Path) -> bool:
    """Whether the file is ``-``."""
    return str(out) == "-"


def refuse_folder(out: Path) -> None:
    """Raises: UserError: the file to write is a folder."""
    if out.is_dir():
        raise UserError(f"{out} is a folder; name the file to write")


def refuse_full(out: Path, overwrite: bool, hint: str = "") -> None:
    """Refuse to replace an earlier export, which may have been edited, without being asked.

    Raises:
        UserError: the folder holds something, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name the folder to write to")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise UserError(f"the folder {out} is not empty; name a new one{hint}")
