"""``audioset verdicts``: verdicts of people, imported and kept with their history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audioset_core.errors import UserError
from db.judging.verdicts import StoredVerdict, find_verdicts, imported_files
from db.reports import clip as reports
from flows.asking import clip_reference, ontology_of, shown_interval
from flows.cli.command import command_group
from flows.cli.shared_options import AsJson, Output, Store
from flows.terminal import note, one_line, print_json, print_table, shown_path

if TYPE_CHECKING:
    from audioset_core.marks.mark import MarkFile, Problem
    from audioset_core.ontology.graph import Ontology
    from tasks.evaluation.import_verdicts import Imported

_N_SHOWN = 20

Under = Annotated[str | None, typer.Option(help="Only classes below this node.")]
OfClip = Annotated[
    str | None, typer.Option(metavar="CLIP|PATH", help="Only verdicts on this recording.")
]


def import_(
    *,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Raven and other tables, Audacity labels, Label Studio's JSON, TextGrids, WebVTT, "
            "Parquet, a review's CSV; folders of these.",
        ),
    ],
    by: Annotated[str | None, typer.Option(help="Who judged, if the file does not say.")] = None,
    column: Annotated[
        str | None, typer.Option(help="Heading of the column of classes in a table.")
    ] = None,
    class_of: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="LABEL=CLASS",
            help="The AudioSet class for a label of yours: 'Turdus merula=Bird'. May be repeated.",
        ),
    ] = None,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete",
            help="Everything was marked: a class that these files name anywhere is absent from the "
            "recordings in which they do not mark it.",
        ),
    ] = False,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Store what people marked: present, absent or unsure, by class, span and person.

    Marks name their recording by clip id, manifest's id, path or file name. Nothing is overwritten:
    the newest verdict of a person counts. A file that was imported before adds nothing. Exit code 1
    if something could not be used: its line is named, and the rest is stored.
    """
    from audioset_core.marks.read import mark_files
    from tasks.evaluation.import_verdicts import import_verdicts

    with store.database() as engine:
        ontology = ontology_of(engine)
        classes = _classes(class_of or [], ontology)
        found, unread = _read(mark_files(files), ontology, column, classes)
        for line in unread:
            note(line)
        if not found:
            raise typer.Exit(2)
        done = import_verdicts(
            engine, found, ontology, by=by, complete=complete, now=datetime.now(UTC)
        )
    _print_imported(done, as_json=as_json)
    raise typer.Exit(1 if unread or any(each.problems for each in done) else 0)


def _print_imported(done: Sequence[Imported], *, as_json: bool) -> None:
    if as_json:
        print_json([
            {**asdict(each), "verdicts": dict(each.verdicts), "counts": dict(each.counts)}
            for each in done
        ])  # fmt: skip
    for each in done:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in sorted(each.verdicts.items()))
        if not as_json:
            said = f"{each.n_stored:,} verdicts stored"
            if each.n_known:
                said += f", {each.n_known:,} known already"
            print(one_line(f"{each.name} ({each.format}): {said}{f': {kinds}' if kinds else ''}"))
        for reason, n in each.counts.items():
            note(one_line(f"{each.name}: {n:,} {reason}"))
        for line in _told(each.name, each.problems):
            note(line)


def list_(*, store: Store, as_json: AsJson = False) -> None:
    """List the files that were imported, and how many verdicts each gave."""
    with store.database() as engine:
        found = imported_files(engine)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    print_table(
        ("file", "format", "imported", ">clips", ">present", ">absent", ">unsure"),
        [
            (
                shown_path(each.name), each.format, f"{each.imported_at:%Y-%m-%d %H:%M}Z",
                f"{each.n_clips:,}", f"{each.n_present:,}", f"{each.n_absent:,}",
                f"{each.n_unsure:,}",
            )
            for each in found
        ],
    )  # fmt: skip
    if not found:
        note("no verdicts yet: audioset verdicts import FILE")


def show(*, under: Under = None, clip: OfClip = None, store: Store, output: Output) -> None:
    """Show the verdicts that count: each person's newest on a class and span."""
    _show(store, output, under, clip, history=False)


def history(*, under: Under = None, clip: OfClip = None, store: Store, output: Output) -> None:
    """Show every verdict, also those that the same person has changed since."""
    _show(store, output, under, clip, history=True)


def _show(
    store: Store, output: Output, under: str | None, clip: str | None, *, history: bool
) -> None:
    with store.database() as engine:
        mid = None if under is None else ontology_of(engine).find(under).mid
        sha256 = None
        if clip is not None:
            sha256 = reports.clip_by_ref(engine, clip_reference(clip)).clip.sha256
        found = find_verdicts(engine, under=mid, clip=sha256, history=history)
    output.show(
        StoredVerdict.__match_args__,
        map(astuple, found),
        ("class", "when", "verdict", "by", "at", "from", "file", *([""] if history else [])),
        (
            (
                each.name, shown_interval(each.start_s, each.end_s) or "all", each.verdict,
                each.judged_by, f"{each.judged_at:%Y-%m-%d %H:%M}Z",
                f"{Path(each.file).name}, {each.place}", shown_path(each.path_text),
                *(["counts" if each.is_newest else "changed since"] if history else []),
            )
            for each in found
        ),
    )  # fmt: skip
    if not found:
        note("no such verdict")


def _read(
    paths: Sequence[Path], ontology: Ontology, column: str | None, classes: dict[str, str]
) -> tuple[list[MarkFile], list[str]]:
    """What the files say, and a line for each that cannot be read."""
    from audioset_core.marks.read import read_marks

    found, unread = [], []
    for path in paths:
        try:
            found.append(read_marks(path, ontology, column=column, classes=classes))
        except UserError as error:
            unread.append(one_line(f"not read: {error}"))
    return found, unread


def _classes(texts: Sequence[str], ontology: Ontology) -> dict[str, str]:
    """MIDs by label, of LABEL=CLASS.

    Raises:
        UserError: it is no such pair, or there is no such class.
    """
    classes = {}
    for text in texts:
        label, _, name = text.partition("=")
        if not label.strip() or not name.strip():
            raise UserError(f"--class {text!r}: write LABEL=CLASS, as in 'Turdus merula=Bird'")
        classes[label.strip()] = ontology.find(name).mid
    return classes


def _told(name: str, problems: Sequence[Problem]) -> Iterator[str]:
    """A line for each problem, with its first place and how many more there are."""
    places: dict[str, list[str]] = {}
    for problem in problems:
        places.setdefault(problem.text, []).append(problem.place)
    for text, own in list(places.items())[:_N_SHOWN]:
        more = f" and {len(own) - 1:,} more" if len(own) > 1 else ""
        yield one_line(f"not used: {name}, {own[0]}{more}: {text}")
    if len(places) > _N_SHOWN:
        yield f"not used: {name}: {len(places) - _N_SHOWN:,} more problems (all with --json)"


app = command_group(
    "Import and list what people judged, with its history.",
    {"import": import_, "list": list_, "show": show, "history": history},
)
