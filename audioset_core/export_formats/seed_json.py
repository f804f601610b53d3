"""Labels of a whole collection in the JSON of earlier labelling tools.

Source: https://github.com/w-hc/torch_audioset
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audioset_core.errors import UserError
from audioset_core.models.classes import Category
from audioset_core.storage.atomic_files import write_text

_SEED_KEYS = frozenset({"id", "category_tsr_fname", "per_chunk_length", "meta"})


@dataclass(frozen=True, slots=True)
class Prediction:
    """One labelled clip in the JSON: `scores_file` is its `.npy`, `extra` holds further keys."""

    id: str
    scores_file: str
    patch_hop_s: float
    meta: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def write_seed_json(
    path: Path, model: str, categories: Iterable[Category], predictions: Iterable[Prediction]
) -> None:
    """Write `{model, model_categories, predictions}`, one prediction a line, atomically.

    Predictions are streamed: a million need no more memory than one. `meta` is kept verbatim.

    Raises:
        UserError: a prediction's meta or extra keys are no JSON (NaN is none); the old file stays.
        OSError: the disk is full, a sync failed, ...
    """
    write_text(path, _seed_json_lines(model, categories, predictions))


def _seed_json_lines(
    model: str, categories: Iterable[Category], predictions: Iterable[Prediction]
) -> Iterator[str]:
    listed = [{"name": category.name, "id": category.mid} for category in categories]
    yield f'{{"model": {json.dumps(model)},\n"model_categories": {json.dumps(listed)},\n'
    yield '"predictions": ['
    separator = "\n"
    for prediction in predictions:
        yield separator + _seed_json_entry(prediction)
        separator = ",\n"
    yield "\n]}\n"


def _seed_json_entry(prediction: Prediction) -> str:
    clashing = _SEED_KEYS & prediction.extra.keys()
    if clashing:
        raise UserError(f"clip {prediction.id!r}: extra key {min(clashing)!r} is already taken")
    entry = {
        "id": prediction.id,
        "category_tsr_fname": prediction.scores_file,
        "per_chunk_length": prediction.patch_hop_s,
        "meta": dict(prediction.meta or {}),
        **prediction.extra,
    }
    try:
        # ASCII escapes carry any text, also file names that are no UTF-8.
        return json.dumps(entry, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"clip {prediction.id!r}: meta or extra keys cannot be written as JSON ({error}); "
            "use text, finite numbers, booleans, null, lists and objects"
        ) from error
