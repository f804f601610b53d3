"""Flow prepare-model: fetch and convert a model's weights, so that no labelling run waits."""

# No `from __future__ import annotations`: Prefect reads the parameters' types at run time,
# also where it loads this file by its path.

from pathlib import Path

from prefect import flow

from audioset_core.weights.locate import ReadyWeights
from tasks.convert_weights import convert_weights


@flow(name="prepare-model", flow_run_name="prepare {model}", persist_result=False)
def prepare_model(model: str = "yamnet", weights: Path | None = None) -> ReadyWeights:
    """Make the weights ready in the cache.

    Args:
        model: Which model: yamnet.
        weights: A weights file. Empty: AUDIOSET_WEIGHTS, or the official download.

    Raises:
        UserError: no such model, or weights that cannot be had or used.
    """
    return convert_weights(model, weights)
