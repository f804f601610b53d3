"""Places and days as people write them, and the distance between two places.

Source: the haversine formula, on a sphere of the Earth's mean radius (IUGG: 6371.0088 km).
"""

from __future__ import annotations

import math
import re
from datetime import date

from audioset_core.errors import UserError

EARTH_RADIUS_KM = 6371.0088

_LETTERS = {"latitude": ("NS", 90), "longitude": ("EW", 180)}
_NUMBER = r"\d+(?:\.\d+)?"
_DEGREES = re.compile(
    rf"([NSEWO])? ?([+-]?{_NUMBER}) ?°? ?(?:({_NUMBER}) ?'? ?(?:({_NUMBER}) ?(?:\"|'')?)?)?"
    r" ?([NSEWO])?"
)
# Minus and dash; degree signs; apostrophes, primes and quotation marks.
_SAME = str.maketrans(
    "\u2212\u2013\u00ba\u02da\u2019\u2018\u2032\u201d\u2033", "--\u00b0\u00b0'''\"\""
)
_DAY = re.compile(r"(\d{4})[-/.](\d\d?)[-/.](\d\d?)(?:[T ]00:00(?::00(?:\.0+)?)?)?")
_DAY_LAST = re.compile(r"(\d\d?)\.(\d\d?)\.(\d{4})")


def degrees(text: str, of: str) -> float:
    """A latitude or longitude in degrees, as a decimal number or in degrees, minutes, seconds.

    >>> degrees("52,5", "latitude"), degrees("13°24'36\\" W", "longitude")
    (52.5, -13.41)

    Raises:
        UserError: it is none; `of` ("latitude", "longitude") is named.
    """
    letters, most = _LETTERS[of]
    plain = re.sub(r"(\d),(\d)", r"\1.\2", " ".join(text.translate(_SAME).upper().split()))
    match = _DEGREES.fullmatch(plain)
    allowed = f"write it as 52.5, 52,5 or 52°30'00\"{letters[0]}"
    if match is None or (match[1] and match[5]):
        raise UserError(f"the {of} {text!r} is not understood; {allowed}")
    letter = match[1] or match[5] or ""
    if letter == "O":
        raise UserError(f"the {of} {text!r}: O is east in German and west in French; write E or W")
    if letter and letter not in letters:
        other = next(name for name in _LETTERS if name != of)
        raise UserError(f"the {of} {text!r} is a {other}: are the two swapped?")
    minutes, seconds = float(match[3] or 0), float(match[4] or 0)
    size = abs(float(match[2])) + minutes / 60 + seconds / 3600
    if size > most or minutes >= 60 or seconds >= 60:
        swapped = " (are latitude and longitude swapped?)" if most < size <= 180 else ""
        raise UserError(f"the {of} {text!r} is not in -{most} to {most} degrees{swapped}")
    is_negative = match[2].startswith("-") or letter in ("S", "W")
    return round(-size if is_negative else size, 8)


def place(latitude: str, longitude: str) -> tuple[float, float]:
    """A latitude and a longitude in degrees.

    Raises:
        UserError: one is none, or both are 0, as receivers without a position write.
    """
    found = degrees(latitude, "latitude"), degrees(longitude, "longitude")
    if found == (0, 0):
        raise UserError("the place 0, 0 is what receivers write that have no position")
    return found


def place_in(text: str) -> tuple[float, float]:
    """A latitude and a longitude that stand in one text.

    >>> place_in("52.5,13.4"), place_in("52,5; 13,4")
    ((52.5, 13.4), (52.5, 13.4))

    Raises:
        UserError: as `place`, or these are not two.
    """
    for between in (r"\s*;\s*", r",\s+", ",", r"\s+"):
        parts = re.split(between, text.strip())
        if len(parts) == 2:
            return place(*parts)
    raise UserError(f"{text!r} is not a latitude and a longitude; write 52.5,13.4")


def day(text: str) -> str:
    """A day in ISO 8601, such as 2024-05-18.

    >>> day("18.5.2024"), day("2024-05-18 00:00:00")
    ('2024-05-18', '2024-05-18')

    Raises:
        UserError: it is no day, or may be two (5/6/2024).
    """
    plain = text.strip()
    first, last = _DAY.fullmatch(plain), _DAY_LAST.fullmatch(plain)
    parts = first.groups() if first else last.groups()[::-1] if last else ()
    try:
        return date(*map(int, parts)).isoformat()
    except (ValueError, TypeError):
        raise UserError(f"{text!r} is not a day; write 2024-05-18") from None


def distance_km(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Between two places, each (latitude, longitude) in degrees.

    >>> round(distance_km((52.5, 13.4), (48.1, 11.6)))
    506
    """
    lat_a, lat_b = math.radians(a[0]), math.radians(b[0])
    half = math.radians(b[1] - a[1]) / 2
    part = math.sin((lat_b - lat_a) / 2) ** 2
    part += math.cos(lat_a) * math.cos(lat_b) * math.sin(half) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(part)))
