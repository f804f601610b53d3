"""Task convert-weights: published weights, found or downloaded, as checked safetensors."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from audioset_core.models.registry import find_bundle
from audioset_core.weights.locate import ReadyWeights, prepare


@task(name="convert-weights", task_run_name="convert weights of {model}", persist_result=False)
def convert_weights(model: str, weights: Path | None) -> ReadyWeights:
    """Make the model's weights ready; see `audioset_core.weights.locate.prepare`."""
    return prepare(find_bundle(model), weights)
