"""``audioset export``: labels in other tools' formats; a file appears when it is complete."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
from db.answer_records import ModelReport, PredictionRow
from db.reports import clip as reports
from db.reports import export_rows as exports
from db.reports import model_coverage as queries
from flows.asking import only_model
from flows.cli.camtrap_job import PackageOptions
from flows.cli.command import Function, command_group
from flows.cli.export_job import (
    MinScore,
    OutFile,
    OutFolder,
    Recordings,
    Root,
    export_job,
    output_file,
    refuse_folder,
    refuse_full,
    write_sed_scores,
)
from flows.cli.shared_options import Files, Model, NotUnder, Sounds, Store, Under
from flows.terminal import note, one_line, print_table, progress_lines

if TYPE_CHECKING:
    from audioset_core.export_formats.seed_json import Prediction


Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files of an earlier export in the folder.")
]


def _file_command(fmt: FileFormat) -> Function:
    def command(
        *,
        out: OutFile,
        sounds: Sounds,
        min_score: MinScore = 0.0,
        recordings: Recordings,
        files: Files,
        store: Store,
    ) -> None:
        refuse_folder(out)
        with export_job(store, sounds, recordings, files, min_score=min_score) as job:
            folder = job.root(recordings.root) if fmt.needs_root else b"/"
            with output_file(out) as file:
                fmt.write(file, job.labelled(), folder)
            job.report(out)

    command.__doc__ = fmt.help
    return command


def _folder_command(fmt: FolderFormat) -> Function:
    def command(
        *,
        out: OutFolder,
        sounds: Sounds,
        min_score: MinScore = 0.0,
        recordings: Recordings,
        files: Files,
        overwrite: Overwrite = False,
        store: Store,
    ) -> None:
        from audioset_core.storage.atomic_files import write_text

        refuse_full(out, overwrite, "; or --overwrite replaces files in it")
        with export_job(store, sounds, recordings, files, min_score=min_score) as job:
            folder = job.root(recordings.root)
            for recording, events in job.labelled():
                path = out / tree_name(recording.path, folder, fmt.suffix)
                write_text(path, fmt.texts(recording, events))
            job.report(out)

    command.__doc__ = fmt.help
    return command


def export_label_studio(
    *,
    out: OutFile,
    sounds: Sounds,
    min_score: MinScore = 0.0,
    recordings: Recordings,
    files: Files,
    url_prefix: Annotated[
        str, typer.Option(help="Address of the folder --root, as Label Studio reaches it.")
    ] = LOCAL_FILES,
    config: Annotated[
        Path | None, typer.Option(help="Also write the labelling interface (XML) here.")
    ] = None,
    store: Store,
) -> None:
    """Label Studio's tasks as JSON, a recording each, with detections as predictions."""
    from audioset_core.storage.atomic_files import write_text

    for written in filter(None, (out, config)):
        refuse_folder(written)
    with export_job(store, sounds, recordings, files, min_score=min_score) as job:
        folder = job.root(recordings.root)
        if config is not None:
            names = [name for _, name in exports.classes(job.conn, job.question)]
            write_text(config, label_studio_config(names))
        with output_file(out) as file:
            for text in label_studio_texts(job.labelled(), folder, url_prefix):
                file.write(text.encode())
        note(f"audio is at {url_prefix} plus the path below {one_line(os.fsdecode(folder))}")
        job.report(out)


def export_sed_scores(
    *, out: OutFolder, under: Under = None, recordings: Recordings, files: Files, store: Store
) -> None:
    """Scores over time as TSV for sed_scores_eval, one per recording, a column per class.

    Exit code 1 if a score file is missing or damaged: see ``audioset verify``.
    """
    files.refuse_sun("scores of whole recordings")
    refuse_full(out, overwrite=False)  # an evaluation takes every file in the folder
    with export_job(store, Sounds(under, ambiguous=True), recordings, files) as job:
        name = files.model or only_model(job.engine, _is_current)
        of_model = replace(job, question=replace(job.question, model=name))
        counts = write_sed_scores(of_model, store.home, out, recordings.root)
    print(f"scores of {counts['written']:,} recordings by {name}: {out}")
    if counts["without scores"]:
        note(f"left out: {counts['without scores']:,} recordings too short for a patch")
    raise typer.Exit(1 if counts["failed"] else 0)


def export_camtrap_dp(
    *,
    out: Annotated[Path, typer.Argument(help="The folder to write to, or FILE.zip.")],
    metadata: Annotated[
        Path,
        typer.Option(help="JSON of what you state: contributors, licenses, project, ..."),
    ],
    sounds: Sounds,
    min_score: MinScore = 0.0,
    not_under: NotUnder = None,
    files: Files,
    options: PackageOptions,
    root: Root = None,
    overwrite: Overwrite = False,
    store: Store,
) -> None:
    """A Camtrap DP data package, for GBIF and archives: sites, recordings, what was heard.

    Exit code 1 if the package is not valid.
    """
    from audioset_core.export_formats.camtrap_metadata import problems, read_metadata
    from flows.cli.camtrap_job import is_zip, new_package, package_folder, report

    options.check()
    if is_zip(out):
        refuse_folder(out)
    else:
        refuse_full(out, overwrite, "; or --overwrite replaces files in it")
    stated = read_metadata(metadata)
    recordings = Recordings(not_under, missing=True)
    with export_job(store, sounds, recordings, files, min_score=min_score) as job:
        package = new_package(job, options, root)
        with package_folder(out) as folder:
            package.write(folder, stated)
            wrong = problems(folder)
        left_out = out.with_name(f"{out.stem if is_zip(out) else out.name}.left-out.csv")
        package.write_left_out(left_out)
    report(package, out, left_out, wrong, "licenses" in stated)
    raise typer.Exit(1 if wrong else 0)


def export_json(
    *,
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    model: Model = None,
    store: Store,
) -> None:
    """Predictions as JSON: model, model_categories, predictions with their .npy files."""
    from audioset_core.export_formats.seed_json import write_seed_json
    from audioset_core.models.classes import Category

    refuse_folder(out)
    with store.database() as engine:
        name = model or only_model(engine, _is_current)
        categories = [Category(*row) for row in queries.categories_of(engine, name)]
        counts = Counter[str]()

        def predictions() -> Iterator[Prediction]:
            for row in reports.prediction_rows(engine, name):
                # A clip too short for a patch has no scores to point to.
                counts["written" if row.scores_path else "without scores"] += 1
                if row.scores_path:
                    yield _prediction(row, row.scores_path, store.home, out)

        write_seed_json(out, name, categories, predictions())
    print(f"{counts['written']:,} predictions of {name}: {out}")
    if counts["without scores"]:
        note(f"left out: {counts['without scores']:,} clips too short for a patch")


def export_lake(
    *,
    out: Annotated[Path, typer.Argument(help="The folder of the lake.")],
    check: Annotated[
        bool, typer.Option("--check", help="Compare the lake with the results; write nothing.")
    ] = False,
    store: Store,
) -> None:
    """A partitioned Parquet copy of all results, kept up to date: for DuckDB, Polars, Spark, ...

    Run it again after each run: only files of which a row has changed are written. Exit code 1 if
    --check finds that the lake is behind, or that a file is damaged.
    """
    from tasks.lake.check import check_lake
    from tasks.lake.update import update_lake

    with store.database() as engine:
        if check:
            n_files, problems = check_lake(engine, out)
            if problems:
                print_table(("file", "problem"), [(one_line(x), y) for x, y in problems])
            print(f"{n_files:,} files checked, {len(problems):,} problems: {out}")
            raise typer.Exit(1 if problems else 0)
        done = update_lake(engine, out, progress_lines("partitions"))
    for name in done.strays:
        note(f"not of this lake, but a glob would read it: {one_line(name)}")
    if not done.n_labellings:
        note("nothing is labelled yet: run audioset label first")
    files = f"{done.n_written:,} written, {done.n_kept:,} kept, {done.n_removed:,} removed"
    print(f"{done.n_detections:,} detections of {done.n_labellings:,} labellings: {out}")
    print(f"files: {files}")


def _is_current(model: ModelReport) -> int:
    return model.n_current


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
            **({"site": row.site} if row.site else {}),
        },
    )


app = command_group(
    "Write labels in other tools' formats.",
    {name: _file_command(fmt) for name, fmt in FILE_FORMATS.items()}
    | {name: _folder_command(fmt) for name, fmt in FOLDER_FORMATS.items()}
    | {
        "label-studio": export_label_studio,
        "camtrap-dp": export_camtrap_dp,
        "sed-scores": export_sed_scores,
        "json": export_json,
        "lake": export_lake,
    },
)
