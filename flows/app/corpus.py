"""The figures of the whole collection."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from flows.app.served import Home

router = APIRouter(prefix="/corpus")


@router.get("")
def corpus(home: Home) -> HTMLResponse:
    """The page."""
    return home.page("corpus", {"title": "Collection"})
