"""``audioset convert`` and ``audioset models``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.options import Database, Home, database_url
from flows.terminal import print_json, print_table


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Published weights (.h5, .pth).")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Where to write. [default: IN.safetensors]"),
    ] = None,
    model: Annotated[str, typer.Option(help="Which model's weights they are.")] = "yamnet",
) -> None:
    """Convert published weights to safetensors, every dataset checked."""
    from audioset_core.bundle import find_bundle
    from audioset_core.convert import convert as convert_file

    target = output or source.with_suffix(".safetensors")
    metadata = convert_file(source, target, model=find_bundle(model).name)
    rows = [("written", str(target)), *metadata.items()]
    print_table(("", ""), rows)


def models(
    home: Home = Path("audioset-data"),
    db: Database = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """The models that can label, and the state of their weights."""
    from audioset_core.bundle import BUNDLES

    rows = [_model_row(name) for name in BUNDLES]
    labelled = _labelled(home, db)
    if as_json:
        print_json({"models": rows, "labelled": labelled})
        return
    columns = ("name", "title", ">classes", ">window_s", ">hop_s", "version", "weights")
    print_table(columns, [[str(row[c.removeprefix(">")]) for c in columns] for row in rows])
    for entry in labelled:
        print(f"{entry['labelled']:,} clips labelled with {entry['name']} {entry['version']}")


def _model_row(name: str) -> dict[str, object]:
    from audioset_core.bundle import BUNDLES
    from audioset_core.errors import WeightsError
    from audioset_core.weights import find_source, peek

    bundle = BUNDLES[name]
    try:
        source, ready = find_source(bundle), peek(bundle)
        if ready is not None:
            state = f"ready: {ready.path}"
        elif source is not None:
            state = f"to be converted: {source}"
        else:
            size = bundle.official.size_bytes / 1e6
            state = f"not here: {size:.1f} MB are downloaded at the first use"
    except WeightsError as error:
        ready, state = None, str(error)
    return {
        "name": name,
        "title": bundle.title,
        "version": ready.version if ready else "-",
        "classes": len(bundle.categories),
        "window_s": bundle.frontend.patch_window_s,
        "hop_s": bundle.frontend.patch_hop_s,
        "weights": state,
    }


def _labelled(home: Path, db: str | None) -> list[dict[str, object]]:
    from db.engine import open_engine
    from db.migrate import ensure_schema
    from db.reports import models_known

    if db is None and not (home / "labels.db").exists():
        return []
    engine = open_engine(database_url(home, db), create=False)
    try:
        ensure_schema(engine)
        return [
            {"name": m.name, "version": m.version, "labelled": m.n_labelled}
            for m in models_known(engine)
        ]
    finally:
        engine.dispose()
