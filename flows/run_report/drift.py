"""How a run's labels differ from those of the run before: new sounds, or a broken microphone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Below so many clips in either run, shares say nothing.
_ENOUGH = 20
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Share:
    """Share of clips in which a category is detected: in the run before, and in this one."""

    category: str
    before: float
    now: float

    @property
    def change(self) -> float:
        """In [-1, 1]."""
        return self.now - self.before


def drift(
    labels: Mapping[str, int], n_labelled: int, before: Mapping[str, Any] | None
) -> tuple[Share, ...]:
    """The categories whose share changed most, largest change first; none without a basis."""
    if not before or not before.get("labels"):
        return ()
    n_before = int(before.get("n_labelled", 0))
    if min(n_labelled, n_before) < _ENOUGH:
        return ()
    then: Mapping[str, int] = before["labels"]
    shares = [
        Share(name, then.get(name, 0) / n_before, labels.get(name, 0) / n_labelled)
        for name in sorted({*labels, *then})
    ]
    shares.sort(key=lambda share: -abs(share.change))
    return tuple(share for share in shares[:_SHOWN] if share.change)
