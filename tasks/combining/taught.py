"""Taught models of a home: which there are, and what is to be scored by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import Engine

from audioset_core.errors import UserError, WeightsError
from audioset_core.storage.atomic_files import write_atomically
from audioset_core.teaching.heads import Heads, read_heads
from db.answer_records import ModelReport
from db.integrity.audit import stored_variants
from db.reports.model_coverage import models_known
from db.score_files.combinable import find_combinations
from tasks.combining.recipe import (
    HeadsFile,
    Part,
    Planned,
    Recipe,
    Variants,
    recipe_of,
    register,
)

FOLDER = "taught"
_VERSION_DIGITS = 12


def store_heads(home: Path, name: str, heads: Heads) -> HeadsFile:
    """Write the weights of a taught model into the home, durably; its version is their digest.

    Raises:
        OSError: as `write_atomically`.
    """
    data = heads.as_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    version = sha256[:_VERSION_DIGITS]
    file = f"{FOLDER}/{name}-{version}.safetensors"
    write_atomically(home / file, data)
    return HeadsFile(version, file, sha256)


def find_heads(engine: Engine, home: Path, model: str) -> HeadsFile | None:
    """The weights of NAME's newest version, or of NAME@VERSION; None if it is no taught model.

    Raises:
        UserError: the weights are not in the home.
    """
    known = [m for m in models_known(engine) if model in (m.name, f"{m.name}@{m.version}")]
    if not known:
        return None
    newest = known[-1]
    if not newest.is_taught:
        return None
    found = _file_of(newest)
    if not (home / found.file).is_file():
        raise UserError(f"the taught weights {home / found.file} are not there: teach again")
    return found


def lost_heads(engine: Engine, home: Path) -> Iterator[tuple[HeadsFile, str]]:
    """Files of taught models that are not as they were written, each with what is wrong."""
    for model in models_known(engine):
        if not model.is_taught:
            continue
        file = _file_of(model)
        try:
            read_heads(home / file.file, file.sha256)
        except WeightsError as error:
            yield file, str(error)


def _file_of(model: ModelReport) -> HeadsFile:
    file = f"{FOLDER}/{model.name}-{model.version}.safetensors"
    return HeadsFile(model.version, file, model.weights_sha256)


def taught_plans(
    engine: Engine, home: Path, name: str, file: HeadsFile, paths: Sequence[str] = ()
) -> list[Planned]:
    """What is to be scored, for each set of parameters that the base made embeddings with.

    The model and its parameters are stored.

    Raises:
        WeightsError: the weights cannot be read.
        UserError: the base has no embeddings here.
    """
    heads = read_heads(home / file.file, file.sha256)
    variants = stored_variants(engine)
    ids = sorted({v.model_id for v, stored in variants.items() if stored.title == heads.base})
    found = find_combinations(engine, ids, with_embeddings=True) if ids else {}
    plans = []
    for (variant,), (clip,) in found.items():
        own = variants[variant]
        if own.n_classes and not own.extra.get("embeddings"):
            continue  # clips without a patch have no embeddings whatever was asked for
        part = Part(own.model, own.version, own.digest, clip.patch_hop_s, clip.window_s)
        recipe = Recipe(name, (part,), heads=file)
        whole = register(engine, recipe, own.sample_rate_hz, heads.categories)
        plans.append(Planned(recipe, (variant,), whole, paths=tuple(paths)))
    if not plans:
        raise UserError(
            f"there are no embeddings of {heads.base} here: audioset label --embeddings PATH"
        )
    return plans


def heads_in_use(variants: Variants, bases: Sequence[str]) -> dict[str, HeadsFile]:
    """Taught models that have labelled something from these bases: the newest version by name.

    Without those that are retired.
    """
    found: dict[str, HeadsFile] = {}
    for _, stored in sorted(variants.items(), key=lambda item: item[0].model_id):
        recipe = recipe_of(stored)
        if recipe is None or recipe.heads is None or recipe.basis.title not in bases:
            continue
        found.pop(stored.model, None)
        if not stored.is_retired:
            found[stored.model] = recipe.heads
    return found
