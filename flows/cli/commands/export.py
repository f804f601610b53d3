"""``audioset export``: labels in other tools' formats, streamed, each file whole or not there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.export_formats.file_names import tree_name
from audioset_core.export_formats.label_studio import (
    LOCAL_FILES,
    label_studio_config,
    label_studio_texts,
)
from audioset_core.export_formats.registry import (
    FILE_FORMATS,
    FOLDER_FORMATS,
    FileFormat,
    FolderFormat,
)
from db.answer_records import PredictionRow
from db.reports import clip as reports
from db.reports import export_rows as exports
from db.reports import model_coverage as queries
from flows.asking import Source, opened
from flows.cli.export_job import (
    Ambiguous,
    MinScore,
    Missing,
    Model,
    NotUnder,
    OutFile,
    OutFolder,
    Overwrite,
    Root,
    Under,
    chosen,
    export_job,
    refuse_folder,
    refuse_full,
    write_sed_scores,
    written,
)
from flows.cli.help import HelpGroup
from flows.options import DEFAULT_HOME, Database, Home
from flows.terminal import note, one_line

if TYPE_CHECKING:
    from audioset_core.export_formats.seed_json import Prediction

app = typer.Typer(
    cls=HelpGroup,
    help="Write labels in other tools' formats.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _file_command(name: str, fmt: FileFormat) -> Callable[..., None]:
    def command(
        out: OutFile,
        under: Under = None,
        not_under: NotUnder = None,
        min_score: MinScore = 0.0,
        model: Model = None,
        source: Source = None,
        root: Root = None,
        missing: Missing = False,
        ambiguous: Ambiguous = False,
        home: Home = DEFAULT_HOME,
        db: Database = None,
    ) -> None:
        question = chosen(under, not_under, min_score, model, source, missing, ambiguous)
        refuse_folder(out)
        with export_job(home, db, question) as job:
            folder = job.root(root) if fmt.needs_root else b"/"
            with written(out) as file:
                fmt.write(file, job.heard(), folder)
            job.report(out)

    command.__doc__ = fmt.help
    return app.command(name)(command)


def _folder_command(name: str, fmt: FolderFormat) -> Callable[..., None]:
    def command(
        out: OutFolder,
        under: Under = None,
        not_under: NotUnder = None,
        min_score: MinScore = 0.0,
        model: Model = None,
        source: Source = None,
        root: Root = None,
        missing: Missing = False,
        ambiguous: Ambiguous = False,
        overwrite: Overwrite = False,
        home: Home = DEFAULT_HOME,
        db: Database = None,
    ) -> None:
        from audioset_core.storage.atomic_files import write_text

        question = chosen(under, not_under, min_score, model, source, missing, ambiguous)
        refuse_full(out, overwrite, "; or --overwrite replaces files in it")
        with export_job(home, db, question) as job:
            folder = job.root(root)
            for recording, events in job.heard():
                path = out / tree_name(recording.path, folder, fmt.suffix)
                write_text(path, fmt.texts(recording, events))
            job.report(out)

    command.__doc__ = fmt.help
    return app.command(name)(command)


for _name, _file_format in FILE_FORMATS.items():
    _file_command(_name, _file_format)
for _name, _folder_format in FOLDER_FORMATS.items():
    _folder_command(_name, _folder_format)


@app.command("label-studio")
def export_label_studio(
    out: OutFile,
    under: Under = None,
    not_under: NotUnder = None,
    min_score: MinScore = 0.0,
    model: Model = None,
    source: Source = None,
    root: Root = None,
    url_prefix: Annotated[
        str, typer.Option(help="Address of the folder --root, as Label Studio reaches it.")
    ] = LOCAL_FILES,
    config: Annotated[
        Path | None,
        typer.Option(help="Also write the labelling interface (XML) here.", show_default=False),
    ] = None,
    missing: Missing = False,
    ambiguous: Ambiguous = False,
    home: Home = DEFAULT_HOME,
    db: Database = None,
) -> None:
    """Label Studio's tasks as JSON, a recording each, with detections as predictions."""
    from audioset_core.storage.atomic_files import write_text

    question = chosen(under, not_under, min_score, model, source, missing, ambiguous)
    refuse_folder(out)
    with export_job(home, db, question) as job:
        folder = job.root(root)
        if config is not None:
            names = [name for _, name in exports.classes(job.conn, job.question)]
            write_text(config, label_studio_config(names))
        with written(out) as file:
            for text in label_studio_texts(job.heard(), folder, url_prefix):
                file.write(text.encode())
        note(f"audio is at {url_prefix} plus the path below {one_line(os.fsdecode(folder))}")
        job.report(out)


@app.command("sed-scores")
def export_sed_scores(
    out: OutFolder,
    under: Under = None,
    not_under: NotUnder = None,
    model: Model = None,
    source: Source = None,
    root: Root = None,
    missing: Missing = False,
    home: Home = DEFAULT_HOME,
    db: Database = None,
) -> None:
    """Scores over time as TSV for sed_scores_eval, one per recording, a column per class.

    Exit code 1 if a score file is missing or damaged: see ``audioset verify``.
    """
    refuse_full(out, overwrite=False)  # an evaluation takes every file in the folder
    question = chosen(under, not_under, 0.0, model, source, missing, ambiguous=True)
    with export_job(home, db, question) as job:
        name = model or only_model(job.engine)
        counts = write_sed_scores(
            replace(job, question=replace(job.question, model=name)), home, out, root
        )
    print(f"scores of {counts['written']:,} recordings by {name}: {out}")
    if counts["without scores"]:
        note(f"left out: {counts['without scores']:,} recordings too short for a patch")
    raise typer.Exit(1 if counts["failed"] else 0)


@app.command("json")
def export_json(
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    model: Model = None,
    home: Home = DEFAULT_HOME,
    db: Database = None,
) -> None:
    """Predictions as JSON: model, model_categories, predictions with their .npy files."""
    from audioset_core.export_formats.seed_json import write_seed_json
    from audioset_core.models.classes import Category

    out.parent.mkdir(parents=True, exist_ok=True)
    with opened(home, db) as engine:
        name = model or only_model(engine)
        categories = [Category(*row) for row in queries.categories_of(engine, name)]
        counts = Counter[str]()

        def predictions() -> Iterator[Prediction]:
            for row in reports.prediction_rows(engine, name):
                # A clip too short for a patch has no scores to point to.
                counts["written" if row.scores_path else "without scores"] += 1
                if row.scores_path:
                    yield _prediction(row, row.scores_path, home, out)

        write_seed_json(out, name, categories, predictions())
    print(f"{counts['written']:,} predictions of {name}: {out}")
    if counts["without scores"]:
        note(f"left out: {counts['without scores']:,} clips too short for a patch")


def _prediction(row: PredictionRow, scores_path: str, home: Path, out: Path) -> Prediction:
    from audioset_core.export_formats.seed_json import Prediction

    scores = os.path.relpath(home.absolute() / scores_path, out.absolute().parent)
    return Prediction(
        id=row.user_id or row.clip,
        scores_file=scores,
        patch_hop_s=row.patch_hop_s,
        meta=row.meta,
        extra={
            "clip": row.clip,
            "path": row.path_text,
            "model_version": row.model_version,
            "is_partial": row.is_partial,
            "remarks": [asdict(remark) for remark in row.remarks],
        },
    )


def only_model(engine: Engine) -> str:
    """The one model that labelled anything.

    Raises:
        UserError: there is none, or several.
    """
    known = [model for model in queries.models_known(engine) if model.n_current]
    names = sorted({model.name for model in known})
    if not names:
        raise UserError("nothing is labelled yet: run audioset label first")
    if len(names) > 1:
        raise UserError(f"choose one of the models with --model: {', '.join(names)}")
    return names[0]
