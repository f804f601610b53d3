"""What every page has: the database, who may change what, and how a page is rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse
from sqlalchemy import Engine

from audioset_core.ontology.graph import Ontology
from audioset_core.previews.spans import SpanReader
from flows.app.guard import Guard
from flows.app.kept import Kept
from flows.app.recording.overviews import Overviews
from flows.app.sounds import Sounds
from flows.app.teaching import Teaching
from flows.asking import ontology_of
from flows.pages.render import environment

_FOLDER = Path(__file__).parent

PAGES = (("search", "/", "Search"), ("corpus", "/corpus", "Collection"),
         ("judge", "/judge", "Judge"), ("teach", "/teach", "Teach"))  # fmt: skip
"""(name, path, title) of the pages in the line at the top."""


@dataclass(frozen=True, slots=True)
class Served:
    """One home behind the page."""

    engine: Engine
    home: Path
    guard: Guard
    sounds: Sounds = field(init=False)
    kept: Kept = field(init=False, default_factory=Kept)
    overviews: Overviews = field(init=False, default_factory=Overviews)
    spans: SpanReader = field(init=False, default_factory=SpanReader)
    teaching: Teaching = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "teaching", Teaching(self.engine, self.home.absolute()))
        object.__setattr__(self, "sounds", Sounds(self.engine))

    def ontology(self) -> Ontology:
        """The ontology with the classes of one's own, as they are by now."""
        return ontology_of(self.engine)

    def page(self, name: str, values: Mapping[str, Any], code: int = 200) -> HTMLResponse:
        """The page `name`, ``templates/<name>.html`` with ``static/<name>.css`` and ``.js``."""
        with_files = {
            kind: (_FOLDER / "static" / f"{name}.{kind}").exists() for kind in ("css", "js")
        }
        text = environment(_FOLDER / "templates").get_template(f"{name}.html").render(
            name=name, pages=PAGES, guard=self.guard, with_files=with_files, **values
        )  # fmt: skip
        return HTMLResponse(text.encode("utf-8", "backslashreplace"), code)


def _served(request: Request) -> Served:
    served: Served = request.app.state.served
    return served


Home = Annotated[Served, Depends(_served)]
"""A parameter of every route."""
