"""Pieces of clips for a page: a player and a spectrogram, or the reason why there are none."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from audioset_core.errors import AudioError, Reason
from db.reports.collection import places
from flows.pages.render import data_url

SNIPPET_S = 6.0
"""Of sound for a person to judge; where a model's window is longer, the window."""
_PICTURE_COLUMNS = 300


@dataclass(frozen=True, slots=True)
class Piece:
    """A span's picture as PNG and its sound as MP3, from the file at a path."""

    path_text: str
    picture: bytes
    sound: bytes


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A span of a clip; without a recording, both URLs are empty and `why` has the reason."""

    path_text: str
    start_s: float
    end_s: float
    audio: str = ""
    picture: str = ""
    why: str = ""

    @property
    def n_bytes(self) -> int:
        """What it adds to a page."""
        return len(self.audio) + len(self.picture)


def exhibit(
    engine: Engine, clip: str, peak_s: float | None, window_s: float, duration_s: float
) -> Exhibit:
    """The span around a clip's best window."""
    from audioset_core.previews.snippets import centred_span

    start_s, end_s = centred_span(peak_s, window_s, duration_s, SNIPPET_S)
    try:
        piece = piece_of(engine, clip, start_s, end_s)
    except AudioError as error:
        path = next((place.path_text for place in places(engine, clip)), "")
        return Exhibit(path, start_s, end_s, why=str(error))
    picture, sound = data_url("image/png", piece.picture), data_url("audio/mpeg", piece.sound)
    return Exhibit(piece.path_text, start_s, end_s, sound, picture)


def piece_of(engine: Engine, clip: str, start_s: float, end_s: float) -> Piece:
    """The span, from the first of the clip's files that can still be read.

    Raises:
        AudioError: none can be.
    """
    from audioset_core.audio.decoders import DecodeOptions
    from audioset_core.previews.snippets import mp3_bytes, read_snippet
    from audioset_core.previews.spectrogram_png import spectrogram_png

    failed = AudioError(Reason.VANISHED, "the recording is no longer anywhere")
    for place in places(engine, clip):
        try:
            snippet = read_snippet(
                place.path, (place.size_bytes, place.mtime_ns), start_s, end_s, _PICTURE_COLUMNS,
                DecodeOptions(place.track),
            )  # fmt: skip
        except AudioError as error:
            failed = error
            continue
        return Piece(place.path_text, spectrogram_png(snippet.log_mel), mp3_bytes(snippet))
    raise failed
