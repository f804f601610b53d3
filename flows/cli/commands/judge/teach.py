"""``audioset teach``: classes of one's own, from examples among stored embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from audioset_core.errors import UserError
from flows.asking import ontology_of
from flows.cli.shared_options import AsJson, Store
from flows.terminal import note, one_line, print_json, print_table

if TYPE_CHECKING:
    from tasks.teaching.teach import Taught

_FAILURE = ("clip", "file", "reason")


def teach(
    *,
    classes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CLASS...",
            help="Your own or AudioSet's classes: names or MIDs. [default: those of --examples]",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the taught model, such as my-sounds.")],
    model: Annotated[
        str | None,
        typer.Option(help="Whose embeddings: NAME or NAME@VERSION. [default: the only ones]"),
    ] = None,
    examples: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS=FOLDER",
            help="All labelled recordings in a folder (or a file) are examples of a class. Repeat "
            "it for more.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of folds and of random recordings.")] = 0,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Teach classes from examples: imported verdicts, and folders of recordings.

    One head for each class is fitted on the embeddings that audioset label --embeddings has
    stored, and measured on recordings that it did not learn from. Then audioset label --model NAME
    scores all recordings, without decoding one. Exit code 1 if a file of embeddings is damaged.
    """
    from tasks.teaching.lacking import without_embeddings
    from tasks.teaching.teach import Lesson, teach

    folders = [_example(text) for text in examples or ()]
    lesson = Lesson(name, tuple(classes or ()), folders, model, seed)
    with store.database() as engine:
        taught = teach(engine, store.home.absolute(), lesson, ontology_of(engine))
        lacking = without_embeddings(engine, taught.base)
    if as_json:
        print_json(_as_json(taught))
    else:
        _print(taught)
    gathered = taught.gathered
    for each in taught.fitted.classes:
        if each.line is None:
            note(f"{each.name}: not calibrated, as there are too few examples or they disagree")
    if lacking:
        note(one_line(f"left out: {lacking}"))
    for what, n in gathered.left_out.items():
        note(one_line(f"left out: {n:,} {what}"))
    for clip, file, reason in gathered.failures:
        note(one_line(f"left out: {file or clip}: {reason}"))
    raise typer.Exit(1 if gathered.failures else 0)


def _example(text: str) -> tuple[str, str]:
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise UserError(f"--examples {text!r}: write CLASS=FOLDER, such as 'Wood saw=saws/'")
    return name, folder


def _print(taught: Taught) -> None:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows = [
        (
            each.name,
            f"{each.n_recordings:,}",
            f"{each.n_patches:,}",
            f"{each.n_other_recordings:,}",
            shown(each.ap),
            "-" if each.ap_interval is None else "{:.3f}-{:.3f}".format(*each.ap_interval),
        )
        for each in taught.fitted.classes
    ]
    columns = ("class", ">recordings", ">patches", ">others", ">AP", ">95 %")
    print_table(columns, rows)
    curves = [dict(each.curve) for each in taught.fitted.classes]
    if sizes := sorted(set().union(*curves)):
        print_table(
            ("AP by recordings learned from", *(f">{size}" for size in sizes)),
            [
                (each.name, *(shown(curve.get(size)) for size in sizes))
                for each, curve in zip(taught.fitted.classes, curves, strict=True)
            ],
        )
    name = taught.title.partition("@")[0]
    print(f"{taught.title}: taught on {taught.base}; now: audioset label --model {name}")


def _as_json(taught: Taught) -> dict[str, object]:
    from tasks.teaching.teach import figures

    fitted = taught.fitted
    return {
        "model": taught.title,
        "base": taught.base,
        "mean_ap": fitted.mean_ap,
        "mean_ap_interval": fitted.mean_ap_interval,
        "examples_sha256": taught.gathered.examples_sha256,
        "embeddings_sha256": taught.gathered.embeddings_sha256,
        "n_clips": taught.n_clips,
        "classes": [
            figures(mid, each) for mid, each in zip(taught.mids, fitted.classes, strict=True)
        ],
        "failures": [dict(zip(_FAILURE, each, strict=True)) for each in taught.gathered.failures],
    }
