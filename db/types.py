"""Column types that refuse what SQLite would store and PostgreSQL would not, or change.

Scores are integers of 1/10,000: 23 bytes a detection in SQLite instead of 37.
"""

# ruff: noqa: ARG002 - SQLAlchemy passes the dialect by this name
from __future__ import annotations

import hashlib
import json
import math
import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Double, SmallInteger, Text
from sqlalchemy.types import TypeDecorator

from db.errors import InvalidValueError

SCORE_SCALE = 10_000
"""Stored score steps in [0, 1]."""

STEPS_PER_PERCENT = SCORE_SCALE // 100
"""Kept counts (`db.totals`) are by hundredths of the score."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class UtcDateTime(TypeDecorator[datetime]):
    """Timezone-aware times, kept and returned in UTC; a naive one has no meaning here."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive values and convert to UTC."""
        if value is None:
            return None
        if value.utcoffset() is None:
            raise InvalidValueError(f"time without a time zone: {value!r}; give one with tzinfo")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Attach UTC where SQLite returns naive values."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class ScoreType(TypeDecorator[float]):
    """A score in [0, 1] stored as SMALLINT in steps of 1/10,000."""

    impl = SmallInteger
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> int | None:
        """Refuse NaN and values out of range."""
        if value is None:
            return None
        if not 0.0 <= value <= 1.0:  # also refuses NaN
            raise InvalidValueError(f"score {value!r} is not in [0, 1]")
        return round(value * SCORE_SCALE)

    def process_result_value(self, value: int | None, dialect: Dialect) -> float | None:
        """Return the score as a float."""
        return None if value is None else value / SCORE_SCALE


class FiniteFloat(TypeDecorator[float]):
    """A double; SQLite would turn NaN into NULL, so neither NaN nor infinity is stored."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        """Refuse what is not finite."""
        if value is not None and not math.isfinite(value):
            raise InvalidValueError(f"number {value!r} is not finite")
        return value


class CleanText(TypeDecorator[str]):
    """Text without NUL or lone surrogates, neither of which PostgreSQL stores."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Refuse NUL and lone surrogates."""
        if value is None or (value.isascii() and "\0" not in value):
            return value
        if "\0" in value:
            raise InvalidValueError(f"text with a NUL character: {value!r}")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidValueError(f"text that is not valid Unicode: {value!r}") from error
        return value


class CleanJson(TypeDecorator[Any]):
    """JSON; None is SQL NULL, and NaN (not JSON) is refused."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Refuse what is not JSON."""
        if value is not None:
            canonical_json(value)
        return value


def canonical_json(value: object) -> str:
    """One text per JSON value: sorted keys, no spaces, ASCII, no NaN.

    >>> canonical_json({"b": [1, 0.5], "a": None})
    '{"a":null,"b":[1,0.5]}'
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidValueError(f"not JSON: {error}") from error


def path_text(path: bytes) -> str:
    """A path as one line of readable text: invalid UTF-8 and control characters escaped.

    >>> print(path_text(b"/data/site 3/a\\nb\\xff.wav"))
    /data/site 3/a\\x0ab\\xff.wav
    """
    text = path.decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)


def path_digest(path: bytes) -> bytes:
    """The key of a path in `sources`, shape: 16 bytes."""
    return hashlib.blake2b(path, digest_size=16).digest()
