"""What a card shows of a sound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from urllib.parse import urlencode

from audioset_core.previews.snippets import centred_span
from db.answer_records import Hit
from flows.asking import shown_interval
from flows.terminal import one_line

CARD_S = 6.0
"""Of sound on a card; where a model's window is longer, the window."""


@dataclass(frozen=True, slots=True)
class Card:
    """A span of a clip to hear, and the class that is heard there."""

    clip: str
    mid: str
    """Of the class that is heard there; empty if there is none."""
    name: str
    score: float
    start_s: float
    end_s: float
    file: str
    path_text: str
    interval: str
    moment: str = ""
    site: str = ""
    is_missing: bool = False
    n_copies: int = 0
    """Further files with the same content."""
    has_alike: bool = False
    """Whether sounds like this one can be looked for."""
    at_s: float = 0.0
    """Where the sound itself is: the middle of its best window."""

    @property
    def recording(self) -> str:
        """The address of the recording's page, at the span."""
        asked = {"at": f"{self.start_s:.2f}", **({"class": self.mid} if self.mid else {})}
        return f"/clips/{self.clip}?{urlencode(asked)}"

    @property
    def span(self) -> str:
        """The span as a query of a URL."""
        return f"start_s={self.start_s:.2f}&end_s={self.end_s:.2f}"


def card_of(hit: Hit) -> Card:
    """The card of a hit: its best window and what is around it."""
    start_s, end_s = centred_span(hit.peak_s, hit.window_s, hit.duration_s, CARD_S)
    moment = hit.heard_at or hit.recorded_at
    return Card(
        clip=hit.clip, mid=hit.mid, name=hit.name, score=hit.score, start_s=start_s, end_s=end_s,
        file=one_line(PurePath(hit.path_text or "").name or hit.clip[:12]),
        path_text=hit.path_text or "",
        interval=shown_interval(hit.start_s, hit.end_s),
        moment=f"{moment:%Y-%m-%d %H:%M:%S}" if moment else "",
        site=hit.site or "",
        is_missing=hit.is_missing,
        n_copies=max(0, hit.n_sources - 1),
        at_s=(hit.peak_s or 0.0) + hit.window_s / 2 if hit.peak_s is not None else start_s,
    )  # fmt: skip
