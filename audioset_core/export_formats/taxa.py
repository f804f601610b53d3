"""What a class of sounds says of its source: an animal, a human, a vehicle; and which taxon.

AudioSet's classes are sounds, not taxa. `data/taxa.csv` names a taxon for the classes whose
description is of one taxon, no finer than the description allows. A person's own table of the same
columns adds to it, or takes a taxon away with an empty cell.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from audioset_core.data import FOLDER
from audioset_core.errors import UserError
from audioset_core.ontology.graph import Ontology

TAXA_FILE = FOLDER / "taxa.csv"
RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species", "subspecies")
"""Ranks that Camtrap DP knows; a taxon of another one has none."""

_COLUMNS = ("class", "scientificName", "taxonRank")
_SOURCES = {"/m/0jbk": "animal", "/m/0dgw9r": "human", "/m/07yv9": "vehicle"}
_NONE = "unknown"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Taxon:
    """A scientific name, and its rank, or "" for one that is not among `RANKS`."""

    name: str
    rank: str = ""


def read_taxa(path: Path, ontology: Ontology) -> dict[str, Taxon]:
    """The taxon of each class that a table states, by MID; an empty name stays empty.

    Raises:
        UserError: the file cannot be read, lacks a column, or names an unknown class or rank.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the table of taxa {path} cannot be read: {error}") from None
    found = {}
    for line, row in enumerate(rows, start=2):
        if missing := [name for name in _COLUMNS if row.get(name) is None]:
            raise UserError(
                f"{path}, row {line}: no value for {', '.join(missing)}; "
                f"the table has the columns {', '.join(_COLUMNS)}"
            )
        cells = [" ".join(row[name].split()) for name in _COLUMNS]
        rank = cells[2].lower()
        if rank and rank not in RANKS:
            raise UserError(f"{path}, row {line}: {rank!r} is none of: {', '.join(RANKS)}")
        try:
            mid = ontology.find(cells[0]).mid
        except UserError as error:
            raise UserError(f"{path}, row {line}: {error}") from None
        found[mid] = Taxon(cells[1], rank)
    return found


def taxa_of(ontology: Ontology, own: Path | None = None) -> dict[str, Taxon]:
    """The taxon of every class that has one, by MID: its own, or what all its parents agree on.

    >>> from audioset_core.ontology.graph import load_default
    >>> taxa = taxa_of(load_default())
    >>> taxa["/m/05tny_"].name, "/m/0239kh" in taxa  # Bark is a dog's, Cowbell no animal's
    ('Canis familiaris', False)
    """
    stated = read_taxa(TAXA_FILE, ontology) | (read_taxa(own, ontology) if own else {})
    return {mid: taxon for mid, taxon in _agreed(ontology, stated).items() if taxon.name}


def sources_of(ontology: Ontology) -> Callable[[str], str]:
    """For a MID: animal, human or vehicle, where every way up the ontology leads there.

    All others are unknown: rain and music, and sounds of several sources as Hiss and Cowbell.
    """
    agreed = _agreed(ontology, _SOURCES)
    return lambda mid: agreed.get(mid, _NONE)


def _agreed(ontology: Ontology, stated: Mapping[str, T]) -> dict[str, T]:
    """What is stated of each class, or what all its parents agree on."""

    @cache
    def value(mid: str) -> T | None:
        if mid in stated:
            return stated[mid]
        above = {value(parent.mid) for parent in ontology.parents(mid)}
        return above.pop() if len(above) == 1 else None

    return {mid: found for mid in ontology.nodes if (found := value(mid)) is not None}
