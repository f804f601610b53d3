"""The cards of a small field campaign, as three recorders would have left them.

``python -m tests.field_campaign cards`` writes them; `docs/field-campaign.md` goes on from there.
The sounds are those of `audioset demo`, over a hiss; each card is one minute an hour:

- ``north-wood``: an AudioMoth, which writes UTC and its serial number into a comment;
- ``pond``: a stereo recorder that writes GUANO, through the night in which the clocks go back. Its
  right microphone is dead;
- ``meadow``: a recorder that knows local time alone, and tells it in the names. Its card was pulled
  out while the last file was written, and holds the first bytes of one more.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import guano
import numpy as np
import soundfile

from audioset_core.arrays import F64
from audioset_core.demo_sounds import DEMO_SOUNDS

RATE_HZ = 48_000
MOTH, POND = "24F319016037092A", "S4A01234"
PLACES = {"North wood": (48.1010, 11.4010), "Pond": (48.1205, 11.4322), "Meadow": (48.0899, 11.44)}
"""Latitude and longitude in degrees."""
_MAKERS = {Path(sound.file_name).stem: sound.make for sound in DEMO_SOUNDS}

_WOOD = [(16, "rain"), (17, "rain"), (18, "crickets"), (19, "crickets"), (20, ""), (21, "")]
"""(hour in UTC on 24 October 2026, what is heard)."""
_POND = [(22, "crickets"), (23, "crickets"), (24, ""), (25, "crickets")]
_MEADOW = [("20261025_013000", "helicopter"), ("20261025_023000", "crickets"),
           ("20261025_033000", "crickets"), ("20261025_053000", "rain")]  # fmt: skip
"""(the name, what is heard); the clocks go back at 03:00 local time."""


def write_cards(folder: Path, minute_s: float = 60.0) -> None:
    """Write the three cards below the folder; recordings of `minute_s` seconds."""
    day = datetime(2026, 10, 24, tzinfo=UTC)
    cards = {name: folder / name for name in ("north-wood", "pond", "meadow")}
    for card in cards.values():
        card.mkdir(parents=True, exist_ok=True)
    for hour, name in _WOOD:
        _audiomoth(cards["north-wood"], day + timedelta(hours=hour), _heard(name, hour, minute_s))
    for hour, name in _POND:
        _guano(cards["pond"], day + timedelta(hours=hour, minutes=30), _heard(name, hour, minute_s))
    for hour, (start, name) in enumerate(_MEADOW):
        path = cards["meadow"] / f"{start}.wav"
        soundfile.write(path, _heard(name, 100 + hour, minute_s), RATE_HZ, "PCM_16")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    (cards["meadow"] / "20261025_063000.wav").write_bytes(data[:36])


def _heard(name: str, seed: int, minute_s: float) -> F64:
    """A hiss at -50 dBFS, and for 8 seconds from a third of the time on the sound."""
    rng = np.random.default_rng(seed)
    heard = rng.normal(0, 10 ** (-50 / 20), round(minute_s * RATE_HZ))
    if name:
        sound = _MAKERS[name](np.arange(8 * RATE_HZ) / RATE_HZ, rng)
        start = len(heard) // 3
        heard[start : start + len(sound)] += 0.4 * sound / np.abs(sound).max()
    return heard


def _audiomoth(card: Path, start: datetime, samples: F64) -> None:
    """What the firmware of an AudioMoth writes, by libsndfile."""
    path = card / f"{start:%Y%m%d_%H%M%S}.WAV"
    with soundfile.SoundFile(path, "w", RATE_HZ, 1, "PCM_16", format="WAV") as file:
        file.artist = f"AudioMoth {MOTH}"
        file.comment = (
            f"Recorded at {start:%H:%M:%S %d/%m/%Y} (UTC) by AudioMoth {MOTH} at medium gain "
            f"while battery was 4.1V and temperature was {12 - start.hour / 8:.1f}C."
        )
        file.write(samples)


def _guano(card: Path, start: datetime, samples: F64) -> None:
    """GUANO, by its reference implementation; the second channel is dead."""
    clock = timezone(timedelta(hours=2 if start < datetime(2026, 10, 25, 1, tzinfo=UTC) else 1))
    local = start.astimezone(clock)
    path = card / f"SM_{local:%Y%m%d_%H%M%S%z}.wav".replace("+", "p")
    soundfile.write(path, np.column_stack([samples, np.zeros_like(samples)]), RATE_HZ, "PCM_16")
    file = guano.GuanoFile(str(path))
    file["GUANO|Version"] = 1.0
    file["Timestamp"] = local
    file["Loc Position"] = PLACES["Pond"]
    file["Make"], file["Model"], file["Serial"] = "Wildlife Acoustics", "SM4", POND
    file.write(make_backup=False)


if __name__ == "__main__":
    write_cards(Path(sys.argv[1]))
