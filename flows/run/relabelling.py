"""Labels again exactly what a repair has reset: the same clips, model, weights and parameters.

What was combined of several models' scores is combined again, after those.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError
from sqlalchemy import Engine

from audioset_core.errors import AudiosetError, UserError
from audioset_core.models.registry import find_bundle
from audioset_core.weights import locate as weights_files
from db.integrity.audit import StoredVariant, iter_undone, stored_variants
from db.integrity.repair import restore_current
from db.records import Variant
from flows.run.combining import run_combination
from tasks.combining.recipe import Planned, recipe_of, repair_plan
from tasks.labelling.job import labelling_settings
from tasks.labelling.options import RESULT_OPTIONS, LabelOptions
from tasks.store_check.check import existing_source
from tasks.store_check.report import Report

# Files per labelling run, whose manifest is held in memory.
_BATCH = 50_000

LabelRun = Callable[[Path, LabelOptions], int]
"""Labels a manifest; returns how many of its files failed."""


def label_again(
    engine: Engine, home: Path, report: Report, weights: Path | None, run: LabelRun
) -> None:
    """Label what was reset, by this repair or an earlier one; what is left is in the report."""
    n_failed = 0
    variants = stored_variants(engine)
    for variant, stored in variants.items():  # parts are registered before what they make up
        if next(iter_undone(engine, variant, page=1), None) is None:
            continue
        try:
            recipe = recipe_of(stored)
            if recipe is not None:
                n_failed += _combine_variant(engine, home, repair_plan(recipe, variant, variants))
                continue
            options = _options(stored, weights)
            n_failed += _label_variant(engine, variant, options, run)
        except AudiosetError as error:
            report.notes.append(
                f"not labelled again with {stored.model}@{stored.version}: "
                f"{' '.join(str(error).split())}"
            )
    n_undone = sum(1 for _ in iter_undone(engine))
    report.n_not_again = n_undone + n_failed
    if n_undone:
        report.notes.append(
            f"{n_undone:,} labellings stay reset: what labels them again is "
            f"audioset verify --repair, with their files and weights in place"
        )
    if n_failed:
        report.notes.append(f"{n_failed:,} files failed: audioset failures tells why")


def _combine_variant(engine: Engine, home: Path, plan: Planned | None) -> int:
    """How many clips failed.

    Raises:
        UserError: there is no plan, or the folder of scores is not there.
    """
    if plan is None:
        raise UserError("the models that it combines have no labels here any more")
    undone = iter_undone(engine, plan.whole)
    pairs = [(each.labelling_id, each.current_id) for each in undone]
    (done,) = run_combination(engine, home, [plan])
    restore_current(engine, [(own, current) for own, current in pairs if current is not None])
    return len(done.failures)


def _label_variant(engine: Engine, variant: Variant, options: LabelOptions, run: LabelRun) -> int:
    undone = _with_sources(engine, variant)
    n_failed = 0
    while batch := list(islice(undone, _BATCH)):
        with TemporaryDirectory(prefix="audioset-again-") as folder:
            manifest = Path(folder) / "again.jsonl"
            # ASCII escapes carry any name, also one that is no UTF-8.
            lines = (json.dumps({"path": os.fsdecode(path)}) for path, _ in batch)
            manifest.write_text("".join(f"{line}\n" for line in lines))
            n_failed += run(manifest, options)
        restore_current(engine, [pair for _, pair in batch if pair is not None])
    return n_failed


def _with_sources(
    engine: Engine, variant: Variant
) -> Iterator[tuple[bytes, tuple[int, int] | None]]:
    """A file to label, and (its labelling, the one that stays current) if there is one."""
    for undone in iter_undone(engine, variant):
        path = existing_source(engine, undone.clip_id)
        if path is not None:
            has_speaker = undone.current_id is not None
            yield path, (undone.labelling_id, undone.current_id or 0) if has_speaker else None


def _options(stored: StoredVariant, weights: Path | None) -> LabelOptions:
    """The options that make this very variant.

    Raises:
        UserError: this version has no such options, or the weights are not there.
    """
    try:
        options = LabelOptions(
            model=stored.model,
            weights=_matching_weights(stored, weights),
            patch_hop_s=stored.row_hop_s,
            framing=stored.extra["framing"],
            score_dtype=stored.extra["score_dtype"],
            **{name: stored.extra[name] for name in RESULT_OPTIONS if name in stored.extra},
        )
    except (KeyError, ValidationError):
        raise UserError("this version does not support these parameters") from None
    if labelling_settings(options, stored.model)[1].digest != stored.digest:
        raise UserError("this version of audioset labels with other parameters")
    return options


def _matching_weights(stored: StoredVariant, given: Path | None) -> Path:
    """Those given, those in the cache, or the official ones, if they are of the version."""
    bundle = find_bundle(stored.model)
    if given is None:
        folder = weights_files.cache_dir() / "weights"
        for path in sorted(folder.glob(f"{bundle.name}-*.safetensors")):
            ready = weights_files.peek(bundle, path)
            if ready is not None and ready.version == stored.version:
                return path
    ready = weights_files.prepare(bundle, given)
    if ready.version != stored.version:
        raise UserError(
            f"the weights here are version {ready.version}, not {stored.version}: give the right "
            f"ones with --weights"
        )
    return ready.path
