"""Sounds that free programs make: speech by espeak-ng and flite, music by fluidsynth.

The text is nonsense of our own, the music random MIDI of our own; the sound fonts are MIT.
"""

from __future__ import annotations

import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np

from training.fetch import read_packages
from training.places import Places

_SYLLABLES = (
    "ba", "be", "do", "da", "fi", "ga", "go", "hu", "ka", "ki", "la", "lo", "ma", "me", "mi", "na",
    "no", "pa", "pe", "ra", "re", "ro", "sa", "si", "so", "ta", "te", "to", "va", "wo", "ya", "zu",
    "sha", "cho", "the", "and", "in", "er", "on", "at", "ing", "ar", "en", "ly",
)  # fmt: skip
_ESPEAK_VOICES = (
    "en-us", "en-gb", "en-gb-scotland", "de", "fr", "es", "it", "pt-br", "ru", "pl", "nl", "sv",
    "da", "fi", "hu", "tr", "el", "cmn", "ja", "ko", "hi", "ar", "sw", "vi",
)  # fmt: skip
_ESPEAK_VARIANTS = ("", "+m1", "+m3", "+m7", "+f1", "+f2", "+f4", "+f5", "+croak", "+whisper")
_FLITE_VOICES = ("kal", "kal16", "awb", "rms", "slt")
_N_SPEECH, _N_MUSIC = 700, 680
_TICKS = 480
_DRUM_CHANNEL = 9


def make_speech(places: Places) -> None:
    """Speech of many voices, languages, pitches and speeds, a few seconds each."""
    if shutil.which("espeak-ng") is None or shutil.which("flite") is None:
        raise SystemExit("install Debian's espeak-ng and flite")
    for name in ("espeak-ng", "flite"):
        folder = places.sounds / name
        if folder.exists():
            continue
        passing = _passing(folder)
        rng = _rng(name)
        for number in range(_N_SPEECH):
            target = passing / f"{number:05d}.wav"
            if name == "espeak-ng":
                voice = rng.choice(_ESPEAK_VOICES) + rng.choice(_ESPEAK_VARIANTS)
                line = ["espeak-ng", "-v", voice, "-s", str(rng.integers(90, 300)),
                        "-p", str(rng.integers(0, 99)), "-w", str(target)]  # fmt: skip
            else:
                stretch = f"duration_stretch={rng.uniform(0.7, 1.5):.2f}"
                pitch = f"int_f0_target_mean={rng.integers(80, 260)}"
                line = ["flite", "-voice", rng.choice(_FLITE_VOICES), "--setf", stretch,
                        "--setf", pitch, "-o", str(target), "-t"]  # fmt: skip
            subprocess.run([*line, _text(rng)], check=False, capture_output=True)
        passing.rename(folder)


def make_music(places: Places) -> None:
    """Random music for every General MIDI programme and drum kit, from the fetched sound fonts."""
    if shutil.which("fluidsynth") is None:
        raise SystemExit("install Debian's fluidsynth")
    fonts = [
        font
        for package in read_packages()
        if package.terms == "free"
        for font in sorted((places.sounds / package.name).glob("*.sf2"))
    ]
    folder = places.sounds / "fluidsynth"
    if folder.exists() or not fonts:
        return
    passing = _passing(folder)
    rng = _rng("fluidsynth")
    midi = passing / "passing.mid"
    for number in range(_N_MUSIC):
        midi.write_bytes(random_midi(rng, number % 136))
        subprocess.run(
            ["fluidsynth", "-ni", "-q", "-r", "22050", "-g", "0.6", "-F",
             str(passing / f"{number:05d}.wav"), str(fonts[number % len(fonts)]), str(midi)],
            check=False, capture_output=True,
        )  # fmt: skip
    midi.unlink()
    passing.rename(folder)


def random_midi(rng: np.random.Generator, programme: int) -> bytes:
    """A piece of about ten seconds for one programme; from 128 on, for drums.

    Source: Standard MIDI Files 1.0, format 0.
    """
    is_drums = programme >= 128
    channel = _DRUM_CHANNEL if is_drums else 0
    events: list[tuple[int, bytes]] = []
    if not is_drums:
        events.append((0, bytes([0xC0 | channel, programme])))
    step = int(_TICKS * rng.choice([0.25, 0.5, 0.5, 1, 2]))
    root, scale = int(rng.integers(40, 76)), (0, 2, 4, 5, 7, 9, 11, 12, 14, 16)
    at = 0
    while at < 20 * _TICKS:
        for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
            note = int(rng.integers(35, 82)) if is_drums else root + int(rng.choice(scale))
            loud = int(rng.integers(50, 127))
            length = int(step * rng.uniform(0.3, 2.5))
            events.append((at, bytes([0x90 | channel, note, loud])))
            events.append((at + length, bytes([0x80 | channel, note, 0])))
        at += step
    track = b"\x00\xff\x51\x03" + int(60e6 / rng.integers(70, 190)).to_bytes(3, "big")
    before = 0
    for tick, event in sorted(events, key=lambda event: event[0]):
        track += _variable(tick - before) + event
        before = tick
    track += b"\x00\xff\x2f\x00"
    header = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1]) + _TICKS.to_bytes(2, "big")
    return header + b"MTrk" + len(track).to_bytes(4, "big") + track


def _variable(number: int) -> bytes:
    """A number in groups of seven bits, all but the last marked."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(0x80 | (number & 0x7F))
    return bytes(reversed(groups))


def _text(rng: np.random.Generator) -> str:
    words = (
        "".join(rng.choice(_SYLLABLES, rng.integers(1, 4))) for _ in range(rng.integers(3, 14))
    )
    return " ".join(words).capitalize() + str(rng.choice([".", "!", "?"]))


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def _passing(folder: Path) -> Path:
    passing = folder.with_name(f".{folder.name}")
    shutil.rmtree(passing, ignore_errors=True)
    passing.mkdir(parents=True)
    return passing
