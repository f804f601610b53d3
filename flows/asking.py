"""What several commands that ask share: options, the open database, and what names mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.ontology.graph import Node, Ontology
from db.engine import open_engine
from db.migrate import ensure_schema
from db.read_only import snapshot_of
from db.reports import model_coverage as queries
from flows.options import database_url
from flows.terminal import clock, note, one_line

if TYPE_CHECKING:
    from db.query.time_spans import Span

AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV on stdout.")]
HIT_COLUMNS = (
    "score", "mid", "name", "start_s", "end_s", "peak_s", "duration_s", "clip", "n_sources", "path",
    "recorded_at", "heard_at",
)  # fmt: skip
Under = Annotated[
    list[str] | None,
    typer.Option(
        help="A class or category: name, MID or path. Several: any of them.", show_default=False
    ),
]
Between = Annotated[
    tuple[str, str] | None,
    typer.Option(
        metavar="START END",
        help="The sound is heard then: two days (2024-05-18, the last one included), moments "
        "(2024-05-18T04:30), or times of every day on the recorder's clock (04:30).",
        show_default=False,
    ),
]
Timezone = Annotated[
    str | None,
    typer.Option(
        help="The zone of --between: Europe/Berlin, +02:00. [default: the one stated with "
        "`audioset times`, else UTC]",
        show_default=False,
    ),
]
Source = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB",
        help="Files whose path fits: '*.flac', 'site-3/*', a folder; from any folder on, or from "
        "here with ./. Several: any of them.",
        show_default=False,
    ),
]
Model = Annotated[
    str | None, typer.Option(help="A model other than the current one.", show_default=False)
]
Ambiguous = Annotated[
    bool,
    typer.Option(
        "--ambiguous",
        help="Also clips where only a source-ambiguous class (Hiss, Tick, Buzz, ...) fits.",
    ),
]


@contextmanager
def opened(home: Path, db: str | None) -> Iterator[Engine]:
    """The existing database of a home folder or URL; says so where it can only be read.

    Raises:
        DatabaseUserError: there is none.
    """
    engine = open_engine(database_url(home, db), create=False)
    try:
        ensure_schema(engine)
        yield engine
        if snapshot := snapshot_of(engine):  # a mistake is one line, without this one
            note(one_line(str(snapshot)))
    finally:
        engine.dispose()


def clip_reference(text: str) -> str | bytes:
    """A clip id stays text, anything else is a file's path."""
    if re.fullmatch(r"[0-9a-fA-F]{6,64}", text) and not os.path.lexists(text):
        return text.lower()
    return os.path.abspath(os.fsencode(text))  # noqa: PTH100 (bytes)


def clock_or_none(time_s: float | None) -> str:
    """A moment, or nothing where there is none."""
    return "" if time_s is None else clock(time_s)


def shown_interval(start_s: float | None, end_s: float | None) -> str:
    """From when to when, or nothing where there is no interval."""
    return "" if start_s is None or end_s is None else f"{clock(start_s)}-{clock(end_s)}"


def mids(ontology: Ontology, texts: Sequence[str]) -> tuple[str, ...]:
    """The MIDs of the nodes that the texts stand for, each once."""
    return tuple(dict.fromkeys(ontology.find(text).mid for text in texts))


def check_predictable(
    engine: Engine, ontology: Ontology, nodes: Sequence[str], model: str | None
) -> None:
    """Refuse a question about what the model cannot say.

    Raises:
        UserError: it predicts nothing at or below one of the nodes.
    """
    for mid in nodes:
        if not queries.predictable_members(engine, mid, model):
            raise UserError(cannot_predict(engine, ontology, ontology.nodes[mid], model))


def cannot_predict(engine: Engine, ontology: Ontology, node: Node, model: str | None) -> str:
    """Why a question about a node has no answer, with the nearest that has one."""
    from audioset_core.models.registry import BUNDLES

    known = [m for m in queries.models_known(engine) if model in (None, m.name)]
    if known and not any(m.n_classes for m in known):
        return f"{known[-1].name} gives embeddings only here: there are no scores to query"
    bundle = BUNDLES.get(model or "yamnet")
    who = bundle.title.split()[0] if bundle else model
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


def asked_span(
    engine: Engine, between: tuple[str, str] | None, timezone: str | None
) -> Span | None:
    """What ``--between`` means, in the zone given, or stated before; says which.

    Raises:
        UserError: not times, or no such zone.
    """
    if between is None:
        return None
    from datetime import UTC

    from audioset_core.inputs.start_times import find_zone
    from db.catalog.start_times import stored_rules
    from flows.wall_clock import parse_span

    stated = {rule.timezone for rule in stored_rules(engine) if rule.timezone}
    if timezone is None and len(stated) == 1:
        timezone = stated.pop()
    span = parse_span(*between, zone=find_zone(timezone) or UTC)
    if not span.is_daily:
        note(f"--between is in {timezone or 'UTC, since no --timezone is given'}")
    return span
