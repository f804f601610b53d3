"""The state of recordings that an earlier version labelled, which did not measure it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from sqlalchemy import Engine

from audioset_core.audio.decoders import DecodeOptions, Measures
from audioset_core.audio.recording import Recording
from audioset_core.audio.remarks import health_remarks
from audioset_core.errors import AudioError, Reason
from audioset_core.records import Health
from audioset_core.system import n_cores
from db.catalog.health import add_health, clips_without_health
from db.records import Remark
from db.reports.collection import Place, places


def measure_again(engine: Engine, *, with_loudness: bool) -> tuple[int, int]:
    """Decode the clips of which no state is known; how many were measured, and how many are gone.

    With loudness, clips without one are decoded as well.
    """
    n_found, n_gone = 0, 0
    with ThreadPoolExecutor(n_cores()) as pool:  # decoders are processes of their own
        for page in clips_without_health(engine, with_loudness=with_loudness):
            found = pool.map(lambda row: _measured(engine, row.sha256, with_loudness), page)
            for row, health in zip(page, found, strict=True):
                if health is None:
                    n_gone += 1
                else:
                    remarks = [Remark(**asdict(each)) for each in health_remarks(health)]
                    add_health(engine, row.id, health, remarks)
                    n_found += 1
    return n_found, n_gone


def _measured(engine: Engine, sha256: str, with_loudness: bool) -> Health | None:
    """The state of a clip by the first of its files that still has it."""
    for place in places(engine, sha256):
        try:
            return _read(place, sha256, with_loudness)
        except AudioError:
            continue
    return None


def _read(place: Place, sha256: str, with_loudness: bool) -> Health | None:
    measures: Measures = "loudness" if with_loudness else "health"
    with Recording(place.path, DecodeOptions(place.track, measures=measures)) as recording:
        if recording.sha256 != sha256:
            raise AudioError(Reason.CHANGED)
        for _ in recording.blocks():
            pass
        return recording.health
