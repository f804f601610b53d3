"""What the commands that read a truth file share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.evaluation.truth_files import TruthFormat
from flows.asking import only_model, ontology_of
from flows.terminal import note, one_line

if TYPE_CHECKING:
    from audioset_core.evaluation.truth_files import Truth
    from audioset_core.ontology.graph import Ontology
    from tasks.evaluation.score_truth import Pooling, Reach, Scored

VERDICTS = "verdicts"
TRUTH_METAVAR = f"FILE|FOLDER|{VERDICTS}"


TRUTH_HELP = (
    "What recordings are known to have, by file name, path, id or clip id; 'verdicts' "
    "takes what audioset verdicts has imported."
)
Format = Annotated[
    TruthFormat,
    typer.Option(
        help="'csv': a recording and a class a line, a review, or what verdicts import reads."
    ),
]


@dataclass(frozen=True, slots=True)
class Known:
    """What recordings are known to hold, and which model's scores are compared with it."""

    truth: Annotated[Path, typer.Option(metavar=TRUTH_METAVAR, help=TRUTH_HELP)]
    format: Format = "csv"
    model: Annotated[str | None, typer.Option(help="NAME or NAME@VERSION.")] = None

    def scored(
        self,
        engine: Engine,
        home: Path,
        *,
        pooling: Pooling,
        reach: Reach,
        segment_s: float | None = None,
    ) -> Evidence:
        """The truth beside the stored scores; recordings are cut into segments if asked for.

        Raises:
            UserError: the truth cannot be read, there are no verdicts yet, or no or several models.
        """
        from audioset_core.evaluation.truth_files import in_segments
        from tasks.evaluation.score_truth import score_truth

        ontology = ontology_of(engine)
        truth, digest = known_truth(engine, self.truth, self.format)
        if segment_s is not None:
            truth = in_segments(truth, segment_s)
        model = self.model or only_model(engine, lambda m: m.n_labelled and m.n_classes)
        scored = score_truth(
            engine, home.absolute(), truth, ontology, model=model, pooling=pooling, reach=reach
        )
        return Evidence(truth, digest, model, scored, ontology)


def known_truth(engine: Engine, path: Path, kind: TruthFormat) -> tuple[Truth, str]:
    """The truth in a file, or the verdicts of the database; and its SHA-256.

    Raises:
        UserError: the truth cannot be read, or there are no verdicts yet.
    """
    from audioset_core.evaluation.truth_files import read_truth
    from tasks.evaluation.fit_thresholds import digest_of
    from tasks.evaluation.verdict_truth import truth_of_verdicts

    if str(path) == VERDICTS:
        return truth_of_verdicts(engine)
    return read_truth(path, kind, ontology_of(engine)), digest_of(path)


def default_reach(kind: TruthFormat) -> Reach:
    """Whether a class means all that is below it, as in data sets of few classes."""
    return "subtree" if kind in _SUBTREE_FORMATS else "class"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A truth with its SHA-256, the model's scores of what it is about, and the ontology."""

    truth: Truth
    digest: str
    model: str
    scored: Scored
    ontology: Ontology


_N_SHOWN = 5
_SUBTREE_FORMATS = ("esc", "fsd50k", "csv")


def one_of(option: str, value: str, allowed: Sequence[Any]) -> Any:
    """The value, if it is allowed.

    Raises:
        UserError: it is not.
    """
    if value not in allowed:
        raise UserError(f"{option} {value!r}: choose {' or '.join(map(str, allowed))}")
    return value


def report_left_out(evidence: Evidence) -> NoReturn:
    """Print what was left out, and exit, with code 1 if a score file could not be used."""
    for line in left_out(evidence.truth, evidence.scored, evidence.ontology):
        note(one_line(line))
    raise typer.Exit(1 if evidence.scored.failures else 0)


def left_out(truth: Truth, scored: Scored, ontology: Ontology) -> Iterator[str]:
    """A line for each kind of truth entry or recording that was not used."""
    examples = f", such as {', '.join(scored.examples)}" if scored.examples else ""
    counts = {
        "truth entries match no labelled recording" + examples: scored.n_unmatched,
        "truth entries match several recordings: name those by path": scored.n_ambiguous,
        "truth entries have no score in their span": scored.n_unscored,
        "labelled recordings are not in the truth": scored.n_not_in_truth,
        **truth.left_out,
    }
    yield from (f"left out: {count:,} {what}" for what, count in counts.items() if count)
    if scored.n_beyond:
        yield (
            f"{scored.n_beyond:,} spans are shorter than a window: each has the score of the one "
            "around it, which also has what is beside the span"
        )
    if scored.unpredictable:
        shown = ", ".join(ontology.nodes[mid].name for mid in scored.unpredictable[:_N_SHOWN])
        more = ", ..." if len(scored.unpredictable) > _N_SHOWN else ""
        yield (
            f"left out: {len(scored.unpredictable)} classes that the model cannot predict: "
            f"{shown}{more}"
        )
    for clip, file, reason in scored.failures:
        yield f"left out: {file or clip}: {reason}"
