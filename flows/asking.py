"""What everything that asks shares: the open database, what names mean, and times as text."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.object_storage.addresses import place_meant
from audioset_core.ontology.graph import Node, Ontology, load_default
from audioset_core.records import Health
from db.catalog.own_classes import OwnClass, own_classes
from db.engine import open_engine, reading
from db.migrate import ensure_schema
from db.query.places import Near
from db.query.question import Question, file_conditions
from db.read_only import may_write, snapshot_of
from db.reports.model_coverage import models_known, predictable_members, sole_speaker
from flows.options import database_url
from flows.terminal import clock, note, one_line

if TYPE_CHECKING:
    from db.answer_records import ModelReport
    from db.thresholds.sets import StoredSet

HIT_COLUMNS = (
    "score", "mid", "name", "start_s", "end_s", "peak_s", "duration_s", "clip", "n_sources", "path",
    "recorded_at", "heard_at", "site",
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
    return load_default() if engine is None else _with_classes(tuple(own_classes(engine)))


@lru_cache(maxsize=2)
def _with_classes(own: tuple[OwnClass, ...]) -> Ontology:
    return load_default().with_classes(
        [(Node(each.mid, each.name, description=each.description), each.parent_mids)
         for each in own]
    )  # fmt: skip


def mids_of(ontology: Ontology, names: Sequence[str]) -> tuple[str, ...]:
    """The MIDs of the classes and categories that the names stand for, each once.

    Raises:
        UserError: a name is unknown, or stands for several.
    """
    return tuple(dict.fromkeys(ontology.find(name).mid for name in names))


def site_names(engine: Engine, names: Sequence[str]) -> tuple[str, ...]:
    """The names of sites as they are stored, each once.

    Raises:
        UserError: a name is unknown; the line names the nearest.
    """
    if not names:
        return ()
    from audioset_core.inputs.sites import find_site
    from db.catalog.sites import stored_sites

    every = stored_sites(engine)
    return tuple(dict.fromkeys(find_site(every, name).name for name in names))


def asked_place(text: str | None, km: float | None) -> Near | None:
    """A place and the distance from it, which is 1 km unless it is given.

    Raises:
        UserError: it is no place, or the distance is not above 0.
    """
    if not text:
        return None
    from audioset_core.inputs.coordinates import place_in
    from audioset_core.inputs.sites import NEAR_KM

    if km is not None and not 0 < km < math.inf:
        raise UserError(f"a distance of {km:g} km finds nothing: it has to be above 0")
    return (*place_in(text), NEAR_KM if km is None else km)


def sun_of(engine: Engine, question: Question, *, always: bool = False) -> str | None:
    """Make sure that the sun is known where it is asked for; what lacks it, in words.

    Raises:
        UserError: it has no such phase.
    """
    if not (question.sun or always):
        return None
    from audioset_core.inputs.sun import PHASES
    from db.catalog.sun_periods import days_without_sun
    from db.query.sun import count_without_sun
    from tasks.labelling.sun import extend_sun

    for phase in question.sun:
        if phase not in PHASES:
            raise UserError(f"the sun has no phase {phase[:40]!r}: {', '.join(PHASES)}")
    told = []
    if may_write(engine):
        extend_sun(engine)
    elif lacking := days_without_sun(engine):
        told.append(f"left out: {len(lacking):,} days of places, whose sun cannot be stored here")
    with reading(engine) as conn:
        left = count_without_sun(conn, *file_conditions(question))
    if left:
        which = "1 recording has" if left == 1 else f"{left:,} recordings have"
        told.append(f"left out: {which} no place or no start: audioset sites, audioset times")
    return "; ".join(told) or None


def answerable(engine: Engine, question: Question) -> tuple[Question, str | None]:
    """The question, and the model that it asks because that one alone can answer; None: as it was.

    Raises:
        UserError: no model predicts what is looked for; the line names the nearest class above.
    """
    speaker = None
    for mid in (*question.under, *question.all_of):
        if not predictable_members(engine, mid, question.model):
            raise UserError(_cannot_predict(engine, mid, question.model))
        if question.model is None and (speaker := sole_speaker(engine, mid)):
            question = replace(question, model=speaker)
    return question, question.model if speaker else None


def set_for(engine: Engine, title: str, model: str | None) -> StoredSet:
    """The set of thresholds, NAME or NAME@VERSION, for a question to a model.

    Raises:
        UserError, DatabaseUserError: there is no such set, or it is of another model.
    """
    from db.thresholds.sets import find_set

    stored = find_set(engine, title)
    own = stored.values.model
    if model not in (None, own):
        raise UserError(
            f"{stored.title} is for {own or 'the current labelling of each clip'}: "
            f"leave --model {model} out, or choose another set"
        )
    return stored


def stated_zone(engine: Engine) -> str | None:
    """The time zone that was stated with `audioset times`, or else of sites, if there is one."""
    from db.catalog.sites import stored_sites
    from db.catalog.start_times import stored_rules

    stated = {rule.timezone for rule in stored_rules(engine) if rule.timezone}
    stated = stated or {site.timezone for site in stored_sites(engine) if site.timezone}
    return stated.pop() if len(stated) == 1 else None


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
    return place_meant(text)


def levels(health: Health) -> str:
    """The levels of a recording on one line."""
    loudness = health.loudness_lufs
    lufs = "" if loudness is None else f", loudness {loudness:.1f} LUFS"
    return f"peak {health.peak_dbfs:.1f} dBFS, RMS {health.rms_dbfs:.1f} dBFS{lufs}"


def shown_interval(start_s: float | None, end_s: float | None) -> str:
    """From when to when, or nothing where there is no interval."""
    return "" if start_s is None or end_s is None else f"{clock(start_s)}-{clock(end_s)}"


def _cannot_predict(engine: Engine, mid: str, model: str | None) -> str:
    """Why a question about a node has no answer, with the nearest node that has one."""
    name = model and model.partition("@")[0]
    known = [m for m in models_known(engine) if name in (None, m.name)]
    if not known:  # a home that has the ontology already, and no labels yet
        return "nothing is labelled yet: run audioset label first"
    if not any(m.n_classes for m in known):
        return f"{known[-1].name} gives embeddings only here: there are no scores to query"
    who = model or " and ".join(sorted({m.name for m in known}))
    ontology = ontology_of(engine)
    nearest = next(
        (
            node.name
            for node in ontology.ancestors(mid)
            if node.mid in dict(predictable_members(engine, node.mid, model))
        ),
        None,
    )
    hint = f"; the nearest class above it that it can: {nearest!r}" if nearest else ""
    return f"{who} cannot predict {ontology.nodes[mid].name!r} ({mid}) or anything below it{hint}"
