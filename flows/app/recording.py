"""The page of one recording."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from flows.app.served import Home
from flows.app.sounds import ClipId, Second

router = APIRouter(prefix="/clips")


@router.get("/{clip}")
def recording(home: Home, clip: ClipId, at: Second = 0.0) -> HTMLResponse:
    """The recording, opened at a time."""
    return home.page("recording", {"title": clip[:12], "at": at})
