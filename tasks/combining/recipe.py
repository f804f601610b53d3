"""What a combined or taught model is made of: which models, with which parameters, how calibrated.

It is stored as the parameters of the labellings, so that tables alone tell how to make them again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.evaluation.calibration import Platt
from audioset_core.models.registry import BUNDLES
from audioset_core.scores.combination import Grid, finest
from audioset_core.storage.score_files import SLUG_RULE, Kind, is_slug
from db.answer_records import ModelReport
from db.catalog.model_registry import register_model, register_parameters
from db.integrity.audit import StoredVariant, stored_variants
from db.records import Model, Parameters, Variant
from db.reports.model_coverage import categories_of, models_known
from db.score_files.combinable import (
    Combinable,
    count_uncombined,
    find_combinations,
    iter_uncombined,
)
from db.types import canonical_json
from tasks.labelling.job import DETECTION_THRESHOLD, SCORE_FLOOR, now

_VERSION_DIGITS = 12

Variants = Mapping[Variant, StoredVariant]


@dataclass(frozen=True, slots=True)
class Part:
    """A model, the parameters that it labelled with, the grid of its rows, its calibration."""

    model: str
    version: str
    parameters: str
    """The digest of its set of parameters."""
    patch_hop_s: float
    window_s: float
    scale: float = 1.0
    shift: float = 0.0

    @property
    def title(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"

    @property
    def grid(self) -> Grid:
        """Where its rows lie in time."""
        return Grid(self.patch_hop_s, self.window_s)


@dataclass(frozen=True, slots=True)
class HeadsFile:
    """The weights of a taught model; `file` is relative to the home."""

    version: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """A combined model: its name, its parts, and what their calibration was fitted to.

    With `heads`, which are a taught model's, it has one part, whose embeddings are read.
    """

    name: str
    parts: tuple[Part, ...]
    calibration: Mapping[str, Any] | None = None
    heads: HeadsFile | None = None

    @property
    def reads(self) -> Kind:
        """Which files of the parts it is made from."""
        return "scores" if self.heads is None else "embeddings"

    @property
    def version(self) -> str:
        """The same parts, parameters and calibration have the same version in any database."""
        if self.heads is not None:
            return self.heads.version
        told = canonical_json([asdict(part) for part in self.parts])
        return hashlib.sha256(told.encode()).hexdigest()[:_VERSION_DIGITS]

    @property
    def title(self) -> str:
        """NAME@VERSION."""
        return f"{self.name}@{self.version}"

    @property
    def basis(self) -> Part:
        """The part with the finest grid, whose rows the combined scores have."""
        return self.parts[finest([part.grid for part in self.parts])]

    def stored_parameters(self) -> Parameters:
        """What is stored beside every labelling."""
        extra: dict[str, Any] = {"parts": [asdict(part) for part in self.parts]}
        if self.calibration:
            extra["calibration"] = dict(self.calibration)
        if self.heads is not None:
            extra["heads"] = asdict(self.heads)
        return Parameters(
            patch_hop_s=self.basis.patch_hop_s,
            score_floor=SCORE_FLOOR,
            detection_threshold=DETECTION_THRESHOLD,
            extra=extra,
        )


@dataclass(frozen=True, slots=True)
class Planned:
    """A recipe with the ids of its parts, and of the combined model and its parameters."""

    recipe: Recipe
    parts: tuple[Variant, ...]
    whole: Variant
    is_repair: bool = False
    """Only labellings that a repair has reset."""
    paths: tuple[str, ...] = ()
    """Only clips of these files and folders; all if there are none."""

    def n_clips(self, engine: Engine) -> int:
        """How many clips are to be combined; not for a repair."""
        return count_uncombined(
            engine, self.parts, self.whole,
            with_embeddings=self.recipe.heads is not None, paths=self.paths,
        )  # fmt: skip

    def clips(self, engine: Engine) -> Iterator[Combinable]:
        """The clips to combine."""
        return iter_uncombined(
            engine, self.parts, self.whole, is_repair=self.is_repair,
            with_embeddings=self.recipe.heads is not None, paths=self.paths,
        )  # fmt: skip


def recipe_of(stored: StoredVariant) -> Recipe | None:
    """The recipe that labellings were made by; None where they are of a single model."""
    if not stored.parts:
        return None
    names = [field.name for field in fields(Part)]
    parts = (Part(**{name: part[name] for name in names}) for part in stored.parts)
    heads = stored.extra.get("heads")
    return Recipe(
        stored.model,
        tuple(parts),
        stored.extra.get("calibration"),
        None if heads is None else HeadsFile(**heads),
    )


def repair_plan(recipe: Recipe, whole: Variant, variants: Variants) -> Planned | None:
    """How to make labellings again that a repair resets; None if a part has no labellings."""
    parts = tuple(v for part in recipe.parts if (v := _variant_of(part, variants)) is not None)
    if len(parts) < len(recipe.parts):
        return None
    return Planned(recipe, parts, whole, is_repair=True)


def basis_of(stored: StoredVariant, variants: Variants) -> StoredVariant:
    """Whose rows a labelling has: its own model, or of a combined one the finest part's."""
    recipe = recipe_of(stored)
    if recipe is None:
        return stored
    own = _variant_of(recipe.basis, variants)
    return stored if own is None else basis_of(variants[own], variants)


def _variant_of(part: Part, variants: Variants) -> Variant | None:
    """The variant of a part, to whose labellings embeddings may have been added since."""
    named = [(v, s) for v, s in variants.items() if s.title == part.title]
    own = next((v for v, s in named if s.digest == part.parameters), None)
    fuller = next((v for v, s in named if s.digest_without_embeddings == part.parameters), None)
    if own is None or fuller is None:
        return own or fuller
    return replace(own, fuller_set_id=fuller.parameter_set_id)


def find_parts(engine: Engine, wanted: Sequence[str], name: str) -> dict[int, str]:
    """NAME@VERSION of each part by the model's id; in an order that does not depend on the given.

    A name alone means the newest version that has labelled anything.

    Raises:
        UserError: the name cannot be one, or a part cannot be combined; the message says why.
    """
    check_new_name(name, "both")
    known = [model for model in models_known(engine) if model.n_labelled]
    chosen = [_find_part(text, known) for text in wanted]
    titles = sorted({f"{model.name}@{model.version}" for model in chosen})
    if len(titles) < 2:
        raise UserError(
            f"combine needs two different models, and was given {', '.join(wanted) or 'none'}"
        )
    if len(titles) < len(wanted):
        twice = next(t for t in titles if [f"{m.name}@{m.version}" for m in chosen].count(t) > 1)
        raise UserError(f"{twice} is given twice; give each model once")
    if name in [model.name for model in chosen]:
        raise UserError(f"--name {name}: a combination cannot be a part of itself")
    variants = stored_variants(engine)
    if any(stored.model == name and "heads" in stored.extra for stored in variants.values()):
        raise UserError(f"--name {name} is a taught model; choose another name, such as both")
    ids = {stored.title: variant.model_id for variant, stored in variants.items()}
    return {ids[title]: title for title in titles}


def known_calibration(variants: Variants, name: str, titles: Sequence[str]) -> Recipe | None:
    """The newest recipe of that name with these parts, whose calibration a later run keeps."""
    for _, stored in sorted(variants.items(), key=lambda item: -item[0].model_id):
        recipe = recipe_of(stored) if stored.model == name else None
        if recipe is not None and [part.title for part in recipe.parts] == list(titles):
            return recipe
    return None


def plan(
    engine: Engine,
    name: str,
    model_ids: Sequence[int],
    lines: Sequence[Platt],
    calibration: Mapping[str, Any] | None,
) -> list[Planned]:
    """A recipe for each choice of parameters under which clips were labelled by all parts.

    The combined models and their parameters are stored.

    Raises:
        UserError: no clip was labelled by all of them.
    """
    variants = stored_variants(engine)
    plans = []
    for chosen, clips in find_combinations(engine, model_ids).items():
        own = [variants[each] for each in chosen]
        parts = (
            Part(s.model, s.version, s.digest, c.patch_hop_s, c.window_s, line.scale, line.shift)
            for s, c, line in zip(own, clips, lines, strict=True)
        )
        recipe = Recipe(name, tuple(parts), calibration)
        named: dict[str, str] = {}
        for part in recipe.parts:
            for _, mid, own_name in categories_of(engine, part.title):
                named.setdefault(mid, own_name)
        categories = tuple((k, mid, own_name) for k, (mid, own_name) in enumerate(named.items()))
        whole = register(engine, recipe, max(each.sample_rate_hz for each in own), categories)
        plans.append(Planned(recipe, chosen, whole))
    if not plans:
        raise UserError("no clip is labelled by all of these models: label the same recordings")
    return plans


def register(
    engine: Engine, recipe: Recipe, sample_rate_hz: int, categories: Sequence[tuple[int, str, str]]
) -> Variant:
    """Store the model and its parameters; the same recipe has the same ids.

    Raises:
        DatabaseUserError: as `register_model`.
    """
    digest = hashlib.sha256(canonical_json(recipe.stored_parameters().as_json()).encode())
    model = Model(
        name=recipe.name,
        version=recipe.version,
        weights_sha256=recipe.heads.sha256 if recipe.heads else digest.hexdigest(),
        sample_rate_hz=sample_rate_hz,
        window_s=recipe.basis.window_s,
        embedding_dim=None,
        categories=tuple(categories),
        is_taught=recipe.heads is not None,
    )
    return Variant(
        register_model(engine, model, now()),
        register_parameters(engine, recipe.stored_parameters()),
    )


def check_new_name(name: str, example: str) -> None:
    """Refuse a name that a combined or taught model cannot have.

    Raises:
        UserError: it is no name of a folder, or a model's that labels.
    """
    if not is_slug(name):
        raise UserError(f"--name {name!r} cannot be the name of a folder; allowed: {SLUG_RULE}")
    if name in BUNDLES:
        raise UserError(f"--name {name} is the name of a model; choose another, such as {example}")


def _find_part(text: str, known: Sequence[ModelReport]) -> ModelReport:
    """The newest version of NAME, or NAME@VERSION."""
    found = [m for m in known if text in (m.name, f"{m.name}@{m.version}")]
    if found and not found[-1].n_classes:
        raise UserError(f"{text} has embeddings only here: there are no scores to combine")
    if found:
        return found[-1]
    if text in BUNDLES:
        raise UserError(f"{text} has labelled nothing here: audioset label --model {text} PATH")
    here = sorted({m.name for m in known})
    near = get_close_matches(text.partition("@")[0], here, n=1) or get_close_matches(text, BUNDLES)
    what = f"did you mean {near[0]}?" if near else f"there is {', '.join(here) or 'none yet'}"
    raise UserError(f"no labels by a model called {text!r}; {what}")
