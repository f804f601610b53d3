"""What counts as a voice, from which score on, and what becomes of the sound there.

The values were chosen with `benchmarks/redaction.py`; docs/redaction.md has the measured figures.
"""

from __future__ import annotations

from dataclasses import dataclass

VOICE_CLASSES = (
    "Human voice", "Chatter", "Crowd", "Hubbub, speech noise, speech babble", "Children playing",
)  # fmt: skip
"""With all below them. Human voice has speech, shouts, whispers, laughter, crying and singing."""
FADE_S = 0.01
"""At both ends of a span, inside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """``low_pass_hz``: None for silence. `also`: MIDs of further classes."""

    label_score: float = 0.1
    voice_probability: float = 0.2
    padding_s: float = 0.5
    low_pass_hz: float | None = None
    also: tuple[str, ...] = ()
