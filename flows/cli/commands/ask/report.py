"""``audioset report``: a page that opens in any browser, without a server."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from audioset_core.errors import UserError
from db.query.question import Question
from db.reports import model_coverage as queries
from flows.cli.shared_options import Places, Store, file_kind


def report(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path(
        "report.html"
    ),
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "What can be heard",
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Lowest score of a sound that counts.")
    ] = 0.5,
    examples: Annotated[
        int, typer.Option(min=0, max=40, help="Number of classes with sounds to listen to.")
    ] = 12,
    places: Places,
    store: Store,
) -> None:
    """Write a page about the collection: hours by branch, top classes, days, examples, failures."""
    from audioset_core.storage.atomic_files import write_atomically
    from flows.pages.report_page import report_page

    file_kind(out, ("html", "htm"))
    with store.database() as engine:
        floor = queries.score_floor(engine)
        if min_score < floor:
            message = f"scores below {floor:g} are not stored, so {min_score:g} would count too few"
            raise UserError(f"{message}; ask for at least {floor:g}")
        asked = Question(min_score=min_score, **places.of_question(engine))
        page = report_page(
            engine, asked, title=title, n_example_classes=examples, now=datetime.now(UTC)
        )
    write_atomically(out, page)
    print(out)
