"""Pieces of clips for a page: a player and a spectrogram, or the reason why there are none."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from audioset_core.errors import AudioError
from db.reports.collection import places
from flows.pages.render import data_url

SNIPPET_S = 6.0
"""Of sound for a person to judge; where a model's window is longer, the window."""
PICTURE_COLUMNS = 300


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
    """The span around a clip's best window, from the first of its files that can still be read."""
    from audioset_core.audio.decoders import DecodeOptions
    from audioset_core.previews.snippets import centred_span, mp3_bytes, read_snippet
    from audioset_core.previews.spectrogram_png import spectrogram_png

    start_s, end_s = centred_span(peak_s, window_s, duration_s, SNIPPET_S)
    found = places(engine, clip)
    why = "the recording is no longer anywhere"
    for place in found:
        try:
            piece = read_snippet(
                place.path, (place.size_bytes, place.mtime_ns), start_s, end_s, PICTURE_COLUMNS,
                DecodeOptions(place.track),
            )  # fmt: skip
        except AudioError as error:
            why = str(error)
            continue
        picture = data_url("image/png", spectrogram_png(piece.log_mel))
        sound = data_url("audio/mpeg", mp3_bytes(piece))
        return Exhibit(place.path_text, start_s, end_s, sound, picture)
    return Exhibit(found[0].path_text if found else "", start_s, end_s, why=why)
