"""Rules for alerts in words: as people write them, and as they are shown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches

from sqlalchemy import Engine

from audioset_core.errors import UserError
from db.alerts.rules import DAY_S, AlertRule
from flows.asking import ontology_of

_MOST_LETTERS = 60
_LONGEST_S = 36_500 * DAY_S  # dates end
_DURATION = re.compile(r"(\d+(?:\.\d+)?) *(s|min|h|d|w)")
_UNITS_S = {"w": 7 * DAY_S, "d": DAY_S, "h": 3_600.0, "min": 60.0, "s": 1.0}
_NEVER = ("", "any")
SHOWN_STATES = {
    "waiting": "to be told",
    "told": "told",
    "summed": "told as one of many",
    "quiet": "not told: another one was lately",
    "old": "not told: recorded too long ago",
    "judged": "not told: judged absent",
}
"""What is said of an alert in each state."""


def clean_name(text: str) -> str:
    """A rule's name on one line.

    Raises:
        UserError: it is empty or too long, or has signs that mean something to Prefect.
    """
    name = _on_one_line(text)
    # Vowel signs of many scripts are marks.
    are_allowed = all(unicodedata.category(sign)[0] in "LMN" or sign in " _-." for sign in name)
    if not are_allowed or len(name) > _MOST_LETTERS or not name[:1].isalnum():
        raise UserError(
            f"{text!r}: the name of an alert has up to {_MOST_LETTERS} letters, digits, blanks, - "
            "_ and ., and begins with a letter or digit"
        )
    return name


def find_rule(rules: Sequence[AlertRule], name: str) -> AlertRule:
    """The rule of that name, whatever its case.

    Raises:
        UserError: there is none; the line names the nearest.
    """
    by_key = {rule.name.casefold(): rule for rule in rules}
    key = _on_one_line(name).casefold()
    if found := by_key.get(key):
        return found
    if not rules:
        raise UserError(f"unknown alert {name!r}: there are none yet; audioset alerts add")
    close = get_close_matches(key, by_key, n=3, cutoff=0.4) or list(by_key)[:3]
    raise UserError(f"unknown alert {name!r}; nearest: {', '.join(by_key[k].name for k in close)}")


def seconds(option: str, text: str) -> float | None:
    """A stretch of time; None for '' and any.

    Raises:
        UserError: it is none.
    """
    if text in _NEVER:
        return None
    match = _DURATION.fullmatch(text.strip())
    stretch_s = float(match[1]) * _UNITS_S[match[2]] if match else 0.0
    if not 0.0 < stretch_s <= _LONGEST_S:
        raise UserError(
            f"{option} {text[:40]!r}: write a number and a unit, such as 30min, 24h or 7d, up to a "
            "hundred years"
        )
    return stretch_s


def asks_for(engine: Engine, rule: AlertRule) -> str:
    """What a rule asks for, in words."""
    asked, known = rule.question, ontology_of(engine).nodes
    names = (known[mid].name if mid in known else f"{mid} (removed)" for mid in asked.under)
    near = asked.near and f"within {asked.near[2]:g} km of {asked.near[0]:g}, {asked.near[1]:g}"
    span = asked.span and f"{_of_day(asked.span.from_ms)} to {_of_day(asked.span.to_ms)}"
    parts = (
        f"{' or '.join(names)} at {asked.min_score:g} or above",
        asked.min_duration_s and f"for {asked.min_duration_s:g} s",
        "at a removed site" if rule.lacks_site else "",
        asked.sites and f"at {' or '.join(asked.sites)}",
        near,
        asked.paths and f"in {' or '.join(asked.paths)}",
        asked.sun and f"by {' or '.join(asked.sun)}",
        span,
        asked.model and f"by {asked.model}",
    )
    return ", ".join(part for part in parts if part)


def tells(rule: AlertRule) -> str:
    """Which of a rule's sounds are told, in words."""
    within_s = rule.recorded_within_s
    parts = (
        f"the first in each {rule.first_in}" if rule.first_in else "",
        f"one per {_duration(rule.one_per_s)}" if rule.one_per_s else "",
        "however old" if within_s is None else f"recorded within {_duration(within_s)}",
    )
    return ", ".join(part for part in parts if part)


def _on_one_line(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _duration(seconds: float) -> str:
    """Seconds in the largest unit that leaves no fraction: ``7200`` -> ``2h``."""
    unit = next((unit for unit in ("d", "h", "min") if seconds % _UNITS_S[unit] == 0), "s")
    return f"{seconds / _UNITS_S[unit]:g}{unit}"


def _of_day(of_day_ms: int) -> str:
    minutes = of_day_ms // 60_000
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
