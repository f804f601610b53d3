"""``audioset convert``, ``audioset models`` and ``audioset diff``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.command import command_group, with_options
from flows.cli.shared_options import AsJson, Store
from flows.terminal import note, print_json, print_table, shown_path

if TYPE_CHECKING:
    from db.reports.model_comparison import Comparison


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Published weights: a file or folder.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Where to write. [default: IN.safetensors]"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Which model's weights they are. [default: found from the names in the file]"
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Prove the conversion against TensorFlow.")
    ] = False,
) -> None:
    """Convert published weights to safetensors; every array is checked."""
    from audioset_core.errors import UserError
    from audioset_core.models.registry import find_bundle
    from audioset_core.weights.convert import convert as convert_file

    name = None if model is None else find_bundle(model).name
    target = output or source.with_suffix(".safetensors")
    if output is None and target == source:
        raise UserError(f"{source} would be overwritten: name another file with --output")
    if verify:
        _verify(source, name)
    metadata = convert_file(source, target, model=name)
    rows = [("written", str(target)), *metadata.items()]
    print_table(("", ""), rows)


def _verify(source: Path, model: str | None) -> None:
    """Print the comparison with TensorFlow; weights that fail are not written."""
    from audioset_core.errors import WeightsError
    from audioset_core.weights.conversion_proof import verify_conversion

    report = verify_conversion(source, model)
    heading, *rows = report.rows()
    print_table(heading, rows)
    print()
    if not report.passed:
        raise WeightsError(f"{source.name}: the conversion differs from TensorFlow; not written")


def models(*, context: typer.Context, store: Store, as_json: AsJson = False) -> None:
    """The models that can label, and the state of their weights."""
    if context.invoked_subcommand is not None:
        return
    from audioset_core.models.registry import BUNDLES

    rows = [_model_row(name) for name in BUNDLES]
    labelled = _labelled(store)
    if as_json:
        print_json({"models": rows, "labelled": labelled})
        return
    columns = ("name", ">classes", ">window_s", ">hop_s", ">mAP", "state")
    print_table(columns, [[_text(row[c.removeprefix(">")]) for c in columns] for row in rows])
    for bundle in BUNDLES.values():
        if bundle.caution:
            print(f"{bundle.name}: {bundle.caution}")
    note("'audioset models show NAME': where its weights are, or which file to give")
    for entry in labelled:
        promoted = "".join(f", {what}" for what in ("promoted", "retired") if entry[what])
        model = f"{entry['name']}@{entry['version']}"
        parts = ", ".join(f"{part['model']}@{part['version']}" for part in entry["parts"])
        how = "taught on" if entry["taught"] else "combined of"
        of = f", {how} {parts}" if parts else ""
        print(f"{entry['labelled']:,} clips labelled with {model}{of}{promoted}")


def show_model(
    *,
    model: Annotated[str, typer.Argument(metavar="NAME", help="As 'audioset models' has them.")],
    as_json: AsJson = False,
) -> None:
    """One model, and where its weights are or come from."""
    from audioset_core.models.registry import find_bundle

    row = _model_row(find_bundle(model).name)
    if as_json:
        print_json(row)
    else:
        print_table(("", ""), [(name, _text(value)) for name, value in row.items()])


def promote_model(
    *,
    model: Annotated[str, typer.Argument(help="NAME (its newest version) or NAME@VERSION.")],
    store: Store,
) -> None:
    """Make a model the current one of its clips, even if other models label them later."""
    from db.reports.model_comparison import promote

    with store.database() as engine:
        print(f"{promote(engine, model)} is now the current model of the clips that it labelled")


def retire_model(
    *,
    model: Annotated[str, typer.Argument(help="NAME (all versions) or NAME@VERSION.")],
    undo: Annotated[
        bool, typer.Option("--undo", help="Count it beside the current models again.")
    ] = False,
    store: Store,
) -> None:
    """Have a taught model count only where it is named, and score nothing new by itself.

    Its labels stay. Teaching again under the same name makes a version that counts.
    """
    from db.reports.model_comparison import retire

    with store.database() as engine:
        name = retire(engine, model, is_retired=not undo)
    again = "counts beside the current models again"
    print(f"{name} {again if undo else 'is retired: its labels stay, and are asked with --model'}")


def diff(
    *,
    model_a: Annotated[str, typer.Argument(help="NAME or NAME@VERSION.")],
    model_b: Annotated[str, typer.Argument(help="NAME or NAME@VERSION.")],
    limit: Annotated[int, typer.Option(min=1, help="Classes and clips to show.")] = 20,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Compare two models on the clips that both labelled: by class, and where they differ most.

    Classes that one of them cannot predict are left out.
    """
    from dataclasses import asdict

    from db.reports.model_comparison import compare

    with store.database() as engine:
        result = compare(engine, model_a, model_b, limit)
    if as_json:
        print_json(asdict(result))
        return
    print(f"{result.n_clips:,} clips scored by both; clips with the class detected, and minutes:\n")
    print_table(
        (
            "class",
            *(f">{m} {of}" for of in ("clips", "min") for m in (model_a, model_b)),
            ">change",
        ),
        [
            (
                c.name,
                str(c.n_clips_a),
                str(c.n_clips_b),
                f"{c.minutes_a:.2f}",
                f"{c.minutes_b:.2f}",
                f"{c.minutes_b - c.minutes_a:+.2f}",
            )
            for c in result.changes[:limit]
        ],
    )
    print("\nclips that differ most (peak of the class that differs most; -: too low to store):\n")
    print_table(
        ("class", f">{model_a}", f">{model_b}", "clip", "file"),
        [
            (d.name, *(f"{peak:.2f}" if peak else "-" for peak in (d.peak_a, d.peak_b)),
             d.clip[:12], shown_path(d.path_text))
            for d in result.disagreements
        ],
    )  # fmt: skip
    for line in _cautions(result, model_a, model_b):
        note(line)


def _cautions(result: Comparison, model_a: str, model_b: str) -> Iterator[str]:
    """What a reader of the comparison has to know: unlike windows, classes that are left out."""
    if result.window_s_a != result.window_s_b:
        yield (
            f"a score of {model_a} is of {result.window_s_a:g} s, one of {model_b} of "
            f"{result.window_s_b:g} s, and a detection is at least as long: compare clips rather "
            "than minutes"
        )
    for model, names in ((model_a, result.only_a), (model_b, result.only_b)):
        if names:
            shown = "; ".join(names[:3]) + "; ..." * (len(names) > 3)
            yield f"left out, because only {model} predicts them: {len(names)} classes ({shown})"


def _model_row(name: str) -> dict[str, object]:
    from audioset_core.errors import WeightsError
    from audioset_core.models.registry import BUNDLES
    from audioset_core.weights.locate import find_source, peek

    bundle, ready = BUNDLES[name], None
    try:
        source, ready = find_source(bundle), peek(bundle)
        if ready is not None:
            state, weights = f"ready, {ready.version}", f"ready: {ready.path}"
        elif source is not None:
            state, weights = "to be converted", f"to be converted: {source}"
        else:
            assert bundle.official is not None  # noqa: S101 (for mypy: find_source would raise)
            size_mb = bundle.official.size_bytes / 1e6
            size = f"{size_mb:.1f} MB" if size_mb else "size not stated"
            state = "download at first use"
            weights = f"not here: {bundle.official.url} is downloaded at the first use ({size})"
    except WeightsError as error:
        is_asked_for = bundle.weights_hint and bundle.weights_hint in str(error)
        state, weights = "file needed" if is_asked_for else "unusable", str(error)
    return {
        "name": name,
        "title": bundle.title,
        "classes": len(bundle.categories),
        "window_s": bundle.frontend.step_window_s,
        "hop_s": bundle.frontend.step_hop_s,
        "mAP": bundle.mean_ap,
        "version": ready.version if ready else "-",
        "state": state,
        "weights": weights,
    }


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _labelled(store: Store) -> list[dict[str, Any]]:
    from db.integrity.audit import stored_variants
    from db.reports.model_coverage import models_known

    if not store.is_there:
        return []
    with store.database() as engine:
        stored_of = {stored.title: stored for stored in stored_variants(engine).values()}
        return [
            {
                "name": m.name,
                "version": m.version,
                "labelled": m.n_labelled,
                "promoted": m.is_promoted,
                "retired": m.is_retired,
                "parts": stored.parts if stored else (),
                "taught": m.is_taught,
            }
            for m in models_known(engine)
            for stored in (stored_of.get(f"{m.name}@{m.version}"),)
        ]


app = command_group(
    "The models that can label, and the state of their weights.",
    {"show": show_model, "promote": promote_model, "retire": retire_model},
    no_args_is_help=False,
    invoke_without_command=True,
)
app.callback()(with_options(models))
