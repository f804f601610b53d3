"""Heads on embeddings: one affine map that gives a logit for each class, and its file.

An embedding is first scaled to length one: how loud a sound is says little of what it is.

The file is safetensors, with what was taught from what as JSON in its metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audioset_core.arrays import F32, Floats, row_blocks, unit_rows
from audioset_core.errors import WeightsError

_KEY = "taught on unit length"


@dataclass(frozen=True, slots=True)
class Heads:
    """The map, and `about`: "classes" (each with "mid" and "name"), "base", examples, figures.

    Shape:
        weight: [n_classes, dim] float32; bias: [n_classes] float32
    """

    weight: F32
    bias: F32
    about: Mapping[str, Any]

    @property
    def categories(self) -> tuple[tuple[int, str, str], ...]:
        """(index, MID, name) of each class."""
        return tuple((k, c["mid"], c["name"]) for k, c in enumerate(self.about["classes"]))

    @property
    def base(self) -> str:
        """NAME@VERSION of the model that makes the embeddings."""
        return f"{self.about['base']['model']}@{self.about['base']['version']}"

    def logits(self, embeddings: Floats) -> Floats:
        """What the heads say of each patch, in the type of the embeddings.

        Infinite where float16 is too small for a value. Computed in float64, block after block.

        Shape:
            embeddings: [n_patches, dim] -> [n_patches, n_classes]
        """
        weight, bias = self.weight.T.astype(np.float64), self.bias.astype(np.float64)
        found = np.empty((len(embeddings), len(self.bias)), dtype=embeddings.dtype)
        with np.errstate(over="ignore"):
            for first, rows in row_blocks(embeddings):
                found[first : first + len(rows)] = unit_rows(rows) @ weight + bias
        return found

    def as_bytes(self) -> bytes:
        """The file's content; equal heads have equal bytes."""
        from safetensors.numpy import save

        told = json.dumps(self.about, sort_keys=True, separators=(",", ":"))
        return save({"bias": self.bias, "weight": self.weight}, metadata={_KEY: told})


def read_heads(path: Path, sha256: str | None = None) -> Heads:
    """The heads in a file.

    Raises:
        WeightsError: the file is missing or damaged, or its SHA-256 is another.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise WeightsError(f"{path} is not the file that was written when it was taught")
        with safe_open(path, framework="np") as file:
            about = json.loads(file.metadata()[_KEY])
            heads = Heads(file.get_tensor("weight"), file.get_tensor("bias"), about)
        if heads.weight.shape[:1] != heads.bias.shape or len(heads.categories) != len(heads.bias):
            raise ValueError("shapes")
    except OSError as error:
        reason = error.strerror or "no such file"
        raise WeightsError(f"the taught weights {path} cannot be read: {reason}") from None
    except (SafetensorError, KeyError, TypeError, ValueError):
        raise WeightsError(f"{path} does not hold taught weights: teach again") from None
    return heads
