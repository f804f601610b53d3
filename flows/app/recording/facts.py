"""What the page says of a recording, beside its picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import Any

from audioset_core.audio.remarks import RemarkKind
from audioset_core.previews.spectrogram_png import palette
from audioset_core.previews.zoom_columns import N_BANDS
from db.answer_records import ClipReport, LabellingReport
from db.judging.verdicts import find_verdicts
from db.reports.clip import recorded_starts
from flows.app.recording.hearing import MOST_CUT_S, SLOWED, played_hz
from flows.app.served import Served
from flows.pages.render import shown_hours
from flows.terminal import clock, one_line

N_SHOWN = 8
"""Classes that have a track before a person chooses any."""
_CHANNELS = {1: "mono", 2: "stereo"}
_STATES = {"identified": "", "missing": "missing"}
_TRACKS = {"default": "", "all": "all audio tracks mixed"}


def of_page(home: Served, report: ClipReport) -> dict[str, Any]:
    """The values of the page's template."""
    clip = report.clip
    current = next((x for x in report.labellings if x.is_current), None)
    starts = recorded_starts(home.engine, clip.sha256)
    path_text = report.sources[0].path_text if report.sources else ""
    n_of = Counter(each.mid for each in report.detections)
    shown = [label.mid for label in report.labels[:N_SHOWN]]
    return {
        "title": PurePath(path_text).name or clip.sha256[:12],
        "clip": clip,
        "current": current,
        "facts": _facts(report, current, starts),
        "remarks": report.remarks,
        "is_cut_short": any(_is_partial(each.kind) for each in report.remarks),
        "sources": [(each, _STATES.get(each.status, each.status)) for each in report.sources],
        "others": [each for each in report.labellings if not each.is_current],
        "labels": [(label, n_of[label.mid], label.mid in shown) for label in report.labels],
        "verdicts": find_verdicts(home.engine, clip=clip.sha256),
        "values": _for_script(report, starts),
    }


def labels(report: ClipReport) -> dict[str, Any]:
    """Classes, best first, and detections, as the script draws them."""
    place = {label.mid: at for at, label in enumerate(report.labels)}
    return {
        "classes": [[label.mid, label.name, label.peak] for label in report.labels],
        "detections": [
            [place[each.mid], each.start_s, each.end_s, each.peak]
            for each in report.detections if each.mid in place
        ],
        "remarks": [
            [each.start_s, each.end_s, f"{each.kind}: {each.detail}", _is_partial(each.kind)]
            for each in report.remarks if each.start_s is not None
        ],
    }  # fmt: skip


def _for_script(report: ClipReport, starts: Sequence[datetime]) -> Mapping[str, Any]:
    """Attributes ``data-...`` of the picture."""
    clip = report.clip
    rate_hz = clip.sample_rate_hz
    return {
        "clip": clip.sha256, "samples": clip.n_samples, "rate": rate_hz,
        "played": played_hz(rate_hz, 1), "slow": played_hz(rate_hz, SLOWED), "slowed": SLOWED,
        "cut": MOST_CUT_S,
        "bands": N_BANDS, "shown": N_SHOWN, "palette": palette().tobytes().hex(),
        "began": f"{starts[0]:%Y-%m-%dT%H:%M:%S.%f}Z" if len(starts) == 1 else "",
    }  # fmt: skip


def _facts(
    report: ClipReport, current: LabellingReport | None, starts: Sequence[datetime]
) -> list[tuple[str, str]]:
    clip = report.clip
    n = clip.n_channels
    channels = _CHANNELS.get(n, f"{n} channels")
    if n > 1:
        channels += "; the picture is of their mean" + ("" if n == 2 else ", and so is the sound")
    found = [
        ("Length", f"{clock(clip.duration_s)} ({shown_hours(clip.duration_s / 3600)})"),
        ("Recorded", ", ".join(f"{x:%Y-%m-%d %H:%M:%S}" for x in starts) or "not known"),
        ("Format", f"{one_line(clip.format)}, {clip.sample_rate_hz:,} Hz, {channels}"),
        ("Size", f"{clip.size_bytes:,} bytes, {clip.n_samples:,} samples"),
    ]
    if clip.latitude_deg is not None and clip.longitude_deg is not None:
        found.append(("Place", f"{clip.latitude_deg:.5f}, {clip.longitude_deg:.5f}"))
    if named := ", ".join(dict.fromkeys(one_line(x.site) for x in report.sources if x.site)):
        found.append(("Site", named))
    if current is None:
        return [*found, ("Model", "not labelled yet")]
    found.append(("Model", f"{current.model} {current.model_version}: {current.window_s:g} s "
                           f"every {current.patch_hop_s:g} s"))  # fmt: skip
    found.append(("Detected from", f"score {current.detection_threshold:g}"))
    if current.labelled_at is not None:
        found.append(("Labelled", f"{current.labelled_at:%Y-%m-%d %H:%M} UTC"))
    if track := _TRACKS.get(str(current.track), f"audio track {current.track}"):
        found.append(("Track", track))
    if current.note:
        found.append(("Note", one_line(current.note)))
    return found


def _is_partial(kind: str) -> bool:
    return any(each.value == kind and each.is_partial for each in RemarkKind)
