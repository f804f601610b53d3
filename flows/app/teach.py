"""The page of one's own classes and of taught models: what there is, teaching, labelling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from audioset_core.errors import AudiosetError, UserError
from audioset_core.evaluation.metrics import need_sklearn
from audioset_core.ontology.graph import Node, Ontology
from audioset_core.teaching.heads import read_heads
from db.answer_records import ModelReport
from db.catalog.own_classes import (
    OWN_PREFIX,
    change_own_class,
    count_labelled_clips,
    own_classes,
    remove_own_class,
)
from db.judging.verdicts import count_verdicts
from db.reports.model_coverage import models_known
from db.score_files.teachable import embedded_models
from flows.app.served import Home, Served
from flows.own_classes import add_class, clean_text, own_class_mid, parent_mids, wanted_class
from tasks.combining.taught import find_heads
from tasks.teaching.teach import Lesson, teach

router = APIRouter(prefix="/teach")

NEW_NAME = "my-sounds"
"""Of a taught model, where a person gives none."""
_N_VERSIONS = 5


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class that can be taught, where it stands, and what is known of it."""

    mid: str
    name: str
    parents: tuple[Node, ...]
    n_present: int
    n_absent: int
    n_clips: int


@dataclass(frozen=True, slots=True)
class TaughtModel:
    """A version of a taught model; `classes`: MID, name, figures. None: its file is lost."""

    model: ModelReport
    classes: tuple[Mapping[str, Any], ...] | None
    base: str = ""

    @property
    def title(self) -> str:
        """NAME@VERSION."""
        return f"{self.model.name}@{self.model.version}"


class ClassForm(BaseModel):
    """A class of one's own, as it is written in the form."""

    name: str
    under: list[str] = []
    description: str | None = None


class TeachForm(BaseModel):
    """A taught model: its name, and the names or MIDs of its classes."""

    name: str
    classes: list[str]


@router.get("")
def teach_page(home: Home) -> HTMLResponse:
    """The page."""
    taught = taught_models(home)
    ontology = home.ontology()
    return home.page(
        "teach",
        {
            "title": "Teach",
            "classes": _classes(home, ontology, taught),
            "taught": taught[:_N_VERSIONS],
            "n_older": len(taught[_N_VERSIONS:]),
            "newest": newest_of(taught),
            "embedded": embedded_models(home.engine),
        },
    )


@router.post("/classes")
def add(home: Home, form: ClassForm) -> dict[str, str]:
    """Add a class; its MID."""
    if not any(form.under):
        raise UserError("say what it is a kind of: a class or category that it stands below")
    under = [each for each in form.under if each.strip()]
    wanted = wanted_class(home.ontology(), form.name, under, form.description or None)
    add_class(home.engine, wanted)
    return {"mid": wanted.mid, "name": wanted.name}


@router.post("/classes/change")
def change(home: Home, form: ClassForm) -> dict[str, str]:
    """Put a class below others, or describe it anew."""
    ontology = home.ontology()
    mid = own_class_mid(ontology, form.name)
    parents = parent_mids(ontology, [each for each in form.under if each.strip()])
    change_own_class(home.engine, mid, parents, clean_text(form.description))
    return {"mid": mid}


@router.post("/classes/remove")
def remove(home: Home, form: ClassForm) -> dict[str, str]:
    """Remove a class to which nothing refers."""
    mid = own_class_mid(home.ontology(), form.name)
    remove_own_class(home.engine, mid)
    return {"mid": mid}


@router.post("/models")
def teach_model(home: Home, form: TeachForm) -> dict[str, Any]:
    """Teach the classes, as `audioset teach` does; the version that this made."""
    need_sklearn()
    classes = tuple(dict.fromkeys(form.classes))
    lesson = Lesson(form.name.strip(), classes, model=home.teaching.base().title)
    try:
        done = teach(home.engine, home.teaching.home, lesson, home.ontology())
    except OSError as error:
        raise UserError(f"the model cannot be stored: {error.strerror or error}") from None
    return {
        "title": done.title,
        "name": form.name.strip(),
        "classes": [each.name for each in done.fitted.classes],
        "n_failures": len(done.gathered.failures),
    }


@router.post("/labellings")
def label(home: Home, model: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
    """Begin to label the collection with the newest version of a taught model."""
    home.teaching.label(_known(home, model))
    return labelling(home, model)


@router.get("/labellings")
def labelling(home: Home, model: Annotated[str, Query()]) -> dict[str, Any]:
    """How far the labelling with the newest version of a taught model is."""
    known = _known(home, model)
    state = home.teaching.labelling(known.name)
    base = next((each.base for each in taught_models(home) if each.model == known), "")
    n_all = sum(each.n_clips for each in embedded_models(home.engine) if each.title == base)
    return {
        "title": f"{known.name}@{known.version}",
        "is_at_work": state.is_at_work,
        "has_failed": state.has_failed,
        "said": state.said,
        "n_done": known.n_labelled,
        "n_all": n_all,
    }


def taught_models(home: Served) -> list[TaughtModel]:
    """Every version of every taught model, the newest first."""
    found = []
    for model in reversed(models_known(home.engine)):
        if not model.is_taught:
            continue
        try:
            title = f"{model.name}@{model.version}"
            file = find_heads(home.engine, home.teaching.home, title)
            about = read_heads(home.teaching.home / file.file).about if file else {}
            base = "{model}@{version}".format(**about["base"])
            found.append(TaughtModel(model, tuple(about["classes"]), base))
        except (AudiosetError, KeyError):
            found.append(TaughtModel(model, None))
    return found


def newest_of(taught: list[TaughtModel]) -> list[TaughtModel]:
    """The newest version of each taught model."""
    found: dict[str, TaughtModel] = {}
    for each in taught:
        found.setdefault(each.model.name, each)
    return list(found.values())


def _known(home: Served, name: str) -> ModelReport:
    """The newest version of a taught model.

    Raises:
        UserError: there is none of that name.
    """
    for model in reversed(models_known(home.engine)):
        if model.name == name and model.is_taught:
            return model
    raise UserError(f"no taught model is called {name!r}")


def _classes(home: Served, ontology: Ontology, taught: list[TaughtModel]) -> list[ClassRow]:
    """Classes of one's own, then others of AudioSet that were taught."""
    verdicts, clips = count_verdicts(home.engine), count_labelled_clips(home.engine)
    mids = [each.mid for each in own_classes(home.engine)]
    mids += [c["mid"] for each in taught for c in each.classes or ()]
    return [
        ClassRow(
            mid, ontology.nodes[mid].name, ontology.parents(mid),
            *verdicts.get(mid, (0, 0)), clips.get(mid, 0) if mid.startswith(OWN_PREFIX) else 0,
        )
        for mid in dict.fromkeys(mids)
        if mid in ontology.nodes
    ]  # fmt: skip
