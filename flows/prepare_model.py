"""Flow prepare-model: fetch and convert a model's weights, so that no labelling run waits."""

# No `from __future__ import annotations`: Prefect reads the parameters' types at run time,
# also where it loads this file by its path.

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from audioset_core.weights.locate import ReadyWeights
from tasks.convert_weights import convert_weights


def _run_name() -> str:
    model: Any = flow_run.parameters.get("model")
    return f"prepare {model if isinstance(model, str) else ' and '.join(model)}"


@flow(name="prepare-model", flow_run_name=_run_name, persist_result=False)
def prepare_model(
    model: str | list[str] = "yamnet", weights: Path | None = None
) -> list[ReadyWeights]:
    """Make the weights ready in the cache.

    Args:
        model: Which model, or several: yamnet.
        weights: A weights file. Empty: AUDIOSET_WEIGHTS, or the official download.

    Raises:
        UserError: no such model, or weights that cannot be had or used.
    """
    names = [model] if isinstance(model, str) else model
    return [convert_weights(name, weights) for name in names]
