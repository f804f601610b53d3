"""Mixtures of the corpus with the teacher's logits, in shards that training reads.

A mixture is one patch: up to three sounds, each shifted in pitch, stretched, equalised and
levelled, added as energies, with gaps and noise. The teacher scores the mixture itself, rounded
to 8 bits as it is stored, so that no label is wrong because a sound was altered.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audioset_core.errors import UserError
from audioset_core.inference.engines import open_network
from audioset_core.inference.interface import ComputeOptions, Network, Precision
from audioset_core.models.registry import YAMNET
from audioset_core.scores.pooling import sigmoid
from audioset_core.weights.locate import prepare
from training.places import Places

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

PATCH_FRAMES, N_MELS = YAMNET.frontend.patch_frames, YAMNET.frontend.n_mels
LOG_OFFSET = YAMNET.frontend.log_offset
# Log-mel as 8 bits: from log(0.001) to 6.1, above which nothing within full scale comes.
_LOWEST, _STEP = -7.0, 0.0515
SHARD_PATCHES = 8192
_WINDOW_HOP_FRAMES = 96
_BATCH = 32


def as_bytes(log_mel: F32) -> U8:
    """Log-mel rounded to 8 bits, steps of 0.05."""
    return np.asarray(np.clip(np.rint((log_mel - _LOWEST) / _STEP), 0, 255), np.uint8)


def as_log_mel(stored: U8) -> F32:
    """The log-mel that the bytes stand for; also what the teacher heard."""
    return np.asarray(stored, np.float32) * np.float32(_STEP) + np.float32(_LOWEST)


class Teacher:
    """YAMNet, fixed batches on one core."""

    def __init__(self) -> None:
        # bfloat16 is twice as fast where the processor has it, and what it moves in scores is far
        # below what a student of this size can tell.
        try:
            self._network = self._opened("bf16")
        except UserError:
            self._network = self._opened("float32")

    @staticmethod
    def _opened(precision: Precision) -> Network:
        return open_network(
            YAMNET, prepare(YAMNET), ComputeOptions("cpu", precision=precision), n_lanes=1
        )

    def logits(self, patches: F32) -> F32:
        """Shape: ``[n, 96, 64]`` -> ``[n, 521]``."""
        size = self._network.batch_patches
        found = np.empty((len(patches), len(YAMNET.categories)), np.float32)
        batch = np.zeros((size, PATCH_FRAMES, N_MELS), np.float32)
        for at in range(0, len(patches), size):
            part = patches[at : at + size]
            batch[: len(part)] = part
            logits, _ = self._network.forward(batch)
            assert logits is not None
            found[at : at + size] = logits[: len(part)]
        return found


@dataclass(frozen=True, slots=True)
class Windows:
    """Places in the corpus where a patch may begin, and how much each is wanted."""

    frames: list[NDArray[np.float16]]
    """Memory maps, one a source."""
    source: NDArray[np.int32]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    """Where the window's clip ends in its source."""
    summed_chances: NDArray[np.float64]
    """Up to and with each window; the last is 1, but for roundings."""


def find_windows(
    places: Places, teacher: Teacher, *, is_held_out: bool, only_free: bool
) -> Windows:
    """Every window of the chosen sources, wanted by how rare its classes are.

    The teacher's scores of the windows are kept beside the frames.
    """
    frames: list[NDArray[np.float16]] = []
    source: list[int] = []
    start: list[int] = []
    end: list[int] = []
    scores: list[F32] = []
    for about_path in sorted(places.frames.glob("*.json")):
        about = json.loads(about_path.read_text())
        if about["is_held_out"] != is_held_out or (only_free and not about["is_free"]):
            continue
        stored = np.load(about_path.with_suffix(".npy"), mmap_mode="r")
        at = 0
        for length in about["lengths"]:
            for offset in range(0, max(1, length - PATCH_FRAMES // 2), _WINDOW_HOP_FRAMES):
                source.append(len(frames))
                start.append(at + offset)
                end.append(at + length)
            at += length
        frames.append(stored)
        n_new = sum(1 for number in reversed(source) if number == len(frames) - 1)
        scores.append(_scores(about_path, stored, start[-n_new:], end[-n_new:], teacher))
    probabilities = np.concatenate(scores)
    wanted = (probabilities.sum(axis=0) + 20) ** -0.6
    chances = (probabilities * wanted).max(axis=1) + 0.02 * wanted.max()
    return Windows(
        frames,
        np.array(source, np.int32),
        np.array(start),
        np.array(end),
        np.cumsum(chances / chances.sum()),
    )


def _scores(
    about: Path, frames: NDArray[np.float16], start: list[int], end: list[int], teacher: Teacher
) -> F32:
    """The teacher's scores of a source's windows."""
    kept = about.with_suffix(".scores.npy")
    if not kept.exists():
        logits = [
            teacher.logits(
                np.stack([_cut(frames, s, e) for s, e in zip(starts, ends, strict=True)])
            )
            for starts, ends in zip(_parts(start), _parts(end), strict=True)
        ]
        passing = kept.with_name(f".{kept.name}")
        with passing.open("wb") as file:
            np.save(file, sigmoid(np.concatenate(logits)).astype(np.float16))
        passing.rename(kept)
    return np.asarray(np.load(kept), np.float32)


def _parts(numbers: list[int], size: int = 1024) -> list[list[int]]:
    return [numbers[at : at + size] for at in range(0, len(numbers), size)]


def _cut(frames: NDArray[np.float16], start: int, end: int, length: int = PATCH_FRAMES) -> F32:
    """Frames from a start on, silence behind the clip's end."""
    out = np.full((length, N_MELS), np.log(LOG_OFFSET), np.float32)
    found = frames[start : min(end, start + length)]
    out[: len(found)] = found
    return out


def mixture(windows: Windows, rng: np.random.Generator) -> F32:
    """One patch. Shape: ``[96, 64]``, log-mel."""
    energy = np.zeros((PATCH_FRAMES, N_MELS), np.float32)
    for number in range(int(rng.choice([1, 2, 3], p=[0.55, 0.32, 0.13]))):
        at = int(np.searchsorted(windows.summed_chances, rng.random()))
        part = _altered(windows, min(at, len(windows.start) - 1), rng)
        level_db = rng.normal(-2, 7) if number == 0 else rng.normal(-7, 7)
        energy += part * np.float32(10 ** (np.clip(level_db, -30, 10) / 10))
    if rng.random() < 0.25:
        energy += _noise(rng)
    if rng.random() < 0.08:
        energy[: rng.integers(1, PATCH_FRAMES)] *= np.float32(10 ** -rng.uniform(1, 6))
    if rng.random() < 0.08:
        energy[rng.integers(1, PATCH_FRAMES) :] *= np.float32(10 ** -rng.uniform(1, 6))
    return np.asarray(np.log(energy + np.float32(LOG_OFFSET)))


def _altered(windows: Windows, at: int, rng: np.random.Generator) -> F32:
    """Energies of a window, moved, stretched, shifted in pitch and equalised."""
    frames, end = windows.frames[windows.source[at]], int(windows.end[at])
    start = int(windows.start[at]) + int(rng.integers(-48, 49))
    length = PATCH_FRAMES
    stretch = rng.uniform(0.75, 1.3) if rng.random() < 0.3 else 1.0
    length = round(PATCH_FRAMES * stretch)
    lead = max(0, -start)
    log_mel = _cut(frames, start + lead, end, length)
    if lead:
        log_mel = np.roll(log_mel, lead, axis=0)
    if end - start < PATCH_FRAMES and rng.random() < 0.7:  # a short sound, anywhere in the patch
        log_mel = np.roll(log_mel, int(rng.integers(0, PATCH_FRAMES)), axis=0)
    if length != PATCH_FRAMES:
        log_mel = log_mel[np.linspace(0, length - 1, PATCH_FRAMES).round().astype(int)]
    energy = np.maximum(np.exp(log_mel) - np.float32(LOG_OFFSET), 0)
    if rng.random() < 0.3:
        shift = int(rng.integers(-4, 5))
        energy = np.roll(energy, shift, axis=1)
        if shift > 0:
            energy[:, :shift] *= np.float32(0.1)
        elif shift < 0:
            energy[:, shift:] *= np.float32(0.1)
    if rng.random() < 0.4:
        bands = np.arange(N_MELS) / N_MELS
        curve_db = sum(
            rng.normal(0, 4) * np.cos(np.pi * k * bands + rng.uniform(0, 6)) for k in (0.5, 1, 2, 3)
        )
        energy *= np.asarray(10 ** (np.asarray(curve_db) / 10), np.float32)
    if rng.random() < 0.08:
        energy[:, rng.integers(20, N_MELS) :] *= np.float32(1e-3)
    if rng.random() < 0.05:
        energy[:, : rng.integers(1, 24)] *= np.float32(1e-3)
    return energy


def _noise(rng: np.random.Generator) -> F32:
    """Steady noise of any colour: a band's energy varies as a sum of a few squares."""
    bands = np.arange(N_MELS) / N_MELS
    level_db = rng.uniform(-60, -5) + rng.normal(0, 12) * bands + rng.normal(0, 5) * bands**2
    width = 2 + 6 * bands
    grain = rng.standard_gamma(np.broadcast_to(width, (PATCH_FRAMES, N_MELS))) / width
    return np.asarray(10 ** (level_db / 10) * grain, np.float32)


def make_shard(path: Path, windows: Windows, teacher: Teacher, seed: int, size: int) -> None:
    """Write one shard, ``patches`` as bytes and ``logits`` as float16, whole or not at all."""
    rng = np.random.default_rng(seed)
    patches = as_bytes(np.stack([mixture(windows, rng) for _ in range(size)]))
    logits = teacher.logits(as_log_mel(patches)).astype(np.float16)
    passing = path.with_name(f".{path.name}")
    with passing.open("wb") as file:
        np.savez(file, patches=patches, logits=logits)
    passing.rename(path)


def build(
    places: Places, part: str, n_shards: int, *, first_seed: int = 0, only_free: bool = False
) -> None:
    """Make the shards that are missing; ``part`` is ``train`` or ``held-out``."""
    folder = places.mixtures(part)
    folder.mkdir(parents=True, exist_ok=True)
    teacher = Teacher()
    windows = find_windows(places, teacher, is_held_out=part == "held-out", only_free=only_free)
    print(f"{part}: {len(windows.start)} windows", flush=True)
    for number in range(first_seed, first_seed + n_shards):
        path = folder / f"{number:05d}.npz"
        if not path.exists():
            make_shard(path, windows, teacher, number, SHARD_PATCHES)
            print(f"{part}: shard {number}", flush=True)
