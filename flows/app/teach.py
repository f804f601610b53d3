"""The page on which classes of one's own are taught."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from flows.app.served import Home

router = APIRouter(prefix="/teach")


@router.get("")
def teach(home: Home) -> HTMLResponse:
    """The page."""
    return home.page("teach", {"title": "Teach"})
