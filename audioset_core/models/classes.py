"""The outputs of the models: index, MID and name, in the order of the network's last layer.

Source: class lists published with YAMNet and AudioSet (527 = YAMNet's 521 + six more),
https://github.com/tensorflow/models/tree/master/research/audioset/yamnet
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache

from audioset_core.data import FOLDER
from audioset_core.errors import UserError

_FILES = {"yamnet": "yamnet_classes.csv", "audioset527": "audioset_classes.csv"}


@dataclass(frozen=True, slots=True)
class Category:
    """One model output; `mid` ties it to a node of the ontology."""

    index: int
    mid: str
    name: str


@cache
def load_categories(name: str) -> tuple[Category, ...]:
    """Class list by name, `yamnet` (521) or `audioset527` (527), sorted by index.

    Raises:
        UserError: there is no such list.
    """
    if name not in _FILES:
        raise UserError(f"no class list is called {name!r}; allowed: {', '.join(_FILES)}")
    with (FOLDER / _FILES[name]).open(encoding="utf-8", newline="") as file:
        return tuple(
            Category(index=int(row["index"]), mid=row["mid"], name=row["display_name"])
            for row in csv.DictReader(file)
        )
