"""Where recordings were made, as a condition of their files: at sites, or near a place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select

from db.errors import DatabaseUserError
from db.schema.tables import clips, sites, sources

_EARTH_RADIUS_KM = 6371.0088

Near = tuple[float, float, float]
"""Latitude and longitude in degrees, and the greatest distance in kilometres."""


def at_sites(names: Sequence[str], of: Any = sources) -> ColumnElement[bool]:
    """The condition that a source belongs to a site of one of the names."""
    its = sites.alias("asked_sites")
    return of.c.site_id.in_(select(its.c.id).where(its.c.name.in_(names)))  # type: ignore[no-any-return]


def is_near(near: Near, of: Any = sources) -> ColumnElement[bool]:
    """The condition that the site of a source is near a place; without one, what the file states.

    Raises:
        DatabaseUserError: it is no place, or no distance.
    """
    latitude, longitude, km = near
    if not (abs(latitude) <= 90 and abs(longitude) <= 180 and 0 < km < math.inf):
        raise DatabaseUserError(
            f"near {latitude:g}, {longitude:g} within {km:g} km: a latitude from -90 to 90, a "
            "longitude from -180 to 180 and a distance above 0 are needed"
        )
    # By other names, since the statement around may read these tables too.
    its, own = sites.alias("near_sites"), clips.alias("near_clips")
    return or_(
        of.c.site_id.in_(select(its.c.id).where(_within(near, its))),
        and_(of.c.site_id.is_(None), of.c.clip_id.in_(select(own.c.id).where(_within(near, own)))),
    )


def _within(near: Near, of: Any) -> ColumnElement[bool]:
    """By the haversine formula, after a look at the latitude, which an index has.

    There is no such look at the longitude, which would go wrong at 180 degrees and at the poles.
    """
    latitude, longitude, km = near
    half = km / _EARTH_RADIUS_KM / 2
    if half >= math.pi / 2:
        return of.c.latitude_deg.is_not(None)  # type: ignore[no-any-return]
    away = math.degrees(2 * half) * (1 + 1e-9)
    by_latitude = func.sin(func.radians(of.c.latitude_deg - latitude) / 2)
    by_longitude = func.sin(func.radians(of.c.longitude_deg - longitude) / 2)
    narrower = math.cos(math.radians(latitude)) * func.cos(func.radians(of.c.latitude_deg))
    part = by_latitude * by_latitude + narrower * by_longitude * by_longitude
    is_within: ColumnElement[bool] = part <= math.sin(half) ** 2
    return and_(of.c.latitude_deg.between(latitude - away, latitude + away), is_within)
