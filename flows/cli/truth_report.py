"""What commands that read a truth file have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.evaluation.truth_files import TruthFormat
from audioset_core.ontology.graph import load_default
from db.reports.model_coverage import models_known

if TYPE_CHECKING:
    from audioset_core.evaluation.truth_files import Truth
    from audioset_core.ontology.graph import Ontology
    from tasks.evaluation.score_truth import Scored

VERDICTS = "verdicts"
TruthFile = Annotated[
    Path,
    typer.Option(
        metavar="FILE|FOLDER|verdicts",
        help="What recordings hold, by file name, path, id or clip id; 'verdicts': what was "
        "imported with audioset verdicts.",
    ),
]
Format = Annotated[
    TruthFormat,
    typer.Option(
        help="'csv': a recording and a class a line, a review, or what audioset verdicts reads."
    ),
]
_N_SHOWN = 5


def known_truth(
    engine: Engine, truth: Path, kind: TruthFormat, ontology: Ontology
) -> tuple[Truth, str]:
    """What recordings are known to hold, from a file or the database, and its SHA-256.

    Raises:
        UserError: it cannot be read, or there are no verdicts yet.
    """
    from audioset_core.evaluation.truth_files import read_truth
    from tasks.evaluation.fit_thresholds import digest_of
    from tasks.evaluation.verdict_truth import truth_of_verdicts

    if str(truth) == VERDICTS:
        return truth_of_verdicts(engine)
    return read_truth(truth, kind, ontology), digest_of(truth)


def one_of(option: str, value: str, allowed: Sequence[Any]) -> Any:
    """The value, if it is allowed.

    Raises:
        UserError: it is not.
    """
    if value not in allowed:
        raise UserError(f"{option} {value!r}: choose {' or '.join(map(str, allowed))}")
    return value


def model_named(engine: Engine, model: str | None) -> str:
    """The model asked for, or the only one that there is.

    Raises:
        UserError: there are several, or none.
    """
    if model is not None:
        return model
    names = sorted({m.name for m in models_known(engine) if m.n_labelled and m.n_classes})
    if not names:
        raise UserError("nothing is labelled yet: run audioset label first")
    if len(names) > 1:
        raise UserError(f"choose one of the models with --model: {', '.join(names)}")
    return names[0]


def describe_left_out(truth: Truth, scored: Scored) -> Iterator[str]:
    """A line for everything of the truth, and of the recordings, that was not used."""
    examples = f", such as {', '.join(scored.examples)}" if scored.examples else ""
    counts = {
        "items of the truth mean no labelled recording" + examples: scored.n_unmatched,
        "items of the truth mean several recordings: name them by path": scored.n_ambiguous,
        "items have no score in their span": scored.n_unscored,
        "labelled recordings are not in the truth": scored.n_not_in_truth,
        **truth.left_out,
    }
    yield from (f"left out: {count:,} {what}" for what, count in counts.items() if count)
    if scored.unpredictable:
        nodes = load_default().nodes
        shown = ", ".join(nodes[mid].name for mid in scored.unpredictable[:_N_SHOWN])
        more = ", ..." if len(scored.unpredictable) > _N_SHOWN else ""
        yield (
            f"left out: {len(scored.unpredictable)} classes that the model cannot predict: "
            f"{shown}{more}"
        )
    for clip, file, reason in scored.failures:
        yield f"left out: {file or clip}: {reason}"
