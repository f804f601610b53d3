"""The verdicts in the database as what recordings are known to hold."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict

from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.evaluation.truth_files import Item, Truth
from db.judging.verdicts import find_verdicts

_Place = tuple[str, tuple[float, float] | None]


def truth_of_verdicts(engine: Engine) -> tuple[Truth, str]:
    """An item for every clip and span that was judged, and a SHA-256 of what was said.

    What people say differently of one class in one span is left out, and so is what they are
    unsure of.

    Raises:
        UserError: there are none.
    """
    said: dict[_Place, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    counts = Counter[str]()
    digest = hashlib.sha256()
    for each in find_verdicts(engine):
        what = (each.clip, each.mid, each.start_s, each.end_s, each.verdict, each.judged_by)
        digest.update(f"{what}\n".encode())
        if each.verdict == "unsure":
            counts["verdicts that are unsure"] += 1
            continue
        span_s = None
        if each.start_s is not None and each.end_s is not None:
            span_s = (each.start_s, each.end_s)
        said[each.clip, span_s][each.verdict].add(each.mid)
    items = []
    for (clip, span_s), by_verdict in said.items():
        present, absent = by_verdict["present"], by_verdict["absent"]
        if both := present & absent:
            counts["verdicts that contradict each other"] += len(both)
        if present != absent:
            items.append(Item((clip,), frozenset(present - both), frozenset(absent - both), span_s))
    if not items:
        raise UserError("there are no verdicts yet; store some with audioset verdicts import FILE")
    return Truth("csv", tuple(items), dict(counts)), digest.hexdigest()
