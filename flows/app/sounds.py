"""Sounds and pictures of spans of clips, by clip id: no path comes from a request.

A span is decoded once for its picture and its sound, and kept in memory for a while.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Annotated

import anyio
from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import Engine

from audioset_core.errors import AudioError
from flows.app.ranges import ranged
from flows.pages.examples import Piece, piece_of

MOST_SPAN_S = 60.0
_KEPT_BYTES = 64_000_000
_KEPT_S = 3600

ClipId = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
Second = Annotated[float, Query(ge=0, le=1e9, allow_inf_nan=False)]

router = APIRouter(prefix="/sounds")


class Sounds:
    """Decoded spans, the last ones kept; safe for several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, float, float], Piece] = OrderedDict()
        self._n_bytes = 0
        self.at_once = anyio.CapacityLimiter(max(1, os.cpu_count() or 1))
        """Decoders that work at a time; other pages are served meanwhile."""

    def piece(self, clip: str, start_s: float, end_s: float) -> Piece:
        """The span, from the first of the clip's files that can still be read.

        Raises:
            AudioError: none can be.
        """
        key = (clip, start_s, end_s)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        piece = piece_of(self._engine, clip, start_s, end_s)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = piece
                self._n_bytes += len(piece.picture) + len(piece.sound)
            while self._n_bytes > _KEPT_BYTES:
                _, old = self._kept.popitem(last=False)
                self._n_bytes -= len(old.picture) + len(old.sound)
        return piece


async def _piece(request: Request, clip: str, start_s: float, end_s: float) -> Piece | Response:
    """The span, or the answer that says in one line why there is none."""
    sounds: Sounds = request.app.state.served.sounds
    if not 0 < end_s - start_s <= MOST_SPAN_S:
        return Response(f"a span has up to {MOST_SPAN_S:g} s", 400, media_type="text/plain")
    try:
        return await anyio.to_thread.run_sync(
            sounds.piece, clip, start_s, end_s, limiter=sounds.at_once
        )
    except AudioError as error:
        return Response(str(error), 404, media_type="text/plain")


@router.get("/{clip}.png")
async def picture(request: Request, clip: ClipId, start_s: Second, end_s: Second) -> Response:
    """The spectrogram of a span."""
    piece = await _piece(request, clip, start_s, end_s)
    if isinstance(piece, Response):
        return piece
    kept = {"cache-control": f"private, max-age={_KEPT_S}"}
    return Response(piece.picture, media_type="image/png", headers=kept)


@router.get("/{clip}.mp3")
async def sound(request: Request, clip: ClipId, start_s: Second, end_s: Second) -> Response:
    """The sound of a span, mono."""
    piece = await _piece(request, clip, start_s, end_s)
    if isinstance(piece, Response):
        return piece
    return ranged(request, piece.sound, "audio/mpeg")
