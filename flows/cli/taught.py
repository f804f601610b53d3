"""``audioset label --model my-sounds``: scores by a taught model, from stored embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.models.registry import BUNDLES
from flows.cli.combining import combine_shown
from flows.cli.shared_options import Store
from flows.terminal import note, one_line, print_table
from tasks.labelling.options import LabelOptions


def label_taught(
    paths: list[str], manifest: Path | None, store: Store, options: LabelOptions
) -> int | None:
    """Score what a taught model has not scored yet; returns the exit code.

    None: none of the models is known here.

    Raises:
        UserError, DatabaseUserError: an option or a path is off.
    """
    from db.score_files.combinable import count_labelled
    from tasks.combining.combine import Combined
    from tasks.combining.taught import find_heads, taught_plans
    from tasks.teaching.lacking import without_embeddings

    if not store.is_there:
        return None
    home = store.home.absolute()
    with store.database() as engine:
        heads = {name: find_heads(engine, home, name) for name in options.models}
        name = next((name for name, file in heads.items() if file), None)
        if name is None:
            _refuse_others(engine, options.models)
            return None
        _check_options(name, manifest, options)
        file = heads[name]
        assert file is not None  # noqa: S101 (for mypy)
        places = [_place(path) for path in paths]
        plans = taught_plans(engine, home, name.partition("@")[0], file, places)
        _check_places(engine, plans[0].recipe.basis.model, paths)
        whole = Combined()
        for done in combine_shown(engine, home, plans):
            whole.add(done)
        n_all, _ = count_labelled(engine, [plans[0].whole.model_id])
        lacking = None if paths else without_embeddings(engine, plans[0].recipe.basis.title)
    recipe = plans[0].recipe
    if whole.failures:
        print_table(("clip", "file", "reason"), whole.failures)
    print(f"{recipe.title}: {whole.n_clips:,} clips scored, {n_all:,} in all")
    print(f"Ask it: audioset query --under CLASS --model {recipe.name}")
    if lacking:
        note(one_line(f"left out: {lacking}"))
    if whole.n_busy:
        note(f"left out: {whole.n_busy:,} clips that another run is scoring")
    if whole.failures:
        note(f"{len(whole.failures):,} clips cannot be scored: audioset verify --repair")
    return 1 if whole.failures else 0


def _refuse_others(engine: Engine, models: Sequence[str]) -> None:
    """Of models that are no network: those that are combined, and taught ones by a wrong name."""
    from db.reports.model_coverage import models_known

    here = [m.name for m in models_known(engine) if m.name not in BUNDLES]
    for name in models:
        if name in here:
            raise UserError(f"{name} is made of other models' scores: audioset combine")
        if near := get_close_matches(name, here, n=1) if name not in BUNDLES else []:
            raise UserError(f"no model is called {name!r}; did you mean {near[0]!r}?")


def _check_options(name: str, manifest: Path | None, options: LabelOptions) -> None:
    if len(options.models) > 1:
        raise UserError(f"{name} is a taught model, which scores stored embeddings: name it alone")
    chosen = options.model_dump(exclude={"model"}, exclude_defaults=True)
    given = [each.removesuffix("_s").replace("_", "-") for each in chosen]
    if manifest is not None:
        given.append("manifest")
    if given:
        raise UserError(
            f"--{given[0]} does not go with {name}: a taught model scores the embeddings that are "
            "stored, and decodes nothing"
        )


def _place(path: str) -> str:
    """A file or folder that is there by its whole path; a glob as it is written."""
    return str(Path(path).absolute()) if Path(path).exists() else path


def _check_places(engine: Engine, base: str, paths: list[str]) -> None:
    from db.score_files.teachable import clips_at

    for path in paths:
        if not clips_at(engine, _place(path)):
            raise UserError(
                f"{path}: no labelled recording is there; first run audioset label --model {base} "
                f"--embeddings {path}"
            )
