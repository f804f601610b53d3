"""The picture of one clip: waveform, log-mel, and when its best classes are heard.

It needs matplotlib (the extra `plot`), so import this module only to draw. Figures are made without
pyplot, which keeps global state.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, to_rgba
from matplotlib.figure import Figure

from audioset_core.arrays import F32
from audioset_core.features.config import YAMNET
from audioset_core.previews.spectrogram_png import axis_step, palette, shown_range
from audioset_core.previews.waveform_overview import Overview, band_of_hz
from db.answer_records import Interval
from flows.terminal import clock

DPI = 100
WIDTH_IN = 12.0
_LEFT_IN, _RIGHT_IN = 2.2, 0.75
_TOP_IN, _BOTTOM_IN, _GAP_IN = 0.85, 0.8, 0.14
_WAVE_IN, _MEL_IN, _ROW_IN = 1.1, 2.0, 0.36
N_COLUMNS = round((WIDTH_IN - _LEFT_IN - _RIGHT_IN) * DPI)
"""Columns of the axes: one for each pixel."""

INK, QUIET, _WAVE, _BAR = "#1b1f24", "#68707a", "#2f6f9f", "#d9541e"
_LABEL: dict[str, Any] = {"fontsize": 9.5, "color": QUIET}
_SCORES = ("#f6f7f8", "#c9d9ea", "#7fa9d1", "#2f6f9f", "#123a63")
_MEL_TICKS_HZ = (250, 500, 1000, 2000, 4000)
_STEPS_S = (
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0,
    900.0, 1800.0, 3600.0, 7200.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0,
)  # fmt: skip
_MOST_TICKS = 10
_HEAT_SHARE = 0.62
"""Share of the colours in a class's row; the rest shows its detections."""


@dataclass(frozen=True, slots=True)
class ClipPicture:
    """What is drawn of a clip.

    Shape:
        scores: [n_columns, len(classes)], columns of equal width over the duration, NaN: no patch
    """

    title: str
    subtitle: str
    duration_s: float
    overview: Overview | None
    why_no_audio: str
    classes: tuple[str, ...]
    peaks: tuple[float, ...]
    scores: F32
    detections: tuple[Interval, ...]
    threshold: float


def clip_figure(picture: ClipPicture) -> Figure:
    """Waveform, log-mel, and a row per class: scores over time above its detections."""
    rows_in = _ROW_IN * max(1, len(picture.classes))
    heights = (_WAVE_IN, _MEL_IN, rows_in)
    total = _TOP_IN + sum(heights) + 2 * _GAP_IN + _BOTTOM_IN
    figure = Figure(figsize=(WIDTH_IN, total), dpi=DPI, facecolor="white")
    figure.text(
        _LEFT_IN / WIDTH_IN, 1 - 0.32 / total, shortened(picture.title), fontsize=14,
        fontweight="bold", color=INK, va="center", parse_math=False,
    )  # fmt: skip
    figure.text(
        _LEFT_IN / WIDTH_IN, 1 - 0.6 / total, picture.subtitle, fontsize=9.5, color=QUIET,
        va="center", parse_math=False,
    )  # fmt: skip
    axes = _stacked(figure, heights, total)
    _draw_wave(axes[0], picture)
    _draw_mel(axes[1], picture)
    _draw_classes(axes[2], picture)
    _draw_time_axis(axes, picture.duration_s)
    _draw_key(figure, picture, total)
    return figure


def image_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as png, svg or pdf. Letters that the font lacks become boxes."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(stream, format=kind, dpi=DPI)
    return stream.getvalue()


def shortened(text: str, most: int = 90) -> str:
    """The text, without its middle if it is too long."""
    return text if len(text) <= most else f"{text[: most // 3]} … {text[3 + most // 3 - most :]}"


def time_label(seconds: float, step_s: float) -> str:
    """A tick: seconds where ticks are less than a second apart, else m:ss or h:mm:ss."""
    if step_s < 1:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + " s"
    return clock(round(seconds)).removesuffix(".0")


def _stacked(figure: Figure, heights: tuple[float, ...], total: float) -> list[Axes]:
    axes: list[Axes] = []
    top = total - _TOP_IN
    width = (WIDTH_IN - _LEFT_IN - _RIGHT_IN) / WIDTH_IN
    for height in heights:
        top -= height
        place = (_LEFT_IN / WIDTH_IN, top / total, width, height / total)
        axes.append(figure.add_axes(place, sharex=axes[0] if axes else None))
        top -= _GAP_IN
    return axes


def _draw_wave(axes: Axes, picture: ClipPicture) -> None:
    overview = picture.overview
    axes.set_ylabel("waveform", **_LABEL)
    if overview is None:
        _explain(axes, picture.why_no_audio)
        return
    # Each column twice, at both of its edges: steps, and one column is a bar as well.
    edges = np.linspace(0, overview.duration_s, len(overview.low) + 1)
    times = np.repeat(edges, 2)[1:-1]
    low, high = np.repeat(overview.low, 2), np.repeat(overview.high, 2)
    axes.fill_between(times, low, high, color=_WAVE, linewidth=0.8, edgecolor=_WAVE)
    largest = float(np.nanmax(np.abs([overview.low, overview.high]), initial=0.0))
    limit = max(largest * 1.08, 1e-3)
    axes.set_ylim(-limit, limit)
    axes.set_yticks([-largest, 0, largest] if largest > 1e-3 else [0])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    axes.axhline(0, color=INK, linewidth=0.4, alpha=0.5)


def _draw_mel(axes: Axes, picture: ClipPicture) -> None:
    overview = picture.overview
    axes.set_ylabel("Hz (log-mel)", **_LABEL)
    if overview is None:
        _explain(axes, "")
        return
    low, high = shown_range(overview.log_mel)
    darkest = tuple((palette()[0] / 255.0).tolist())
    colours = ListedColormap(palette() / 255.0, name="sound").with_extremes(bad=darkest)
    axes.imshow(
        overview.log_mel.T, aspect="auto", origin="lower", interpolation="nearest", cmap=colours,
        vmin=low, vmax=high, extent=(0, overview.mel_end_s, -0.5, YAMNET.n_mels - 0.5),
    )  # fmt: skip
    axes.set_yticks([band_of_hz(hz) for hz in _MEL_TICKS_HZ], [f"{hz:,}" for hz in _MEL_TICKS_HZ])


def _draw_classes(axes: Axes, picture: ClipPicture) -> None:
    n_rows = len(picture.classes)
    axes.set_ylim(max(1, n_rows), 0)
    if not n_rows:
        _explain(axes, "no class reaches a score that is stored")
        return
    colours = _score_colours()
    for row, (name, peak) in enumerate(zip(picture.classes, picture.peaks, strict=True)):
        axes.imshow(
            picture.scores[np.newaxis, :, row], aspect="auto", interpolation="nearest",
            cmap=colours, vmin=0, vmax=1,
            extent=(0, picture.duration_s, row + _HEAT_SHARE, row + 0.06),
        )  # fmt: skip
        own = [d for d in picture.detections if d.name == name]
        axes.broken_barh(
            [(d.start_s, d.end_s - d.start_s) for d in own],
            (row + _HEAT_SHARE + 0.06, 0.16),
            facecolors=[to_rgba(_BAR, 0.25 + 0.75 * d.peak) for d in own],
            linewidth=0,
        )
        axes.text(
            1.008, row + 0.5, f"{peak:.2f}", transform=axes.get_yaxis_transform(), fontsize=9.5,
            color=INK, va="center",
        )  # fmt: skip
    axes.set_ylim(n_rows, 0)
    axes.set_yticks(
        [row + 0.5 for row in range(n_rows)], [shortened(name, 30) for name in picture.classes]
    )


def _draw_time_axis(axes: list[Axes], duration_s: float) -> None:
    step = axis_step(duration_s, _MOST_TICKS, _STEPS_S)
    ticks = [i * step for i in range(int(duration_s / step + 1e-9) + 1)]
    for one in axes:
        one.set_xlim(0, duration_s)
        one.set_xticks(ticks)
        one.tick_params(labelsize=9.5, colors=INK, length=3, labelbottom=one is axes[-1])
        for side in ("top", "right"):
            one.spines[side].set_visible(False)
        for spine in one.spines.values():
            spine.set_color("#c3c8ce")
        if one is not axes[1]:
            one.grid(axis="x", color="#9aa3ad", linewidth=0.4, alpha=0.45)
    axes[-1].tick_params(axis="y", length=0)
    axes[-1].set_xticks(ticks, [time_label(tick, step) for tick in ticks])


def _draw_key(figure: Figure, picture: ClipPicture, total: float) -> None:
    """What the colours of the class rows mean, below the time axis."""
    if not picture.classes:
        return
    style = {**_LABEL, "va": "center"}
    y = 0.24 / total
    left = _LEFT_IN / WIDTH_IN
    figure.text(left, y, "score   0", **style)
    bar = figure.add_axes((left + 0.052, y - 0.055 / total, 0.12, 0.11 / total))
    bar.imshow(
        np.linspace(0, 1, 120)[np.newaxis], aspect="auto",
        cmap=_score_colours(),
    )  # fmt: skip
    bar.set_axis_off()
    figure.text(left + 0.178, y, "1", **style)
    mark = figure.add_axes((left + 0.215, y - 0.03 / total, 0.03, 0.06 / total))
    mark.set_facecolor(_BAR)
    mark.set_xticks([])
    mark.set_yticks([])
    for spine in mark.spines.values():
        spine.set_visible(False)
    said = f"detected: patches of {picture.threshold:g} or more, darker: higher score"
    figure.text(left + 0.252, y, said, **style)
    figure.text(
        1 - _RIGHT_IN / WIDTH_IN, y, "figures at the right: best score", ha="right", **style
    )


def _explain(axes: Axes, text: str) -> None:
    axes.set_yticks([])
    axes.text(
        0.5, 0.5, shortened(text, 120), transform=axes.transAxes, ha="center", va="center",
        fontsize=10, color=QUIET, parse_math=False,
    )  # fmt: skip


def _score_colours() -> Colormap:
    return LinearSegmentedColormap.from_list("scores", _SCORES).with_extremes(bad="white")
