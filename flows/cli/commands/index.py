"""``audioset index``: indexes of stored vectors, with which ``audioset similar`` answers at once.

Nothing here imports Prefect or torch.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioset_core.errors import UserError
from flows.cli.command import command_group
from flows.cli.shared_options import AsJson, Store
from flows.terminal import note, one_line, print_json, print_table, progress_lines

if TYPE_CHECKING:
    from audioset_core.storage.index_files import Stored

_FAILURE = ("file", "reason")
_NONE_YET = "no index yet: audioset index build"

Model = Annotated[str | None, typer.Option(help="Only of this model: NAME or NAME@VERSION.")]


def build(
    *,
    model: Model = None,
    moments: Annotated[
        bool,
        typer.Option(
            "--moments",
            help="Also index every moment, for CLIP@SECONDS: about half as large as the stored "
            "files. Once made, it is kept up to date without this option.",
        ),
    ] = False,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Make the indexes of stored embeddings or scores, or add to them what is new.

    Every stored file that is not in an index yet is read once. Run it again as the collection
    grows, or after it was stopped; until then `audioset similar` reads newer recordings one by one.
    Exit code 1 if a file is missing or damaged: it is named, and left out.
    """
    from tasks.indexing.update import update_indexes

    with store.database() as engine:
        done = update_indexes(
            engine, store.home.absolute(), model,
            with_moments=moments, progress=progress_lines("recordings"),
        )  # fmt: skip
    failures = [failure for each in done for failure in each.failures]
    if as_json:
        told = [{**_told(each.stored), "n_new": each.n_new} for each in done]
        named = [dict(zip(_FAILURE, failure, strict=True)) for failure in failures]
        print_json({"indexes": told, "failures": named})
    elif failures:
        print_table(_FAILURE, failures)
    for each in done:
        if each.remark is not None:
            note(one_line(each.remark))
        if not as_json:
            print(each.conclusion())
    if not done:
        note("nothing is labelled yet: run audioset label first")
    if failures:
        note(f"{len(failures):,} files cannot be used: audioset verify --repair")
    raise typer.Exit(1 if failures else 0)


def status(*, store: Store, as_json: AsJson = False) -> None:
    """List the indexes, after a look at every byte. Exit code 1 if one is damaged."""
    from audioset_core.storage.index_files import DamagedIndexError, all_stored, check_files

    folder = store.home / "index"
    whole, damaged = [], []
    for found in all_stored(folder):
        try:
            if isinstance(found, DamagedIndexError):
                raise found
            check_files(folder, found, is_deep=True)
            whole.append(found)
        except DamagedIndexError as error:
            damaged.append(one_line(str(error)))
    if as_json:
        print_json({"indexes": [_told(each) for each in whole], "damaged": damaged})
    elif whole:
        print_table(
            ("model", "of", ">recordings", ">vectors", ">MB", "up to date at"),
            [
                (
                    each.about.model,
                    f"{each.about.kind} of {each.about.rows}",
                    f"{each.n_recordings:,}",
                    f"{each.n_vectors:,}",
                    f"{each.size_bytes / 1e6:,.1f}",
                    f"{each.built_at:%Y-%m-%d %H:%M}Z",
                )
                for each in whole
            ],
        )
    for line in damaged:
        note(f"{line}; not used until it is built anew: audioset index build")
    if not whole and not damaged:
        note(_NONE_YET)
    raise typer.Exit(1 if damaged else 0)


def remove(*, store: Store) -> None:
    """Delete all indexes; `audioset similar` then reads every file."""
    from tasks.indexing.update import remove_indexes

    if not (store.home / "index").is_dir():
        raise UserError(_NONE_YET)
    print(f"{remove_indexes(store.home) / 1e6:,.1f} MB of indexes removed")


def _told(stored: Stored) -> dict[str, Any]:
    return {
        **asdict(stored.about),
        "n_recordings": stored.n_recordings,
        "n_vectors": stored.n_vectors,
        "size_bytes": stored.size_bytes,
        "built_at": stored.built_at,
    }


app = command_group(
    "Make similar answer at once in large collections.",
    {"build": build, "status": status, "remove": remove},
)
