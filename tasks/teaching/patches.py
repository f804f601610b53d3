"""Patches of the collection in memory, to be ranked while a person teaches; of many a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from audioset_core.arrays import F32
from audioset_core.errors import AudioError
from audioset_core.storage.score_files import read_scores
from audioset_core.teaching.choice import Places
from db.score_files.labelled import ScoredClip
from db.score_files.teachable import (
    EmbeddedModel,
    count_patches,
    embedded_labellings,
    iter_clips,
)

MOST_NUMBERS = 200_000 * 1024
"""Of all patches together, in memory: 0.8 GB; 200,000 patches of YAMNet, 1,600,000 of VGGish."""
MOST_CLIPS = 20_000
"""Files that are read; beyond, random recordings stand for all."""

Numbers = npt.NDArray[np.intp]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Patches:
    """Patches of a model's embeddings; those of one recording lie together, in their order.

    Shape:
        rows: [n, dim] float32; lengths: [n] float32, of the rows
        first: [n_clips + 1], where the rows of each recording begin, and the end
    """

    base: EmbeddedModel
    rows: F32
    lengths: F32
    places: Places
    clips: tuple[ScoredClip, ...]
    first: Numbers
    n_all: int
    """Patches of the whole collection."""
    n_unread: int
    """Recordings whose file is missing or damaged."""

    def clip_of(self, number: int) -> ScoredClip:
        """The recording of a patch."""
        return self.clips[int(self.places.recordings[number])]

    def span_s(self, number: int) -> tuple[float, float]:
        """From when to when a patch sounds, in its recording."""
        clip = self.clip_of(number)
        start_s = int(self.places.patches[number]) * clip.patch_hop_s
        return start_s, min(clip.duration_s, start_s + clip.window_s)


def read_patches(
    engine: Engine, home: Path, base: EmbeddedModel, progress: Progress | None = None, seed: int = 0
) -> Patches:
    """The embeddings of the base: all, or random ones of as many recordings as can be.

    `progress` is called with (recordings read, all that will be).
    """
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.array(embedded_labellings(engine, base.model_id), dtype=np.int64))
    known = list(iter_clips(engine, [int(key) for key in ids[:MOST_CLIPS]]))
    width = next((clip.embedding_dim for clip in known if clip.embedding_dim), 1)
    sizes = [clip.n_patches or 0 for clip in known]
    most = _most_of_each(sizes, MOST_NUMBERS // width)
    rows = np.empty((sum(min(most, size) for size in sizes), width), dtype=np.float32)
    clips: list[ScoredClip] = []
    patches: list[Numbers] = []
    end = 0
    for n_seen, (clip, size) in enumerate(zip(known, sizes, strict=True), 1):
        which = np.arange(size)
        if size > most:
            which = np.sort(rng.choice(size, most, replace=False))
        try:
            stored = read_scores(home / (clip.embeddings_path or ""), mmap=True)
            if stored.shape != (size, width):
                continue
            rows[end : end + len(which)] = stored[which]
        except (AudioError, OSError):
            continue  # `audioset verify` tells of every such file
        clips.append(clip)
        patches.append(which)
        end += len(which)
        if progress is not None:
            progress(n_seen, len(known))
    counts = [len(which) for which in patches]
    reach = [max(1, round(clip.window_s / clip.patch_hop_s)) for clip in clips]
    return Patches(
        base, rows[:end], np.sqrt(np.einsum("ij,ij->i", rows[:end], rows[:end])),
        Places(
            np.repeat(np.arange(len(clips)), counts),
            np.concatenate([*patches, np.empty(0, dtype=np.intp)]).astype(np.intp),
            np.repeat(np.array(reach, dtype=np.intp), counts),
        ),
        tuple(clips), np.cumsum([0, *counts]), count_patches(engine, base.model_id),
        len(known) - len(clips),
    )  # fmt: skip


def _most_of_each(sizes: Sequence[int], most: int) -> int:
    """The largest number that each may have at most, so that all together have at most `most`.

    >>> _most_of_each([1, 2, 9, 9], 9), _most_of_each([1, 2], 9)
    (3, 2)
    """
    left, n_left = most, len(sizes)
    for size in sorted(sizes):
        if size * n_left > left:
            return left // n_left
        left -= size
        n_left -= 1
    return max(sizes, default=0)
