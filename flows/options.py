"""The parameters of the flows, with the titles and descriptions that the UI's form shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class LabelOptions(BaseModel):
    """How to label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field("yamnet", title="Model", description="Which model labels: yamnet.")
    weights: Path | None = Field(
        None,
        title="Weights file",
        description="Published (.h5, .pth) or converted (.safetensors) weights. Empty: the file "
        "in AUDIOSET_WEIGHTS, or the official download.",
    )
    patch_hop_s: float | None = Field(
        None,
        title="Patch hop (s)",
        description="Seconds from one score to the next: a multiple of 0.01 up to 0.96. "
        "Empty: the model's own, 0.48.",
    )
    framing: Literal["reference", "seed"] = Field(
        "reference",
        title="Framing",
        description="'reference' drops no audio; 'seed' repeats the older port's chunks "
        "(0.96 s, tail dropped) to compare with old results.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", title="Device", description="Where the network runs; auto takes a GPU if any."
    )
    score_dtype: Literal["float16", "float32"] = Field(
        "float16", title="Score type", description="How logits are stored in the .npy files."
    )


def default_home() -> Path:
    """``AUDIOSET_HOME``, or ``audioset-data`` in the current folder."""
    return Path(os.environ.get("AUDIOSET_HOME") or "audioset-data")


def database_url(home: Path, given: SecretStr | None = None) -> str:
    """The database's URL: as given, ``AUDIOSET_DB``, or the SQLite file of the home folder."""
    if given is not None and given.get_secret_value():
        return given.get_secret_value()
    return os.environ.get("AUDIOSET_DB") or f"sqlite:///{home.absolute() / 'labels.db'}"
