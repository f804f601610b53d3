"""What everything that asks shares: the open database, what names mean, and times as text."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.ontology.graph import Node, Ontology, load_default
from db.catalog.own_classes import own_classes
from db.engine import open_engine
from db.migrate import ensure_schema
from db.read_only import snapshot_of
from db.reports.model_coverage import models_known
from flows.options import database_url
from flows.terminal import clock, note, one_line

if TYPE_CHECKING:
    from db.answer_records import ModelReport

HIT_COLUMNS = (
    "score", "mid", "name", "start_s", "end_s", "peak_s", "duration_s", "clip", "n_sources", "path",
    "recorded_at", "heard_at",
)  # fmt: skip
"""Columns of clips and intervals as data; the path is its text."""


@contextmanager
def open_database(home: Path, db: str | None, *, create: bool = False) -> Iterator[Engine]:
    """The database of a home folder or URL; prints a note if it can only be read.

    Raises:
        DatabaseUserError: there is none, and none is to be created.
    """
    engine = open_engine(database_url(home, db), create=create)
    try:
        ensure_schema(engine)
        yield engine
        if snapshot := snapshot_of(engine):  # after a mistake, its own line is enough
            note(one_line(str(snapshot)))
    finally:
        engine.dispose()


def ontology_of(engine: Engine | None) -> Ontology:
    """The ontology, and the classes of one's own that the database (if there is one) has."""
    if engine is None:
        return load_default()
    return load_default().with_classes(
        [
            (Node(each.mid, each.name, description=each.description), each.parent_mids)
            for each in own_classes(engine)
        ]
    )


def only_model(engine: Engine, fits: Callable[[ModelReport], int]) -> str:
    """The name of the one model here that fits.

    Raises:
        UserError: there is none, or several.
    """
    names = sorted({model.name for model in models_known(engine) if fits(model)})
    if not names:
        raise UserError("nothing is labelled yet: run audioset label first")
    if len(names) > 1:
        raise UserError(f"choose one of the models with --model: {', '.join(names)}")
    return names[0]


def clip_reference(text: str) -> str | bytes:
    """A clip id stays text, anything else is a file's path."""
    if re.fullmatch(r"[0-9a-fA-F]{6,64}", text) and not os.path.lexists(text):
        return text.lower()
    return os.path.abspath(os.fsencode(text))  # noqa: PTH100 (bytes)


def shown_interval(start_s: float | None, end_s: float | None) -> str:
    """From when to when, or nothing where there is no interval."""
    return "" if start_s is None or end_s is None else f"{clock(start_s)}-{clock(end_s)}"
