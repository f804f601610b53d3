"""``audioset query``, ``show``, ``failures`` and ``export``: what the database knows.

Nothing here imports Prefect or torch: an answer should take less time than the question.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.ontology import Node, Ontology, load_default
from db import queries, reports
from db.engine import open_engine
from db.migrate import ensure_schema
from db.results import PredictionRow
from flows.options import DEFAULT_HOME, Database, Home, database_url
from flows.set_queries import found_by_set
from flows.terminal import clock, note, one_line, print_csv, print_json, print_table, shown_path

if TYPE_CHECKING:
    from audioset_core.export import Prediction

export_app = typer.Typer(
    help="Write labels in other tools' formats.", no_args_is_help=True, rich_markup_mode=None
)

AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV on stdout.")]


@contextmanager
def opened(home: Path, db: str | None) -> Iterator[Engine]:
    """The existing database of a home folder or URL.

    Raises:
        DatabaseUserError: there is none.
    """
    engine = open_engine(database_url(home, db), create=False)
    try:
        ensure_schema(engine)
        yield engine
    finally:
        engine.dispose()


def query(
    under: Annotated[str, typer.Option(help="A class or category: name, MID or path.")],
    min_score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Least score.")] = 0.5,
    not_under: Annotated[
        list[str] | None,
        typer.Option(help="Leave out clips with such a sound at --min-score.", show_default=False),
    ] = None,
    ambiguous: Annotated[
        bool,
        typer.Option(
            "--ambiguous",
            help="Also clips where only a source-ambiguous class (Hiss, Tick, Buzz, ...) fits.",
        ),
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most this many clips.")] = 100,
    model: Annotated[
        str | None, typer.Option(help="A model other than the current one.", show_default=False)
    ] = None,
    threshold_set: Annotated[
        str | None,
        typer.Option(
            help="What this set of thresholds found, NAME or NAME@VERSION, not --min-score.",
            show_default=False,
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
    db: Database = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Clips with any sound under a node: best score, which class, and when; best first."""
    ontology = load_default()
    node = ontology.find(under)
    excluded = [ontology.find(text).mid for text in not_under or []]
    with opened(home, db) as engine:
        if not queries.predictable_members(engine, node.mid, model):
            raise UserError(_cannot_predict(engine, ontology, node, model))
        if threshold_set is not None:
            hits = found_by_set(engine, threshold_set, model, node.mid, excluded, limit, ambiguous)
        else:
            hits = queries.top_clips(
                engine, node.mid, excluded, min_score, limit, model, with_ambiguous=ambiguous
            )
    if as_json:
        print_json([{k: v for k, v in asdict(hit).items() if k != "path"} for hit in hits])
        return
    if as_csv:
        columns = [
            "score",
            "mid",
            "name",
            "start_s",
            "end_s",
            "peak_s",
            "duration_s",
            "clip",
            "n_sources",
            "path",
        ]
        rows = ([getattr(h, "path_text" if c == "path" else c) for c in columns] for h in hits)
        print_csv(columns, rows)
        return
    print_table(
        (">score", "class", "when", ">of", "clip", "file"),
        [
            (
                f"{hit.score:.2f}",
                hit.name,
                _interval(hit.start_s, hit.end_s),
                clock(hit.duration_s),
                hit.clip[:12],
                shown_path(hit.path_text)
                + (" (missing)" if hit.is_missing else "")
                + (f" (+{hit.n_sources - 1} copies)" if hit.n_sources > 1 else ""),
            )
            for hit in hits
        ],
    )
    if not hits:
        least = f"at {min_score:g} or above" if threshold_set is None else f"by {threshold_set}"
        note(f"no clip has {node.name!r} {least}")
    elif len(hits) == limit:
        note(f"the best {limit} clips; more with --limit")


def show(
    clip: Annotated[
        str,
        typer.Argument(
            metavar="CLIP|PATH", help="A clip id (6 or more of its hex digits) or a file."
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="Labels to show.")] = 10,
    home: Home = DEFAULT_HOME,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """What is known of a clip: sources, labellings, top labels, detections with times."""
    with opened(home, db) as engine:
        report = reports.clip_by_ref(engine, _reference(clip))
    if as_json:
        described = asdict(report)
        for source in described["sources"]:
            del source["path"]
        print_json(described)
        return
    facts = report.clip
    print(f"clip {facts.sha256}")
    print(
        f"{clock(facts.duration_s)}, {facts.sample_rate_hz} Hz, {facts.n_channels} channels, "
        f"{facts.format}, {facts.size_bytes:,} bytes"
    )
    for source in report.sources:
        named = f"  id {source.user_id}" if source.user_id else ""
        print(one_line(f"  {source.path_text} ({source.status}){named}"))
    for labelling in report.labellings:
        mark = "current" if labelling.is_current else "kept"
        when = f"{labelling.labelled_at:%Y-%m-%d %H:%M}Z" if labelling.labelled_at else "-"
        print(
            f"  {labelling.model} {labelling.model_version}, hop {labelling.patch_hop_s:g} s: "
            f"{labelling.status}, {mark}, {labelling.n_patches} patches, {when}"
            + (f" ({labelling.note})" if labelling.note else "")
        )
    print()
    print_table(
        (">peak", ">mean", "class", "mid"),
        [(f"{x.peak:.2f}", f"{x.mean:.2f}", x.name, x.mid) for x in report.labels[:top]],
    )
    names = {label.mid for label in report.labels[:top]}
    print()
    print_table(
        ("when", "class", ">peak", ">mean"),
        [
            (_interval(d.start_s, d.end_s), d.name, f"{d.peak:.2f}", f"{d.mean:.2f}")
            for d in report.detections
            if d.mid in names
        ],
    )


def failures(
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many.")] = None,
    home: Home = DEFAULT_HOME,
    db: Database = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Files that could not be labelled, and why. Exit code 1 if there are any."""
    with opened(home, db) as engine:
        found = reports.failures(engine, limit)
    rows = [(f.path_text, f.reason or "", f.reason_detail or "", f.size_bytes) for f in found]
    columns = ("path", "reason", "detail", "size_bytes")
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif as_csv:
        print_csv(columns, rows)
    elif rows:
        print_table(
            ("file", "reason", "detail", ">bytes"),
            [
                (shown_path(path), reason, detail, f"{size:,}")
                for path, reason, detail, size in rows
            ],
        )
    else:
        print("no file failed")
    raise typer.Exit(1 if rows else 0)


@export_app.command("json")
def export_json(
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    model: Annotated[
        str | None, typer.Option(help="A model other than the current one.", show_default=False)
    ] = None,
    home: Home = DEFAULT_HOME,
    db: Database = None,
) -> None:
    """Predictions as JSON: model, model_categories, predictions with their .npy files."""
    from audioset_core.categories import Category
    from audioset_core.export import write_seed_json

    out.parent.mkdir(parents=True, exist_ok=True)
    with opened(home, db) as engine:
        name = model or _only_model(engine)
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
    from audioset_core.export import Prediction

    scores = os.path.relpath(home.absolute() / scores_path, out.absolute().parent)
    return Prediction(
        id=row.user_id or row.clip,
        scores_file=scores,
        patch_hop_s=row.patch_hop_s,
        meta=row.meta,
        extra={"clip": row.clip, "path": row.path_text, "model_version": row.model_version},
    )


def _only_model(engine: Engine) -> str:
    known = [model for model in reports.models_known(engine) if model.n_current]
    names = sorted({model.name for model in known})
    if not names:
        raise UserError("nothing is labelled yet: run audioset label first")
    if len(names) > 1:
        raise UserError(f"choose one of the models with --model: {', '.join(names)}")
    return names[0]


def _cannot_predict(engine: Engine, ontology: Ontology, node: Node, model: str | None) -> str:
    known = [m for m in reports.models_known(engine) if model in (None, m.name)]
    if known and not any(m.n_classes for m in known):
        return f"{known[-1].name} gives embeddings only here: there are no scores to query"
    who = {"yamnet": "YAMNet", "vggish": "VGGish", "panns": "PANNs"}.get(
        model or "yamnet", model or ""
    )
    nearest = next(
        (
            n.name
            for n in ontology.ancestors(node.mid)
            if n.mid in {mid for mid, _ in queries.predictable_members(engine, n.mid, model)}
        ),
        None,
    )
    hint = f"; the nearest class above it that it can: {nearest!r}" if nearest else ""
    return f"{who} cannot predict {node.name!r} ({node.mid}) or anything below it{hint}"


def _reference(text: str) -> str | bytes:
    """A clip id stays text, anything else is a file's path."""
    if re.fullmatch(r"[0-9a-fA-F]{6,64}", text) and not os.path.lexists(text):
        return text.lower()
    return os.path.abspath(os.fsencode(text))  # noqa: PTH100 (bytes)


def _interval(start_s: float | None, end_s: float | None) -> str:
    return "" if start_s is None or end_s is None else f"{clock(start_s)}-{clock(end_s)}"
