"""Task load-ontology: the ontology, the model and its parameters, in tables."""

from __future__ import annotations

from prefect import task
from sqlalchemy import Engine

from audioset_core.models.registry import ModelBundle, find_bundle
from audioset_core.ontology.graph import Ontology, load_default
from audioset_core.weights.locate import ReadyWeights
from db.catalog import ontology as ontology_rows
from db.catalog.model_registry import find_variant, register_model, register_parameters
from db.records import Model, Parameters, Variant
from tasks.labelling.job import engine_for, now


@task(
    name="load-ontology",
    task_run_name="load ontology and {weights.model} {weights.version}",
    persist_result=False,
)
def load_ontology(database_url: str, weights: ReadyWeights, parameters: Parameters) -> Variant:
    """Make sure that the tables hold the ontology and this model; idempotent."""
    engine = engine_for(database_url)
    store_ontology(engine, load_default())
    bundle = find_bundle(weights.model, has_scores=weights.has_scores)
    model = model_record(bundle, weights)
    register_model(engine, model, now())
    register_parameters(engine, parameters)
    variant = find_variant(engine, model.name, model.version, parameters)
    assert variant is not None  # noqa: S101 (for mypy: both are registered)
    return variant


def store_ontology(engine: Engine, ontology: Ontology) -> bool:
    """Write the ontology's nodes, edges and closure; False if nothing was new."""
    nodes = list(ontology.nodes.values())
    return ontology_rows.load_ontology(
        engine, nodes, list(ontology.edges()), list(ontology.closure())
    )


def model_record(bundle: ModelBundle, weights: ReadyWeights) -> Model:
    """The model's rows."""
    return Model(
        name=bundle.name,
        version=weights.version,
        weights_sha256=weights.source_sha256,
        sample_rate_hz=bundle.frontend.sample_rate_hz,
        window_s=bundle.frontend.step_window_s,
        embedding_dim=bundle.embedding_dim,
        categories=tuple((c.index, c.mid, c.name) for c in bundle.categories),
    )
