"""The recordings that are labelled: generated, always the same, kept between runs.

Noise that swells and falls, with tones that come and go; every file another. A corpus of k files is
the first k of the larger one, so that nothing is made twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.processes import call

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RATE_HZ = 44_100
_BLOCK_S = 10.0  # libsndfile's Vorbis encoder does not take minutes at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """``n_files`` is the size that the project's targets name."""

    name: str
    title: str
    format: str
    subtype: str
    length_s: float
    n_files: int


CORPORA = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            name="short", title="5 s ogg", format="OGG", subtype="VORBIS",
            length_s=5.0, n_files=1_000,
        ),
        Corpus(
            name="wav", title="5 min wav", format="WAV", subtype="PCM_16",
            length_s=300.0, n_files=20,
        ),
        Corpus(
            name="flac", title="5 min flac", format="FLAC", subtype="PCM_16",
            length_s=300.0, n_files=20,
        ),
        Corpus(
            name="ogg", title="5 min ogg", format="OGG", subtype="VORBIS",
            length_s=300.0, n_files=20,
        ),
        Corpus(
            name="mp3", title="5 min mp3", format="MP3", subtype="MPEG_LAYER_III",
            length_s=300.0, n_files=20,
        ),
        Corpus(
            name="long", title="3 h flac", format="FLAC", subtype="PCM_16",
            length_s=3 * 3600.0, n_files=1,
        ),
    )
}  # fmt: skip


def default_folder() -> Path:
    """Where corpora are kept: ``AUDIOSET_BENCH_CORPORA``, or the user's cache."""
    chosen = os.environ.get("AUDIOSET_BENCH_CORPORA")
    return Path(chosen) if chosen else Path.home() / ".cache" / "audioset-flows" / "benchmarks"


def files_of(corpus: Corpus, n_files: int, folder: Path) -> list[Path]:
    """The first files of a corpus, made if they are missing, and read once into the page cache."""
    paths = [path_of(corpus, number, folder) for number in range(n_files)]
    if not all(path.exists() for path in paths):
        call("benchmarks.corpora:make", corpus.name, n_files, folder)
    for path in paths:
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass
    return paths


def make(name: str, n_files: int, folder: str) -> None:
    """Make the first files of a corpus, those that are not there yet."""
    corpus = CORPORA[name]
    for number in range(n_files):
        path = path_of(corpus, number, Path(folder))
        if not path.exists():
            write(
                path, sound(corpus.length_s, seed=number), samplerate=RATE_HZ, channels=2,
                format=corpus.format, subtype=corpus.subtype,
            )  # fmt: skip


def make_flac(path: str, length_s: float, seed: int, rate_hz: int, n_channels: int) -> None:
    """Make one FLAC file."""
    blocks = sound(length_s, seed=seed, rate_hz=rate_hz, n_channels=n_channels)
    write(Path(path), blocks, samplerate=rate_hz, channels=n_channels, format="FLAC")


def path_of(corpus: Corpus, number: int, folder: Path) -> Path:
    """Where a file of a corpus lies."""
    return folder / corpus.name / f"{number:05}.{corpus.format.lower()}"


def sound(
    length_s: float, *, seed: int, rate_hz: int = RATE_HZ, n_channels: int = 2
) -> Iterator[NDArray[np.float32]]:
    """Blocks ``[n, n_channels]`` of noise and tones within [-1, 1]."""
    import numpy as np

    rng = np.random.default_rng(seed)
    tone_hz = 200.0 + 40.0 * (seed % 50)
    n_samples, block_samples = round(length_s * rate_hz), round(_BLOCK_S * rate_hz)
    for start in range(0, n_samples, block_samples):
        count = min(block_samples, n_samples - start)
        time_s = np.arange(start, start + count) / rate_hz
        is_on = np.sin(time_s / 3 + seed) > 0
        tone = (0.3 * np.sin(2 * np.pi * tone_hz * time_s) * is_on).astype(np.float32)
        swell = (0.1 * np.abs(np.sin(time_s / 7))).astype(np.float32)
        noise = rng.standard_normal((count, n_channels), np.float32) * swell[:, None]
        yield (tone[:, None] + noise).clip(-1.0, 1.0)


def write(path: Path, blocks: Iterator[Any], **described: Any) -> None:
    """Write blocks as a sound file; one that is there is whole."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with soundfile.SoundFile(part, "w", **described) as file:
        for block in blocks:
            file.write(block)
    part.replace(path)
