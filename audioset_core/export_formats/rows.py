"""What a format is given. Whatever has these attributes will do; the database's records have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Recording(Protocol):
    """One file of a clip, and how the clip was labelled."""

    @property
    def clip(self) -> str:
        """SHA-256 of the content."""

    @property
    def path(self) -> bytes:
        """Where it lies; a file's name need not be text."""

    @property
    def path_text(self) -> str:
        """The path as one readable line."""

    @property
    def user_id(self) -> str | None:
        """The id that a manifest gave."""

    @property
    def duration_s(self) -> float:
        """Length of the recording."""

    @property
    def sample_rate_hz(self) -> int:
        """Of the recording, not of the model."""

    @property
    def model(self) -> str:
        """Who labelled it."""

    @property
    def model_version(self) -> str:
        """Which version of the model."""

    @property
    def patch_hop_s(self) -> float:
        """From one score to the next."""

    @property
    def window_s(self) -> float:
        """What a score is of."""

    @property
    def detection_threshold(self) -> float:
        """Detections are runs of scores from here on."""

    @property
    def parameters(self) -> str:
        """All parameters of the labelling, as JSON."""

    @property
    def is_partial(self) -> bool:
        """Whether something that was recorded is not labelled."""

    @property
    def remarks(self) -> str:
        """What is missing, added or left out, in one line."""


class Event(Protocol):
    """A class heard without a break from one moment to another."""

    @property
    def mid(self) -> str:
        """The class, as AudioSet knows it."""

    @property
    def name(self) -> str:
        """The class, as people know it."""

    @property
    def start_s(self) -> float:
        """Where the first window begins."""

    @property
    def end_s(self) -> float:
        """Where the last window ends, within the recording."""

    @property
    def peak(self) -> float:
        """Highest score."""

    @property
    def mean(self) -> float:
        """Mean score."""

    @property
    def peak_s(self) -> float:
        """Where the window of the highest score begins."""


Labelled = tuple[Recording, Iterable[Event]]
"""A recording and what is heard in it, by start; the events can be read once, in order."""
