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
from audioset_core.ontology.graph import load_default
from flows.asking import only_model
from flows.terminal import note, one_line

if TYPE_CHECKING:
    from audioset_core.evaluation.truth_files import Truth
    from tasks.evaluation.score_truth import Pooling, Reach, Scored

VERDICTS = "verdicts"


@dataclass(frozen=True, slots=True)
class Known:
    """What recordings are known to hold, and which model's scores are compared with it."""

    truth: Annotated[
        Path,
        typer.Option(
            metavar="FILE|FOLDER|verdicts",
            help="What recordings are known to have, by file name, path, id or clip id; 'verdicts' "
            "takes what audioset verdicts has imported.",
        ),
    ]
    format: Annotated[
        TruthFormat,
        typer.Option(
            help="'csv': a recording and a class a line, a review, or what verdicts import reads."
        ),
    ] = "csv"
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
        from audioset_core.evaluation.truth_files import in_segments, read_truth
        from tasks.evaluation.fit_thresholds import digest_of
        from tasks.evaluation.score_truth import score_truth
        from tasks.evaluation.verdict_truth import truth_of_verdicts

        ontology = load_default()
        if str(self.truth) == VERDICTS:
            truth, digest = truth_of_verdicts(engine)
        else:
            truth = read_truth(self.truth, self.format, ontology)
            digest = digest_of(self.truth)
        if segment_s is not None:
            truth = in_segments(truth, segment_s)
        model = self.model or only_model(engine, lambda m: m.n_labelled and m.n_classes)
        scored = score_truth(
            engine, home.absolute(), truth, ontology, model=model, pooling=pooling, reach=reach
        )
        return Evidence(truth, digest, model, scored)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A truth with its SHA-256, and the model's scores of what it is about."""

    truth: Truth
    digest: str
    model: str
    scored: Scored


_N_SHOWN = 5


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
    for line in _left_out(evidence.truth, evidence.scored):
        note(one_line(line))
    raise typer.Exit(1 if evidence.scored.failures else 0)


def _left_out(truth: Truth, scored: Scored) -> Iterator[str]:
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
        nodes = load_default().nodes
        shown = ", ".join(nodes[mid].name for mid in scored.unpredictable[:_N_SHOWN])
        more = ", ..." if len(scored.unpredictable) > _N_SHOWN else ""
        yield (
            f"left out: {len(scored.unpredictable)} classes that the model cannot predict: "
            f"{shown}{more}"
        )
    for clip, file, reason in scored.failures:
        yield f"left out: {file or clip}: {reason}"
