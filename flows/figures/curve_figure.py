"""The sorted score curve of a subtree over a collection; needs matplotlib, as `clip_figure`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from db.reports.score_curves import ScoreCurve
from flows.figures.clip_figure import DPI, INK, QUIET, WIDTH_IN, shortened

N_CLASSES = 8
"""More lines than this cannot be told apart."""

_COLOURS = (
    "#2f6f9f", "#d9541e", "#3a8f5c", "#8a5aa8", "#b58a1b", "#c2497a", "#2aa1a1", "#7a6a58",
)  # fmt: skip
_LOG_FROM_CLIPS = 500


def curve_figure(
    curves: Sequence[ScoreCurve], min_score: float, floor: float, lacking: Sequence[str]
) -> Figure:
    """Clips in order of their score: the whole subtree (first of `curves`), then its classes.

    `lacking` names the classes that no model here predicts; `floor` is the lowest stored score.
    """
    whole, classes = curves[0], curves[1 : 1 + N_CLASSES]
    figure = Figure(figsize=(WIDTH_IN, 6.2), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0.065, 0.15, 0.62, 0.72))
    largest = max([1, *(sum(curve.n_clips) for curve in curves)])
    width = 2.6
    for curve, colour in zip([whole, *classes], (INK, *_COLOURS), strict=False):
        ranks, scores = steps(curve)
        axes.plot(
            ranks, scores, color=colour, linewidth=width, drawstyle="steps-pre", label=curve.name
        )
        width = 1.5
    axes.axhline(min_score, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.axhspan(0, floor, color="#eef0f2", linewidth=0)
    axes.text(
        0.995, floor / 2, f"scores below {floor:g} are not stored", ha="right", va="center",
        transform=axes.get_yaxis_transform(), fontsize=9, color=QUIET,
    )  # fmt: skip
    if largest >= _LOG_FROM_CLIPS:
        axes.set_xscale("log")
        axes.set_xlim(1, largest * 1.02)
    else:
        axes.set_xlim(0, largest * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1.01)
    axes.set_xlabel("clips, best first", fontsize=10, color=QUIET)
    axes.set_ylabel("best score of the clip", fontsize=10, color=QUIET)
    axes.tick_params(labelsize=9.5, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(color="#9aa3ad", linewidth=0.4, alpha=0.4)
    title = f"{whole.name}: {whole.clips_at_least(min_score):,} clips at {min_score:g} or more"
    figure.text(0.065, 0.94, title, fontsize=14, fontweight="bold", color=INK, parse_math=False)
    _draw_table(figure, [whole, *classes], min_score, len(curves) - 1)
    _draw_lacking(figure, lacking)
    return figure


def steps(curve: ScoreCurve) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the curve: (number of clips, highest score of the clips after them).

    Shape: ``[n_scores + 1]`` twice
    """
    if not curve.scores:
        return np.empty(0), np.empty(0)
    ranks = np.concatenate([[0], np.cumsum(curve.n_clips)])
    return ranks, np.concatenate([[curve.scores[0]], curve.scores])


def _draw_table(
    figure: Figure, curves: Sequence[ScoreCurve], min_score: float, n_classes: int
) -> None:
    """The legend, with the number of clips and minutes of each line."""
    left, y = 0.71, 0.87
    head: dict[str, Any] = {"fontsize": 9, "color": QUIET}
    figure.text(left + 0.025, y, f"at {min_score:g} or more", **head)
    figure.text(0.925, y, "clips", ha="right", **head)
    figure.text(0.985, y, "minutes", ha="right", **head)
    names = [f"all of {curves[0].name}", *(curve.name for curve in curves[1:])]
    for curve, name, colour in zip(curves, names, (INK, *_COLOURS), strict=False):
        y -= 0.058
        style: dict[str, Any] = {"fontsize": 10, "color": INK, "parse_math": False}
        figure.text(left, y, "━", fontsize=12, color=colour)
        figure.text(left + 0.025, y, shortened(name, 26), **style)
        figure.text(0.925, y, f"{curve.clips_at_least(min_score):,}", ha="right", **style)
        minutes = "" if curve.hours is None else f"{curve.hours * 60:,.1f}"
        figure.text(0.985, y, minutes, ha="right", **style)
    if n_classes > N_CLASSES:
        figure.text(left + 0.025, y - 0.055, f"and {n_classes - N_CLASSES} classes more", **head)


def _draw_lacking(figure: Figure, lacking: Sequence[str]) -> None:
    if lacking:
        text = shortened(f"Not among the model's classes: {', '.join(lacking)}", 160)
        figure.text(0.065, 0.03, text, fontsize=9, color=QUIET, parse_math=False)
