"""Flow prepare-model: fetch and convert a model's weights, so that no labelling run waits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from audioset_core.weights import ReadyWeights
from tasks.convert_weights import convert_weights


@flow(name="prepare-model", flow_run_name="prepare {model}", persist_result=False)
def prepare_model(
    model: Annotated[str, Field(title="Model", description="Which model: yamnet.")] = "yamnet",
    weights: Annotated[
        Path | None,
        Field(title="Weights file", description="Empty: AUDIOSET_WEIGHTS, or the download."),
    ] = None,
) -> ReadyWeights:
    """Make the weights ready in the cache.

    Raises:
        UserError: no such model, or weights that cannot be had or used.
    """
    return convert_weights(model, weights)
