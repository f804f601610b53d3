"""What the verdicts on a sample say of all the clips from which it was drawn."""

from __future__ import annotations

from typing import Any

from audioset_core.evaluation.estimation import Judged, Share, by_clip, true_share
from db.judging.reviews import JudgedReview


def strata_of(found: JudgedReview) -> list[Judged]:
    """The strata of a sample, with what was judged of each."""
    judged: list[list[tuple[bool, float]]] = [[] for _ in found.strata]
    for item in found.items:
        if item.is_true is not None:
            judged[item.stratum].append((item.is_true, item.heard_s))
    return [
        Judged(s.low, s.n_clips, s.heard_s, s.heard_s2, tuple(own))
        for s, own in zip(found.strata, judged, strict=True)
    ]


def estimate_review(found: JudgedReview) -> dict[str, Any]:
    """Clips and hours that truly have the sound, and the precision from each threshold on.

    Each is None (a row of `precision`: without ``estimate``) where nothing was judged.
    """
    strata = strata_of(found)
    n_clips, heard_h = sum(s.n_clips for s in strata), sum(s.size_s for s in strata) / 3600
    precision = []
    for low in sorted({s.low for s in strata}):
        above = by_clip([s for s in strata if s.low >= low])
        share = _scaled(true_share(above), 1) or {}
        precision.append({"min_score": low, "n_clips": sum(s.n_clips for s in above), **share})
    return {
        "review": found.review_id, "drawn_at": found.drawn_at, "question": found.question,
        "n_clips": n_clips, "n_drawn": len(found.items), "n_judged": found.n_judged,
        "detected_hours": heard_h, "clips": _scaled(true_share(by_clip(strata)), n_clips),
        "hours": _scaled(true_share(strata), heard_h), "precision": precision,
    }  # fmt: skip


def _scaled(share: Share | None, by: float) -> dict[str, Any] | None:
    return None if share is None else {
        "estimate": share.value * by, "low": share.low * by, "high": share.high * by,
        "n_judged": share.n_judged,
    }  # fmt: skip
