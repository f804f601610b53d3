"""Audacity's label tracks: start, end and text of a label, a line each, tabs between them.

Source: manual.audacityteam.org/man/importing_and_exporting_labels.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from audioset_core.export_formats.rows import Event, Recording
from audioset_core.export_formats.text import number, one_line


def audacity_texts(recording: Recording, events: Iterable[Event]) -> Iterator[str]:  # noqa: ARG001
    """One label track of one recording; a label is the name of the class."""
    for event in events:
        yield f"{number(event.start_s)}\t{number(event.end_s)}\t{one_line(event.name)}\n"
