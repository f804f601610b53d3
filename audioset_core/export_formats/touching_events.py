"""Event lists in which events of one class never overlap, as evaluation programs require.

A detection ends with the window of its last patch. As windows overlap, two detections of a class
with one patch between them touch, or overlap where the hop is short.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from audioset_core.export_formats.rows import Event

_TOUCH_S = 1e-6
"""Events less than a sample apart touch: times are products that differ in the last digit."""


@dataclass(frozen=True, slots=True)
class Span:
    """One class from its onset to its offset."""

    mid: str
    name: str
    start_s: float
    end_s: float


def merged(events: Iterable[Event]) -> Iterator[Span]:
    """Spans of one recording: events of a class that touch become one; ordered by end."""
    spans: dict[str, Span] = {}
    for event in events:
        over = [s for s in spans.values() if s.end_s + _TOUCH_S < event.start_s]
        for span in sorted(over, key=lambda span: (span.end_s, span.start_s)):
            yield spans.pop(span.mid)
        before = spans.get(event.mid)
        if before is None:
            spans[event.mid] = Span(event.mid, event.name, event.start_s, event.end_s)
        else:
            spans[event.mid] = replace(before, end_s=max(before.end_s, event.end_s))
    yield from sorted(spans.values(), key=lambda span: (span.end_s, span.start_s))
