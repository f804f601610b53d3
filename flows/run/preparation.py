"""What must be right before anything is labelled: options, home folder, database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.features.config import FrontendConfig
from audioset_core.models.registry import ModelBundle, find_bundle
from audioset_core.weights.locate import ReadyWeights, environment_name
from db.migrate import ensure_schema
from db.records import Parameters, Variant
from flows.options import database_url, default_home, make_home
from tasks.labelling.job import Job, engine_for, labelling_settings
from tasks.labelling.options import LabelOptions


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What the options mean for one model."""

    bundle: ModelBundle
    frontend: FrontendConfig
    parameters: Parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A home with this version's tables, and what the options mean."""

    home: Path
    database_url: str
    engine: Engine
    options: LabelOptions
    models: tuple[ModelSettings, ...]

    def job(
        self,
        run_id: str,
        model: ModelSettings,
        weights: ReadyWeights,
        variant: Variant,
        *,
        is_watched: bool = False,
    ) -> Job:
        """What the run's tasks need to know of one of the models."""
        return Job(
            run_id=run_id,
            home=self.home,
            database_url=self.database_url,
            options=self.options,
            weights=weights,
            frontend=model.frontend,
            parameters=model.parameters,
            variant=variant,
            is_watched=is_watched,
        )


def prepare_run(options: LabelOptions, home: Path | None, url: str | None) -> Prepared:
    """Check the options, and make the home folder and the tables if they are not there.

    Args:
        options: How to label.
        home: The home folder. None: `default_home`.
        url: The database's URL. None: `database_url` of the home.

    Raises:
        UserError: no such model, a hop or framing that it does not have, weights for several
            models, or no folder can be made.
        DatabaseUserError: the database cannot be used.
    """
    models = tuple(
        ModelSettings(find_bundle(name), *labelling_settings(options, name))
        for name in options.models
    )
    if options.weights and len(models) > 1:
        variables = " and ".join(environment_name(each.bundle) for each in models)
        raise UserError(f"--weights is for a single model: name the weights with {variables}")
    home = (home or default_home()).absolute()
    make_home(home)
    url = database_url(home, url)
    engine = engine_for(url)
    ensure_schema(engine)
    return Prepared(
        home=home, database_url=url, engine=engine, options=options, models=models,
    )  # fmt: skip
