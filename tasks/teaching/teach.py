"""Classes taught from examples: gathered, fitted, stored as a version of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.evaluation.metrics import need_sklearn
from audioset_core.ontology.graph import Ontology
from audioset_core.teaching.fit import Fitted, FittedClass, fit_heads
from audioset_core.teaching.heads import Heads
from db.integrity.audit import stored_variants
from db.reports.model_coverage import models_known
from db.score_files.teachable import EmbeddedModel, embedded_models
from tasks.combining.recipe import check_new_name
from tasks.combining.taught import store_heads, taught_plans
from tasks.evaluation.derive_intervals import need_folder
from tasks.teaching.examples import Gathered, gather

_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is to be taught: classes as a person wrote them, and folders with examples of them."""

    name: str
    classes: Sequence[str]
    folders: Sequence[tuple[str, str]] = ()
    """(class, folder)."""
    model: str | None = None
    """The base, NAME or NAME@VERSION; None: the one that has embeddings."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Taught:
    """A version of a taught model, how good it is, and what was left out."""

    title: str
    base: str
    fitted: Fitted
    mids: tuple[str, ...]
    gathered: Gathered
    n_clips: int
    """Clips that can be scored by it."""


def teach(engine: Engine, home: Path, lesson: Lesson, ontology: Ontology) -> Taught:
    """Fit a head for each class, and register them together as a version of a model.

    The same examples, embeddings and seed give the same version. `ontology` has the names of
    classes, those of one's own among them.

    Raises:
        UserError: an unknown class or model, a name that is taken, too few examples, or
            scikit-learn is not installed.
        DatabaseUserError: nothing is labelled yet, or the database can only be read.
    """
    need_sklearn()
    check_new_name(lesson.name, "my-sounds")
    _check_free(engine, lesson.name)
    folders: dict[str, list[str]] = {}
    for text, folder in lesson.folders:
        folders.setdefault(ontology.find(text).mid, []).append(folder)
    mids = sorted({*(ontology.find(text).mid for text in lesson.classes), *folders})
    if not mids:
        raise UserError("name the classes to teach, or give --examples CLASS=FOLDER")
    base = find_base(engine, lesson.model)
    need_folder(home, "embeddings")
    gathered = gather(engine, home, base, mids, folders, lesson.seed)
    names = [ontology.nodes[mid].name for mid in mids]
    fitted = fit_heads(gathered.examples, names, lesson.seed, with_curve=True)
    about: dict[str, Any] = {
        "base": {"model": base.name, "version": base.version},
        "parameters": sorted(
            stored.digest
            for stored in stored_variants(engine).values()
            if stored.title == base.title
            and (stored.extra.get("embeddings") or not stored.n_classes)
        ),
        "examples_sha256": gathered.examples_sha256,
        "embeddings_sha256": gathered.embeddings_sha256,
        "seed": lesson.seed,
        "classes": [figures(mid, each) for mid, each in zip(mids, fitted.classes, strict=True)],
    }
    file = store_heads(home, lesson.name, Heads(fitted.weight, fitted.bias, about))
    taught_plans(engine, home, lesson.name, file)  # registers the model
    return Taught(
        f"{lesson.name}@{file.version}", base.title, fitted, tuple(mids), gathered, base.n_clips
    )


def figures(mid: str, fitted: FittedClass) -> Mapping[str, Any]:
    """What is told of a class and its head, as JSON."""
    interval = fitted.ap_interval
    return {
        "mid": mid,
        "name": fitted.name,
        "recordings": fitted.n_recordings,
        "patches": fitted.n_patches,
        "other_recordings": fitted.n_other_recordings,
        "other_patches": fitted.n_other_patches,
        "ap": _rounded(fitted.ap),
        "ap_low": _rounded(interval and interval[0]),
        "ap_high": _rounded(interval and interval[1]),
        "learning_curve": [{"recordings": n, "ap": _rounded(ap)} for n, ap in fitted.curve],
        "is_calibrated": fitted.line is not None,
    }


def find_base(engine: Engine, model: str | None) -> EmbeddedModel:
    """The model whose embeddings are used: its newest version that has some.

    Raises:
        UserError: there are none, or those of several models.
    """
    known = embedded_models(engine)
    found = [each for each in known if model in (None, each.name, each.title)]
    names = sorted({each.name for each in found})
    if not found:
        of = f" of {model}" if model else ""
        there = sorted({each.name for each in known})
        more = f"; there are those of {', '.join(there)}" if there else ""
        named = f"--model {model.partition('@')[0]} " if model else ""
        raise UserError(
            f"no embeddings{of} are stored here: audioset label {named}--embeddings PATH adds them "
            f"to what is labelled{more}"
        )
    if len(names) > 1:
        raise UserError(f"choose one of the models with --model: {', '.join(names)}")
    return found[-1]


def _check_free(engine: Engine, name: str) -> None:
    if any(m.name == name and not m.is_taught for m in models_known(engine)):
        raise UserError(f"--name {name} is the name of a model here; choose another")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
