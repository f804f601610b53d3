"""The page on which a sample of sounds is judged by ear."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from flows.app.served import Home

router = APIRouter(prefix="/judge")


@router.get("")
def judge(home: Home) -> HTMLResponse:
    """The page."""
    return home.page("judge", {"title": "Judge"})
