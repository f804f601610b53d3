"""Keeping the sun of every place and day on which something was recorded: the core's, in SQL."""

from __future__ import annotations

from sqlalchemy import Engine

from audioset_core.inputs.sun import sun_periods
from db.catalog.sun_periods import days_without_sun, store_sun
from db.paging import batches
from db.query.sun import CENTIDEGREES

_DAYS_AT_ONCE = 500


def extend_sun(engine: Engine) -> None:
    """Compute and store what is missing, a batch of days a transaction."""
    for some in batches(days_without_sun(engine), _DAYS_AT_ONCE):
        store_sun(
            engine,
            [
                (latitude, longitude, phase, begin * 1_000, end * 1_000)
                for latitude, longitude, day in some
                for phase, begin, end in sun_periods(
                    latitude / CENTIDEGREES, longitude / CENTIDEGREES, day
                )
            ],
        )
