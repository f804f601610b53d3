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

_LISTS = FOLDER / "classes"


@dataclass(frozen=True, slots=True)
class Category:
    """One model output; `mid` ties it to a node of the ontology."""

    index: int
    mid: str
    name: str


@cache
def load_categories(name: str) -> tuple[Category, ...]:
    """A class list in `data/classes`, such as `yamnet` (521) or `audioset527` (527), by index.

    >>> load_categories("yamnet")[0]
    Category(index=0, mid='/m/09x0r', name='Speech')

    Raises:
        UserError: there is no such list.
    """
    path = _LISTS / f"{name}.csv"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in _LISTS.glob("*.csv")))
        raise UserError(f"no class list is called {name!r}; there is {known}")
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(
            Category(index=int(row["index"]), mid=row["mid"], name=row["display_name"])
            for row in csv.DictReader(file)
        )
