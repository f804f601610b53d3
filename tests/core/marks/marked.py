"""Reading marks from a text, and what they say."""

from __future__ import annotations

from pathlib import Path

from audioset_core.marks.mark import MarkFile
from audioset_core.marks.read import read_marks
from audioset_core.ontology.graph import load_default

DOG, CAT, BIRD, SIREN = "/m/0bt9lr", "/m/01yrx", "/m/015p6", "/m/03kmc9"


def read_text(path: Path, text: str | bytes, **options: object) -> MarkFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_marks(path, load_default(), **options)  # type: ignore[arg-type]


def said(found: MarkFile) -> list[tuple[object, ...]]:
    return [(m.span_s, m.mid, m.verdict) for m in found.marks]
