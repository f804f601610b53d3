"""What must be right before anything is labelled: options, home folder, database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from audioset_core.features.config import FrontendConfig
from audioset_core.models.registry import ModelBundle, find_bundle
from audioset_core.weights.locate import ReadyWeights
from db.migrate import ensure_schema
from db.records import Parameters, Variant
from flows.options import database_url, default_home, make_home
from tasks.labelling.job import Job, engine_for, labelling_settings
from tasks.labelling.options import LabelOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A home with this version's tables, and what the options mean."""

    home: Path
    database_url: str
    engine: Engine
    options: LabelOptions
    bundle: ModelBundle
    frontend: FrontendConfig
    parameters: Parameters

    def job(
        self, run_id: str, weights: ReadyWeights, variant: Variant, *, is_watched: bool = False
    ) -> Job:
        """What the run's tasks need to know."""
        return Job(
            run_id=run_id,
            home=self.home,
            database_url=self.database_url,
            options=self.options,
            weights=weights,
            frontend=self.frontend,
            parameters=self.parameters,
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
        UserError: no such model, a hop or framing that it does not have, or no folder can be made.
        DatabaseUserError: the database cannot be used.
    """
    frontend, parameters = labelling_settings(options)
    home = (home or default_home()).absolute()
    make_home(home)
    url = database_url(home, url)
    engine = engine_for(url)
    ensure_schema(engine)
    return Prepared(
        home=home, database_url=url, engine=engine, options=options,
        bundle=find_bundle(options.model), frontend=frontend, parameters=parameters,
    )  # fmt: skip
