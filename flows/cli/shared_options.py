"""Options that several commands have, in groups: where the results are, what is asked, the output.

A new condition for questions is one field here, and what it adds to the `Question`: every command
that takes the group then offers it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer
from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.inputs.sun import PHASES
from audioset_core.ontology.graph import Ontology
from db.query.question import Question
from flows.asking import (
    answerable,
    asked_place,
    mids_of,
    ontology_of,
    open_database,
    set_for,
    site_names,
    sun_of,
)
from flows.cli.wall_clock import asked_span
from flows.options import DEFAULT_HOME, Database, Home
from flows.terminal import note, print_csv, print_json, print_table

if TYPE_CHECKING:
    from db.thresholds.sets import StoredSet

AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV on stdout.")]
Clip = Annotated[
    str,
    typer.Argument(metavar="CLIP|PATH", help="A clip id (6 or more of its hex digits) or a file."),
]
Under = Annotated[
    list[str] | None,
    typer.Option(
        help="A class or category: name, MID or path. Repeat it to ask for any of several."
    ),
]
OneUnder = Annotated[str, typer.Option("--under", help="A class or category: name, MID or path.")]
NotUnder = Annotated[
    list[str] | None,
    typer.Option(help="Leave out clips in which this class or category reaches --min-score."),
]
Ambiguous = Annotated[
    bool,
    typer.Option(
        "--ambiguous",
        help="Also count source-ambiguous classes (Hiss, Tick, Buzz, ...) that stand alone.",
    ),
]
Model = Annotated[str | None, typer.Option(help="Ask this model instead of the current one.")]


@dataclass(frozen=True, slots=True)
class Store:
    """Where the results are."""

    home: Home = DEFAULT_HOME
    db: Database = None

    def database(self) -> AbstractContextManager[Engine]:
        """The database, as `flows.asking.open_database`."""
        return open_database(self.home, self.db)

    @property
    def is_there(self) -> bool:
        """Whether anything was stored yet."""
        return self.db is not None or (self.home / "labels.db").exists()

    def if_there(self) -> AbstractContextManager[Engine | None]:
        """The database, or None if nothing was stored yet."""
        return self.database() if self.is_there else nullcontext()

    def ontology(self) -> Ontology:
        """The ontology with the classes of one's own that are stored here, if anything is."""
        with self.if_there() as engine:
            return ontology_of(engine)


@dataclass(frozen=True, slots=True)
class Output:
    """How an answer is printed: as a table for people, unless JSON or CSV is asked for."""

    as_json: AsJson = False
    as_csv: AsCsv = False

    @property
    def is_data(self) -> bool:
        """Whether the answer is for programs."""
        return self.as_json or self.as_csv

    def show(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        headings: Sequence[str],
        cells: Iterable[Sequence[str]],
    ) -> None:
        """Rows as JSON objects or CSV with `columns`, or else `cells` below their headings."""
        if self.as_json:
            print_json([dict(zip(columns, row, strict=True)) for row in rows])
        elif self.as_csv:
            print_csv(columns, rows)
        else:
            print_table(headings, cells)


class Conditions(Protocol):
    """A group of options that restrict a question."""

    def of_question(self, engine: Engine) -> Mapping[str, Any]:
        """Fields of the `Question`."""


@dataclass(frozen=True, slots=True)
class Sounds:
    """Which sounds are looked for."""

    under: Under = None
    ambiguous: Ambiguous = False

    def of_question(self, engine: Engine) -> Mapping[str, Any]:
        """Fields of the `Question`."""
        return {"under": mids(engine, self.under), "with_ambiguous": self.ambiguous}


@dataclass(frozen=True, slots=True)
class Heard:
    """How the sounds are heard, and what else is heard in the clip."""

    all_of: Annotated[
        list[str] | None, typer.Option(help="Each of these must reach --min-score in the clip.")
    ] = None
    not_under: NotUnder = None
    min_score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Lowest score.")] = 0.5
    min_duration: Annotated[
        float,
        typer.Option(min=0.0, help="The sound lasts at least so many seconds without a break."),
    ] = 0.0
    threshold_set: Annotated[
        str | None,
        typer.Option(
            help="Use this set of thresholds, NAME or NAME@VERSION, instead of --min-score."
        ),
    ] = None

    def of_question(self, engine: Engine) -> Mapping[str, Any]:
        """Fields of the `Question`."""
        return {
            "all_of": mids(engine, self.all_of), "not_under": mids(engine, self.not_under),
            "min_score": self.min_score, "min_duration_s": self.min_duration,
        }  # fmt: skip

    def missed(self, engine: Engine, question: Question) -> str:
        """The sounds that were looked for, and what they have to reach, in words."""
        nodes = ontology_of(engine).nodes
        names = " or ".join(repr(nodes[mid].name) for mid in question.under)
        by = self.threshold_set
        return f"{names} {f'by {by}' if by else f'at {self.min_score:g} or above'}"

    def stored_set(self, engine: Engine, question: Question) -> StoredSet | None:
        """The set of thresholds, if one is asked for; prints how many clips it lacks.

        Raises:
            UserError, DatabaseUserError: there is no such set, or it is of another model.
        """
        if self.threshold_set is None:
            return None
        from db.score_files.labelled import count_underived

        stored = set_for(engine, self.threshold_set, question.model)
        if left := count_underived(engine, stored):
            note(f"{left:,} clips are not included yet: audioset thresholds apply {stored.title}")
        return stored


@dataclass(frozen=True, slots=True)
class Times:
    """When the sounds are heard."""

    between: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="START END",
            help="When the sound is heard: two days (2024-05-18; the last one is included), two "
            "moments (2024-05-18T04:30), or two times of day on the recorder's clock (04:30).",
        ),
    ] = None
    timezone: Annotated[
        str | None,
        typer.Option(
            help="Time zone of --between: Europe/Berlin, +02:00. [default: the one stated with "
            "`audioset times`, else the sites', else UTC]"
        ),
    ] = None

    def of_question(self, engine: Engine) -> Mapping[str, Any]:
        """Fields of the `Question`; prints which time zone is used."""
        return {"span": self.between and asked_span(engine, self.between, self.timezone)}


@dataclass(frozen=True, slots=True)
class Places:
    """Where the recordings were made."""

    site: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Only what was recorded at this site. Repeat it to allow several."
        ),
    ] = None
    near: Annotated[
        str | None,
        typer.Option(
            metavar="LAT,LON",
            help="Only what was recorded within --km of this place, by its site or, without one, "
            "by the place that its file states.",
        ),
    ] = None
    km: Annotated[
        float | None, typer.Option(help="Kilometres from --near. [default: 1]", min=0.0)
    ] = None

    def of_question(self, engine: Engine) -> Mapping[str, Any]:
        """Fields of the `Question`."""
        if self.near is None and self.km is not None:
            raise UserError("--km needs --near LAT,LON")
        return {
            "sites": site_names(engine, self.site or ()),
            "near": asked_place(self.near, self.km),
        }


@dataclass(frozen=True, slots=True)
class Files(Places):
    """Which recordings are asked about, by which model: for every command that asks."""

    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Only files whose path matches: '*.flac', 'site-3/*', a folder. It may match "
            "below any folder; with ./ it begins here. Repeat it to allow several.",
        ),
    ] = None
    sun: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join(PHASES),
            help="Only what is heard by day, at dawn, at dusk or at night, by the sun where the "
            "recording was made. Repeat it to allow several.",
        ),
    ] = None
    model: Model = None

    def of_question(self, engine: Engine) -> Mapping[str, Any]:
        """Fields of the `Question`."""
        return {
            **Places.of_question(self, engine),
            "paths": tuple(self.source or ()), "model": self.model,
            "sun": tuple(dict.fromkeys(self.sun or ())),
        }  # fmt: skip

    def refuse_sun(self, what: str) -> None:
        """For answers that are about whole recordings, of which the sun can leave nothing out.

        Raises:
            UserError: --sun is given.
        """
        if self.sun:
            raise UserError(f"--sun is not for {what}; audioset query knows it")


def question_of(engine: Engine, *groups: Conditions, **more: Any) -> Question:
    """The question that the options ask, with `more` of its fields.

    Raises:
        UserError: an option is wrong, or the model cannot predict what is looked for.
    """
    fields = {name: x for group in groups for name, x in group.of_question(engine).items()}
    question, speaker = answerable(engine, Question(**fields | more))
    if speaker is not None:
        note(f"{speaker} is asked, which alone predicts this, and is not the current model")
    if left_out := sun_of(engine, question):
        note(left_out)
    return question


def asked_sounds(
    engine: Engine, sounds: Sounds, heard: Heard, *groups: Conditions, **more: Any
) -> Question:
    """As `question_of`, for sounds that are shown: without --under, those of --all-of.

    Raises:
        UserError: also if neither is given.
    """
    if not (sounds.under or heard.all_of):
        raise UserError("say what to look for: --under or --all-of")
    question = question_of(engine, sounds, heard, *groups, **more)
    return question if question.under else replace(question, under=question.all_of)


def mids(engine: Engine, names: Sequence[str] | None) -> tuple[str, ...]:
    """The MIDs of the classes and categories that the names stand for, each once."""
    return mids_of(ontology_of(engine), names) if names else ()


def file_kind(out: Path, kinds: Sequence[str]) -> str:
    """The ending of a file's name.

    Raises:
        UserError: it is none of `kinds`.
    """
    kind = out.suffix.lower().removeprefix(".")
    if kind not in kinds:
        raise UserError(f"{str(out)!r}: the name must end in .{', .'.join(kinds)}")
    return kind
