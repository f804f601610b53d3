"""The page by which a person judges a sample of clips; it works without a server."""

from __future__ import annotations

import hashlib
from pathlib import PurePath
from typing import Any

from sqlalchemy import Engine

from db.judging.review_sample import ReviewItem, ReviewSample
from flows.pages.examples import exhibit
from flows.pages.render import render
from flows.terminal import one_line

CSV_COLUMNS = ("clip", "path", "start_s", "end_s", "mid", "name", "score", "verdict", "reviewed_at")
"""Columns of the CSV that the page saves; the span is the one that was played."""
VERDICTS = ("yes", "other", "no", "unsure")
"""The answers; `other` is another class below the review's node than the one in question."""


def review_page(engine: Engine, title: str, sample: ReviewSample) -> bytes:
    """The page; verdicts are kept by the browser under a name that depends on the sample.

    Where a class below the review's node is asked about, each verdict becomes two lines of the CSV:
    one on the class, one on the node.
    """
    shown = [_shown(engine, item) for item in sample.items]
    told = "\n".join(f"{x['clip']} {x['mid']} {x['start_s']} {x['end_s']}" for x in shown)
    data = {
        "key": f"audioset-review-{hashlib.sha256(told.encode()).hexdigest()[:16]}",
        "columns": CSV_COLUMNS,
        "verdicts": VERDICTS,
        "root": dict(zip(("mid", "name"), sample.root, strict=True)),
        "items": shown,
    }
    return render("review", {"title": title, "data": data, "n_items": len(shown)})


def _shown(engine: Engine, item: ReviewItem) -> dict[str, Any]:
    piece = exhibit(engine, item.clip, item.peak_s, item.window_s, item.duration_s)
    start_s, end_s = round(piece.start_s, 3), round(piece.end_s, 3)
    heard = None
    if item.start_s is not None and item.end_s is not None:
        heard = [max(start_s, round(item.start_s, 3)), min(end_s, round(item.end_s, 3))]
    return {
        "clip": item.clip,
        "path": piece.path_text,
        "file": one_line(PurePath(piece.path_text).name or item.clip[:12]),
        "start_s": start_s,
        "end_s": end_s,
        "mid": item.mid,
        "name": item.name,
        "score": round(item.score, 4),
        "heard": heard,
        "audio": piece.audio,
        "picture": piece.picture,
        "why": one_line(piece.why),
    }
