"""The rows that a format gets: any objects with these attributes, as the database's records are."""

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
        """Its path; a file's name need not be valid text."""

    @property
    def path_text(self) -> str:
        """The path as one readable line."""

    @property
    def user_id(self) -> str | None:
        """The id that a manifest gave."""

    @property
    def duration_s(self) -> float:
        """Length of the recording in seconds."""

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate of the recording, not of the model."""

    @property
    def format(self) -> str:
        """Container and coding of the recording: ``WAV/PCM_16``."""

    @property
    def model(self) -> str:
        """The model that labelled it."""

    @property
    def model_version(self) -> str:
        """The version of the model's weights."""

    @property
    def patch_hop_s(self) -> float:
        """Seconds from one score to the next."""

    @property
    def window_s(self) -> float:
        """Seconds that one score covers."""

    @property
    def detection_threshold(self) -> float:
        """Detections are runs of scores of at least this value."""

    @property
    def parameters(self) -> str:
        """All parameters of the labelling, as JSON."""

    @property
    def is_partial(self) -> bool:
        """Whether something that was recorded is not labelled."""

    @property
    def site(self) -> str | None:
        """The site where it was recorded."""

    @property
    def remarks(self) -> str:
        """What is missing, added or left out, as one line of text."""


class Event(Protocol):
    """A detection: a class from one time to another, without a break."""

    @property
    def mid(self) -> str:
        """The MID of the class."""

    @property
    def name(self) -> str:
        """The name of the class."""

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

    @property
    def model(self) -> str:
        """The model that heard it: that of the recording's labelling, or one that was taught."""

    @property
    def model_version(self) -> str:
        """The version of the model's weights."""


Labelled = tuple[Recording, Iterable[Event]]
"""A recording and its detections, ordered by start; they can be read once."""
