"""The page of one recording, and what its script asks for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import anyio.to_thread
import numpy as np
from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response

from audioset_core.errors import AudioError
from audioset_core.export_formats.file_names import span_name
from audioset_core.previews import zoom_columns
from audioset_core.previews.spans import SeenFile
from db.answer_records import LabellingReport
from db.records import Clip
from db.reports.clip import clip_by_ref, labelled_clip
from db.reports.collection import places
from flows.app.recording import facts
from flows.app.recording.hearing import MOST_CUT_S, SLOWED, wav_of_span, write_cut
from flows.app.recording.overviews import GONE
from flows.app.served import Home
from flows.app.sounds import ClipId, Second
from flows.figures.clip_scores import scores_between

N_TILE_COLUMNS = 512
_MOST_PLAYED_S = 60.0
_MOST_SCORES = 4096
_MOST_CLASSES = 40

T = TypeVar("T")
Axis = Literal["mel", "linear"]
router = APIRouter(prefix="/clips")


@router.get("/{clip}")
def recording(home: Home, clip: ClipId) -> HTMLResponse:
    """The recording; the address's other values are for the script."""
    _known(home, clip)
    return home.page("recording", facts.of_page(home, clip_by_ref(home.engine, clip)))


@router.get("/{clip}/labels")
def labels(home: Home, clip: ClipId) -> JSONResponse:
    """Classes with their peaks, and detections as [index of the class, start, end, peak]."""
    _known(home, clip)
    return JSONResponse(facts.labels(clip_by_ref(home.engine, clip)))


@router.get("/{clip}/scores")
def scores(
    home: Home, clip: ClipId, start_s: Second, end_s: Second,
    mid: Annotated[list[str], Query(max_length=_MOST_CLASSES)],
    n: Annotated[int, Query(ge=1, le=_MOST_SCORES)],
) -> Response:  # fmt: skip
    """The best score of each class in each of `n` columns of a span, in 255ths; 0 where none is.

    Shape: ``[len(mid), n]``, uint8
    """
    _, labellings = _known(home, clip)
    edges_s = np.linspace(start_s, max(end_s, start_s + 1e-6), n + 1)
    found = scores_between(home.engine, labellings, home.home, mid, edges_s)
    levels = np.rint(np.nan_to_num(found) * 255).astype(np.uint8)
    return Response(levels.T.tobytes(), media_type="application/octet-stream")


@router.get("/{clip}/columns")
async def columns(
    home: Home, clip: ClipId, axis: Axis,
    level: Annotated[int, Query(ge=zoom_columns.LEAST_LEVEL, le=40)],
    tile: Annotated[int, Query(ge=0)],
) -> Response:  # fmt: skip
    """A tile of 512 columns of a level, as `Columns.packed`; X-Done says which part is known."""
    known = await anyio.to_thread.run_sync(_known, home, clip)
    recorded = known[0]
    n_all = zoom_columns.n_columns_of(recorded.n_samples, level)
    first = tile * N_TILE_COLUMNS
    if first >= n_all:
        raise HTTPException(404, f"the recording has {n_all:,} columns at level {level}")
    last = min(n_all, first + N_TILE_COLUMNS)

    def found() -> tuple[bytes, float]:
        files = _files(home, clip, known[1])
        if level >= zoom_columns.overview_level(recorded.n_samples):
            overview = home.overviews.of(clip, recorded.n_samples, files)
            part = overview.columns.part(first, last, 1 << (level - overview.level))
            return part.packed(axis), overview.done
        error = GONE
        for file in files:
            try:
                part = zoom_columns.some_columns(
                    home.spans, file, recorded.sample_rate_hz, level, first, last - first
                )
            except AudioError as failed:
                error = failed
            else:
                return part.packed(axis), 1.0
        raise error

    content, done = await _decoding(home, found)
    headers = {"x-done": f"{done:.3f}"}
    if done == 1:
        headers["cache-control"] = "private, max-age=3600"
    return Response(content, media_type="application/octet-stream", headers=headers)


@router.get("/{clip}/sound.wav")
async def sound(
    home: Home, clip: ClipId, start_s: Second, end_s: Second, slowed: bool = False
) -> Response:
    """A span to be played, of up to a minute."""
    recorded, labellings = await anyio.to_thread.run_sync(_known, home, clip)
    if not 0 < end_s - start_s <= _MOST_PLAYED_S:
        raise HTTPException(400, f"a span to play has up to {_MOST_PLAYED_S:g} s")

    def found() -> bytes:
        files = _files(home, clip, labellings)
        return wav_of_span(home.spans, files, recorded, start_s, end_s, SLOWED if slowed else 1)

    return Response(await _decoding(home, found), media_type="audio/wav")


@router.get("/{clip}/cut")
async def cut(home: Home, clip: ClipId, start_s: Second, end_s: Second) -> Response:
    """A span as a file: its samples as they are stored, every channel."""
    recorded, labellings = await anyio.to_thread.run_sync(_known, home, clip)
    rate_hz = recorded.sample_rate_hz
    first, last = round(start_s * rate_hz), min(recorded.n_samples, round(end_s * rate_hz))
    if last <= first:
        raise HTTPException(400, f"there is no sound from {start_s:g} to {end_s:g} s")
    if last - first > MOST_CUT_S * rate_hz:
        raise HTTPException(400, f"a file has up to {MOST_CUT_S / 60:g} min: mark a shorter span")

    def found() -> tuple[Path, str]:
        files = _files(home, clip, labellings)
        folder = Path(tempfile.mkdtemp(prefix="audioset-"))  # the home may be read-only
        try:
            path = write_cut(files, recorded, first, last, folder)
        except BaseException:
            shutil.rmtree(folder)
            raise
        name = span_name(files[0].path, first / rate_hz, last / rate_hz, clip[:8])
        return path, name

    path, name = await _decoding(home, found)
    return FileResponse(
        path, filename=name + path.suffix,
        media_type="audio/flac" if path.suffix == ".flac" else "audio/wav",
        background=BackgroundTask(shutil.rmtree, path.parent),
    )  # fmt: skip


def _known(home: Home, clip: str) -> tuple[Clip, tuple[LabellingReport, ...]]:
    found = labelled_clip(home.engine, clip)
    if found is None:
        raise HTTPException(404, f"there is no recording {clip[:12]}")
    return found


def _files(home: Home, clip: str, labellings: Sequence[LabellingReport]) -> list[SeenFile]:
    is_partial = any(each.is_partial for each in labellings)
    return [
        SeenFile(place.path, place.size_bytes, place.mtime_ns, place.track, is_partial)
        for place in places(home.engine, clip)
    ]


async def _decoding(home: Home, work: Callable[[], T]) -> T:
    """The result of what decodes; in one line why there is none."""
    try:
        return await anyio.to_thread.run_sync(work, limiter=home.sounds.at_once)
    except AudioError as error:
        raise HTTPException(404, str(error)) from error
