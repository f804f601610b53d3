"""The application: its pages, its files, and how mistakes are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from audioset_core.errors import UserError
from db.errors import DatabaseError, DatabaseUserError
from flows.app import classes, corpus, judge, learn, search, sounds, teach
from flows.app.guard import Application
from flows.app.recording import routes as recording
from flows.app.served import Served
from flows.pages.render import SHARED_FILES

_FOLDER = Path(__file__).parent
# Fewer than the connections that the engine keeps open.
_N_THREADS = 8
# What Pydantic finds wrong with a value, by its name for it.
_PLAINLY = {
    "float_parsing": "is not a number",
    "int_parsing": "is not a whole number",
    "string_pattern_mismatch": "is not an id",
}


def application(served: Served) -> Application:
    """The pages over one home, behind the guard."""
    app = FastAPI(
        title="audioset-flows", openapi_url=None, docs_url=None, redoc_url=None, lifespan=_lifespan
    )
    app.state.served = served
    for part in (search, classes, recording, corpus, judge, teach, learn, sounds):
        app.include_router(part.router)
    for name, path in SHARED_FILES.items():
        app.add_route(f"/static/{name}", partial(_shared_file, path))
    app.mount("/static", StaticFiles(directory=_FOLDER / "static"))
    for kind in (UserError, DatabaseUserError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _told)
    app.add_exception_handler(DatabaseError, _told)
    return served.guard.around(app)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _N_THREADS
    yield
    app.state.served.overviews.close()


async def _shared_file(path: Path, request: Request) -> FileResponse:
    del request
    return FileResponse(path)


def _told(request: Request, error: Exception) -> Response:
    """A page that says what is wrong; a line of text where a script or a player asks."""
    code, message = 400, " ".join(str(error).split())
    if isinstance(error, HTTPException):
        code, message = error.status_code, str(error.detail)
        if code == 404 and message == "Not Found":
            message = f"there is no page {request.url.path}"
    elif isinstance(error, RequestValidationError):
        first = error.errors()[0]
        given, why = repr(str(first.get("input"))[:80]), _PLAINLY.get(first["type"])
        message = f"{first['loc'][-1]}: " + (
            f"{given} {why}" if why else f"{first['msg']} (given: {given})"
        )
    elif isinstance(error, DatabaseError) and not isinstance(error, DatabaseUserError):
        code = 503
    if "text/html" not in request.headers.get("accept", ""):
        return Response(message, code, media_type="text/plain")
    served: Served = request.app.state.served
    return served.page("problem", {"title": "That did not work", "message": message}, code)
