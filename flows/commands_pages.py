"""``audioset report`` and ``review``: pages that open in any browser, without a server."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from audioset_core.errors import UserError
from audioset_core.ontology import load_default
from db import queries
from flows.commands_ask import opened
from flows.options import DEFAULT_HOME, Database, Home
from flows.terminal import note

N_BINS = 5
"""Equal parts of the score range from which a sample is drawn."""
_SUFFIXES = (".html", ".htm")


def report(
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path(
        "report.html"
    ),
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "What can be heard",
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Sounds count from this score on.")
    ] = 0.5,
    examples: Annotated[
        int, typer.Option(min=0, max=40, help="Classes with sounds to listen to.")
    ] = 12,
    home: Home = DEFAULT_HOME,
    db: Database = None,
) -> None:
    """The whole collection on one page: hours by branch, top classes, days, examples, failures."""
    from audioset_core.durable import write_atomically
    from flows.report_page import report_page

    _check_name(out)
    with opened(home, db) as engine:
        floor = queries.score_floor(engine)
        if min_score < floor:
            message = f"scores below {floor:g} are not stored, so {min_score:g} would count too few"
            raise UserError(f"{message}; ask for at least {floor:g}")
        page = report_page(
            engine, title=title, min_score=min_score, n_example_classes=examples,
            now=datetime.now(UTC),
        )  # fmt: skip
    write_atomically(out, page)
    print(out)


def review(
    under: Annotated[str, typer.Option(help="A class or category: name, MID or path.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path(
        "review.html"
    ),
    sample: Annotated[int, typer.Option(min=1, max=500, help="How many clips to judge.")] = 50,
    min_score: Annotated[
        float | None,
        typer.Option(min=0.0, max=0.99, help="Least score. [default: the least that is stored]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another number draws another sample.")] = 0,
    home: Home = DEFAULT_HOME,
    db: Database = None,
) -> None:
    """A page to judge clips by ear, evenly spread over the scores; verdicts become a CSV."""
    from audioset_core.durable import write_atomically
    from db.review import review_sample
    from flows.review_page import review_page

    _check_name(out)
    node = load_default().find(under)
    with opened(home, db) as engine:
        if not queries.predictable_members(engine, node.mid):
            raise UserError(f"no model here predicts {node.name!r} or anything below it")
        floor = queries.score_floor(engine)
        least = floor if min_score is None else min_score
        if least < floor:
            message = f"scores below {floor:g} are not stored, so {least:g} would miss clips"
            raise UserError(f"{message}; ask for at least {floor:g}")
        items = review_sample(engine, node.mid, sample, n_bins=N_BINS, least=least, seed=seed)
        if not items:
            raise UserError(f"no clip has {node.name!r} at {least:g} or above")
        page = review_page(engine, f"Review: {node.name}", items)
    write_atomically(out, page)
    if len(items) < sample:
        note(f"only {len(items):,} clips reach {least:g}: all of them are in the page")
    print(out)


def _check_name(out: Path) -> None:
    if out.suffix.lower() not in _SUFFIXES:
        raise UserError(f"{str(out)!r}: the name must end in {' or '.join(_SUFFIXES)}")
