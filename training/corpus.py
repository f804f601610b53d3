"""Sounds to log-mel frames: every source once as it is, and in altered copies.

Frames are stored as float16 with the project's own front end at a hop of 10 ms, so that mixtures
can be made by adding energies. A source is a folder of sound files, or one recipe of `synthesis`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from audioset_core.features.config import YAMNET
from audioset_core.features.log_mel import log_mel
from training import synthesis
from training.fetch import read_packages, sound_files
from training.places import Places

F32 = NDArray[np.float32]

RATE_HZ = YAMNET.sample_rate_hz
_LONGEST_S = 45.0
"""Of a longer file a stretch of this length is taken, from anywhere in it."""
_SOURCE_S = 3000.0
"""At most this much of one source, altered copies not counted, so that none outweighs the rest."""
_N_ALTERED = 2
_N_MADE, _MADE_S = 130, 6.0
"""Sounds of each recipe, and their length."""


@dataclass(frozen=True, slots=True)
class Source:
    """What one folder of sounds, or one recipe, gives."""

    name: str
    is_free: bool
    is_held_out: bool
    recipe: synthesis.Make | None = None


def sources(places: Places) -> list[Source]:
    """Every source whose sounds are there."""
    found = [
        Source(package.name, package.terms == "free", package.is_held_out)
        for package in read_packages()
        if (places.sounds / package.name).is_dir()
    ]
    found += [
        Source(name, is_free=True, is_held_out=False)
        for name in ("espeak-ng", "flite", "fluidsynth")
        if (places.sounds / name).is_dir()
    ]
    for number, recipe in enumerate(synthesis.RECIPES):
        name = f"made-{number:02d}-{recipe.__name__.replace('_', '-')}"
        found.append(Source(name, is_free=True, is_held_out=False, recipe=recipe))
    return found


def build(places: Places, part: int = 0, n_parts: int = 1) -> None:
    """Frames of every source that has none yet; one of several processes takes one part."""
    places.frames.mkdir(parents=True, exist_ok=True)
    for number, source in enumerate(sources(places)):
        target = places.frames / f"{source.name}.npy"
        if number % n_parts != part or target.exists():
            continue
        rng = np.random.default_rng(zlib.crc32(source.name.encode()))
        frames, lengths, seconds = _frames(source, places, rng)
        if not frames:
            print(f"{source.name}: no sound that can be read", flush=True)
            continue
        about: dict[str, Any] = {
            "lengths": lengths,
            "hours": seconds / 3600,
            "is_free": source.is_free,
            "is_held_out": source.is_held_out,
        }
        target.with_suffix(".json").write_text(json.dumps(about))
        passing = target.with_name(f".{target.name}")
        with passing.open("wb") as file:
            np.save(file, np.concatenate(frames).astype(np.float16))
        passing.rename(target)
        print(f"{source.name}: {len(lengths)} clips, {seconds / 60:.1f} min", flush=True)


def _frames(
    source: Source, places: Places, rng: np.random.Generator
) -> tuple[list[F32], list[int], float]:
    frames: list[F32] = []
    lengths: list[int] = []
    seconds = 0.0
    for samples in _sounds(source, places, rng):
        if len(samples) < RATE_HZ // 20 or np.abs(samples).max() < 1e-4:
            continue
        seconds += len(samples) / RATE_HZ
        for copy in range(1 + _N_ALTERED):
            heard = samples if copy == 0 else altered(samples, rng)
            frames.append(log_mel(heard, YAMNET)[: -(-len(heard) // YAMNET.frame_hop_samples)])
            lengths.append(len(frames[-1]))
        if seconds > _SOURCE_S:
            break
    return frames, lengths, seconds


def _sounds(source: Source, places: Places, rng: np.random.Generator) -> Iterator[F32]:
    if source.recipe is not None:
        for _ in range(_N_MADE):
            yield synthesis.make(source.recipe, rng, _MADE_S)
        return
    files = sound_files(places.sounds / source.name)
    rng.shuffle(files)
    for path in files:
        found = _read(path, rng)
        if found is not None:
            yield found


def _read(path: Path, rng: np.random.Generator) -> F32 | None:
    """Mono at 16 kHz, at most `_LONGEST_S` of it; None where libsndfile does not read the file."""
    try:
        with soundfile.SoundFile(path) as file:
            room = file.frames / file.samplerate - _LONGEST_S
            if room > 0 and file.seekable():
                file.seek(int(rng.uniform(0, room) * file.samplerate))
            samples = file.read(int(_LONGEST_S * file.samplerate), "float32", always_2d=True)
            rate_hz = file.samplerate
    except (soundfile.LibsndfileError, RuntimeError, TypeError):
        return None
    mono = samples.mean(axis=1)
    if not len(mono) or not np.isfinite(mono).all():
        return None
    return np.asarray(soxr.resample(mono, rate_hz, RATE_HZ), np.float32)


def altered(samples: F32, rng: np.random.Generator) -> F32:
    """The sound at another speed, and perhaps in a room, or cut off at a level."""
    speed = float(np.exp(rng.uniform(np.log(0.75), np.log(1.33))))
    heard = np.asarray(soxr.resample(samples, RATE_HZ * speed, RATE_HZ, "MQ"), np.float32)
    if rng.random() < 0.4:
        tail_s = np.arange(int(rng.uniform(0.05, 0.8) * RATE_HZ)) / RATE_HZ
        tail = rng.standard_normal(len(tail_s)) * np.exp(-rng.uniform(4, 40) * tail_s)
        tail *= rng.uniform(0.1, 0.8) / max(float(np.sqrt((tail**2).sum())), 1e-9)
        n_fft = 1 << (len(heard) + len(tail)).bit_length()
        echo = np.fft.irfft(np.fft.rfft(heard, n_fft) * np.fft.rfft(tail, n_fft), n_fft)
        heard = np.asarray(heard + echo[: len(heard)], np.float32)
    if rng.random() < 0.1:
        limit = np.abs(heard).max() * rng.uniform(0.1, 0.6)
        heard = heard.clip(-limit, limit)
    return heard
