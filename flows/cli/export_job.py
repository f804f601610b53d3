"""What every ``audioset export`` has in common: its options, its rows, its report."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from sqlalchemy import Connection, Engine

from audioset_core.errors import AudioError, Reason, UserError
from audioset_core.export_formats.file_names import common_folder, flat_name
from audioset_core.export_formats.rows import Labelled
from audioset_core.ontology.graph import load_default
from db.answer_records import Interval
from db.engine import reading
from db.query.question import Question
from db.reports import export_rows as exports
from db.reports import model_coverage as queries
from flows.asking import cannot_predict, opened
from flows.terminal import note, one_line

Under = Annotated[
    list[str] | None,
    typer.Option(help="Only sounds below this node; may be repeated.", show_default=False),
]
NotUnder = Annotated[
    list[str] | None,
    typer.Option(help="Leave out recordings with such a sound at --min-score.", show_default=False),
]
MinScore = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, help="Least peak score. [default: all that is stored]", show_default=False
    ),
]
Model = Annotated[
    str | None, typer.Option(help="A model other than the current one.", show_default=False)
]
Root = Annotated[
    Path | None,
    typer.Option(
        help="Folder that names are relative to. [default: the deepest that holds all]",
        show_default=False,
    ),
]
Missing = Annotated[bool, typer.Option("--missing", help="Also recordings that have vanished.")]
Ambiguous = Annotated[
    bool,
    typer.Option(
        "--ambiguous",
        help="With --under: source-ambiguous classes (Hiss, Tick, ...) count on their own.",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files of an earlier export in the folder.")
]
OutFile = Annotated[Path, typer.Argument(help="The file to write; - for stdout.")]
OutFolder = Annotated[Path, typer.Argument(help="The folder to write to.")]


@dataclass(frozen=True, slots=True)
class Job:
    """An export under way: one moment of the database, and what was asked of it."""

    engine: Engine
    conn: Connection
    question: Question
    counts: Counter[str]

    def root(self, given: Path | None) -> bytes:
        """The folder that names are relative to; reads all paths where none is given."""
        if given is not None:
            return os.path.abspath(os.fsencode(given))  # noqa: PTH100 (bytes)
        return common_folder(exports.paths(self.conn, self.question))

    def heard(self) -> Iterator[Labelled]:
        """Recordings with at least one detection, counted."""
        for recording, events in exports.labelled(self.conn, self.question):
            first = next(events, None)
            self.counts["recordings" if first else "silent"] += 1
            if first is not None:
                yield recording, self._counted(chain([first], events))

    def _counted(self, events: Iterable[Interval]) -> Iterator[Interval]:
        for event in events:
            self.counts["detections"] += 1
            yield event

    def report(self, out: Path) -> None:
        """What was written, and what was not."""
        n, silent = self.counts["recordings"], self.counts["silent"]
        say = note if is_stdout(out) else print
        what = f"{self.counts['detections']:,} detections of {n:,} recordings"
        say(f"{what}: {'stdout' if is_stdout(out) else one_line(str(out))}")
        if silent:
            note(f"left out: {silent:,} recordings without such a detection")


@contextmanager
def export_job(home: Path, db: str | None, question: Question) -> Iterator[Job]:
    """The rows asked for, from one moment of the database; nodes by name, MID or path.

    Raises:
        UserError: a node that no model here can predict.
    """
    ontology = load_default()
    under = [ontology.find(text) for text in question.under]
    not_under = [ontology.find(text) for text in question.not_under]
    with opened(home, db) as engine:
        for node in under:
            if not queries.predictable_members(engine, node.mid, question.model):
                raise UserError(cannot_predict(engine, ontology, node, question.model))
        mids = [tuple(node.mid for node in nodes) for nodes in (under, not_under)]
        with reading(engine) as conn:
            wanted = replace(question, under=mids[0], not_under=mids[1])
            exports.check(conn, wanted)
            yield Job(engine, conn, wanted, Counter())


def chosen(
    under: list[str] | None,
    not_under: list[str] | None,
    min_score: float,
    model: str | None,
    source: list[str] | None,
    missing: bool,
    ambiguous: bool,
) -> Question:
    """The options that all exports share, as what to ask of the database."""
    return Question(
        under=tuple(under or ()),
        not_under=tuple(not_under or ()),
        min_score=min_score,
        model=model,
        paths=tuple(source or ()),
        there_only=not missing,
        with_ambiguous=ambiguous,
    )


@contextmanager
def written(out: Path) -> Iterator[BinaryIO]:
    """The file to write, which appears when it is whole; or stdout."""
    from audioset_core.storage.atomic_files import replacing

    if is_stdout(out):
        yield sys.stdout.buffer
        return
    with replacing(out) as file:
        yield file


def write_sed_scores(job: Job, home: Path, out: Path, root: Path | None) -> Counter[str]:
    """A table per recording of the job's model; how many were written, failed, had no scores."""
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
    """Named as evaluations look for it, `x` for x.wav; where x.flac took that, `x.wav`."""
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
    """An earlier export may have been edited since: it is not replaced without being asked.

    Raises:
        UserError: the folder holds something, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name the folder to write to")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise UserError(f"the folder {out} is not empty; name a new one{hint}")
