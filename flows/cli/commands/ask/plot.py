"""``audioset plot`` and ``curve``: pictures of a clip, and of a sound over the collection."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy import Engine

from audioset_core.errors import AudioError, UserError
from db.reports import clip as reports
from db.reports import model_coverage as queries
from flows.asking import clip_reference, ontology_of
from flows.cli.shared_options import Clip, OneUnder, Output, Store, file_kind
from flows.terminal import clock, note, one_line, print_csv, print_json, shown_path

if TYPE_CHECKING:
    from audioset_core.ontology.graph import Node, Ontology
    from audioset_core.previews.waveform_overview import Overview
    from db.answer_records import ClipReport, LabellingReport
    from db.reports.score_curves import ScoreCurve
    from flows.figures.clip_figure import ClipPicture

_KINDS = ("png", "svg", "pdf")
_NEEDS_PLOT = "pictures need matplotlib: pip install 'audioset-flows[plot]'"


def plot(
    *,
    clip: Clip,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A .png, .svg or .pdf file. [default: CLIP.png]"),
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=40, help="Classes to show.")] = 8,
    store: Store,
) -> None:
    """Draw a clip: waveform, log-mel, its best classes over time, detections as bars."""
    kind = file_kind(out, _KINDS) if out else _KINDS[0]
    _keep_fonts_in_cache()
    try:
        from flows.figures.clip_figure import clip_figure, image_bytes
    except ImportError as error:
        raise UserError(_NEEDS_PLOT) from error
    from audioset_core.storage.atomic_files import write_atomically

    with store.database() as engine:
        report = reports.clip_by_ref(engine, clip_reference(clip))
        picture = _picture(engine, report, store.home, top)
    target = out or Path(f"{report.clip.sha256[:12]}.png")
    write_atomically(target, image_bytes(clip_figure(picture), kind))
    if picture.overview is None:
        note(f"without the sound: {one_line(picture.why_no_audio)}")
    print(target)


def _keep_fonts_in_cache() -> None:
    """Let matplotlib write its list of fonts into our cache, not into the user's folders."""
    from audioset_core.weights.locate import cache_dir

    os.environ.setdefault("MPLCONFIGDIR", str(cache_dir() / "matplotlib"))


def _picture(engine: Engine, report: ClipReport, home: Path, top: int) -> ClipPicture:
    from flows.figures.clip_figure import N_COLUMNS, ClipPicture
    from flows.figures.clip_scores import best_labels, scores_over_time

    overview, why = _heard(report, N_COLUMNS)
    current = next((x for x in report.labellings if x.is_current), None)
    labels = best_labels(report, top)
    facts = report.clip
    name = Path(report.sources[0].path_text).name if report.sources else facts.sha256[:12]
    return ClipPicture(
        title=name,
        subtitle=(
            f"{clock(facts.duration_s)} of {facts.format}, {facts.sample_rate_hz:,} Hz"
            f"  ·  {_by(current)}  ·  clip {facts.sha256[:12]}"
        ),
        duration_s=facts.duration_s,
        overview=overview,
        why_no_audio=why,
        classes=tuple(label.name for label in labels),
        peaks=tuple(label.peak for label in labels),
        scores=scores_over_time(engine, report, home, labels, N_COLUMNS),
        detections=report.detections,
        threshold=current.detection_threshold if current else 0.0,
    )


def _by(labelling: LabellingReport | None) -> str:
    if labelling is None:
        return "not labelled"
    return f"{labelling.model}: {labelling.window_s:g} s every {labelling.patch_hop_s:g} s"


def _heard(report: ClipReport, n_columns: int) -> tuple[Overview | None, str]:
    """The recording from the first of its files that can be read, or why none can be."""
    from audioset_core.audio.decoders import DecodeOptions
    from audioset_core.previews.waveform_overview import read_overview

    why = "the recording is no longer anywhere"
    track = next((each.track for each in report.labellings if each.is_current), "default")
    for source in report.sources:
        try:
            facts = report.clip
            return read_overview(
                source.path, facts.sha256, facts.n_samples, n_columns, DecodeOptions(track)
            ), ""
        except AudioError as error:
            why = f"{shown_path(source.path_text)}: {error}"
    return None, why


def curve(
    *,
    under: OneUnder,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A .png, .svg or .pdf file. [default: curve.png]"),
    ] = None,
    min_score: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Clips and minutes are counted from this score on."),
    ] = 0.5,
    store: Store,
    output: Output,
) -> None:
    """Draw the sorted scores of a class or branch over all clips, with minutes of each class."""
    from db.reports.score_curves import score_curves

    if output.is_data and out is not None:
        raise UserError("--json and --csv go to stdout: leave out --out, or draw a picture instead")
    kind = file_kind(out, _KINDS) if out else _KINDS[0]
    with store.database() as engine:
        ontology = ontology_of(engine)
        node = ontology.find(under)
        predicted = queries.predictable_members(engine, node.mid)
        if not predicted:
            raise UserError(f"no model here predicts {node.name!r} or anything below it")
        curves = score_curves(engine, node.mid, min_score)
        floor = queries.score_floor(engine)
    if output.is_data:
        _print_curves(curves, min_score, output.as_csv)
        return
    _keep_fonts_in_cache()
    try:
        from flows.figures.clip_figure import image_bytes
        from flows.figures.curve_figure import curve_figure
    except ImportError as error:
        raise UserError(_NEEDS_PLOT) from error
    from audioset_core.storage.atomic_files import write_atomically

    target = out or Path("curve.png")
    lacking = _lacking(ontology, node, {mid for mid, _ in predicted})
    figure = curve_figure(curves, min_score, floor, lacking)
    write_atomically(target, image_bytes(figure, kind))
    print(target)


def _lacking(ontology: Ontology, node: Node, predicted: set[str]) -> list[str]:
    """Concrete classes of the subtree that the model does not have."""
    below = [node, *ontology.descendants(node.mid)]
    return [x.name for x in below if x.mid not in predicted and not x.is_abstract]


def _print_curves(curves: list[ScoreCurve], min_score: float, as_csv: bool) -> None:
    """One row per distinct score (CSV), or one object per class (JSON)."""
    if as_csv:
        rows = (
            (c.mid, c.name, score, n)
            for c in curves
            for score, n in zip(c.scores, c.n_clips, strict=True)
        )
        print_csv(("mid", "name", "score", "n_clips"), rows)
        return
    print_json(
        [
            {
                "mid": c.mid, "name": c.name, "hours": c.hours,
                "n_clips": sum(c.n_clips), "n_clips_at_least": c.clips_at_least(min_score),
                "curve": list(zip(c.scores, c.n_clips, strict=True)),
            }
            for c in curves
        ]
    )  # fmt: skip
