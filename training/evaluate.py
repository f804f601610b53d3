"""Judge finished weights on sounds that training never met: the demo's, and ESC-10's.

Nothing here may choose between models or end a training: the held-out mixtures do.
"""

from __future__ import annotations

import csv
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from audioset_core.demo_sounds import write_demo
from audioset_core.features.log_mel import log_mel, patches
from audioset_core.inference.engines import open_network
from audioset_core.inference.interface import ComputeOptions, Network
from audioset_core.models.registry import POCKET, YAMNET, ModelBundle
from audioset_core.scores.pooling import sigmoid
from audioset_core.weights.locate import prepare
from training.measures import AUDIBLE, Agreement, compare
from training.mixtures import as_log_mel
from training.places import Places

F32 = NDArray[np.float32]
_SPEED_PATCHES, _SPEED_ROUNDS = 1024, 9


@dataclass(frozen=True, slots=True)
class Clip:
    """One sound with the classes that would be right, and its category where it has one."""

    path: Path
    expected: frozenset[int]
    category: str = ""


class Model:
    """A model on one core."""

    def __init__(self, bundle: ModelBundle, weights: Path | None = None) -> None:
        self.bundle = bundle
        self.network: Network = open_network(
            bundle, prepare(bundle, weights), ComputeOptions("cpu"), n_lanes=1
        )

    def logits(self, frames: F32) -> F32:
        """Shape: patches ``[n, 96, 64]`` -> ``[n, 521]``."""
        size = self.network.batch_patches
        batch = np.zeros((size, *frames.shape[1:]), np.float32)
        found = []
        for at in range(0, len(frames), size):
            part = frames[at : at + size]
            batch[: len(part)] = part
            logits, _ = self.network.forward(batch)
            assert logits is not None
            found.append(logits[: len(part)])
        return np.concatenate(found)

    def scores(self, path: Path) -> F32:
        """Scores of every patch of a file. Shape: ``[n_patches, 521]``."""
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        config = self.bundle.frontend
        mono = soxr.resample(samples.mean(axis=1), rate_hz, config.sample_rate_hz)
        return sigmoid(self.logits(patches(log_mel(np.asarray(mono, np.float32), config), config)))


def evaluate(places: Places, weights: Path | None = None) -> None:
    """Print every figure that the model card names.

    ESC-10's clips are read from ``AUDIOSET_ASSETS`` and left out where that is not set.
    """
    teacher, student = Model(YAMNET), Model(POCKET, weights)
    shards = sorted(places.mixtures("held-out").glob("[0-9]*.npz"))
    if shards:
        shard = np.load(shards[0])
        found = sigmoid(student.logits(as_log_mel(shard["patches"])))
        print(f"held-out mixtures: {compare(found, sigmoid(shard['logits'].astype(np.float32)))}")
    with tempfile.TemporaryDirectory() as folder:
        clips = list(_demo(Path(folder)))
        _judge_demo(clips, student)
    assets = os.environ.get("AUDIOSET_ASSETS")
    if assets:
        _judge_esc(list(_esc(Path(assets) / "esc10-dev")), teacher, student)
    print(f"speed against yamnet's, one core, float32: {speed_ratio(teacher, student):.1f}")


def classes(places: Places, weights: Path | None = None) -> str:
    """The student against its teacher, class by class, on all held-out mixtures: a Markdown table.

    Of each class: patches to which the teacher gives 0.1 or more, and there the mean score of the
    teacher and of the student, and the mean absolute difference.
    """
    student = Model(POCKET, weights)
    scores, taught = [], []
    for path in sorted(places.mixtures("held-out").glob("[0-9]*.npz")):
        shard = np.load(path)
        scores.append(sigmoid(student.logits(as_log_mel(shard["patches"]))))
        taught.append(sigmoid(shard["logits"].astype(np.float32)))
    found, teacher = np.concatenate(scores), np.concatenate(taught)
    rows = []
    for category in POCKET.categories:
        is_heard = teacher[:, category.index] >= AUDIBLE
        ours, theirs = found[is_heard, category.index], teacher[is_heard, category.index]
        if len(ours):
            error = np.abs(ours - theirs).mean()
            numbers = f"{theirs.mean():.2f} | {ours.mean():.2f} | {error:.2f}"
            rows.append((len(ours), f"| {category.name} | {len(ours)} | {numbers} |"))
    rows.sort(key=lambda row: -row[0])
    silent = ", ".join(
        category.name
        for category in POCKET.categories
        if not (teacher[:, category.index] >= AUDIBLE).any()
    )
    lines = [
        "| class | patches (YAMNet at least 0.1) | YAMNet's mean | Pocket's mean | mean error |",
        "|---|---|---|---|---|",
        *(row for _, row in rows),
        "",
        f"Never at 0.1 or above in these mixtures: {silent}.",
    ]
    return "\n".join(lines) + "\n"


def speed_ratio(teacher: Model, student: Model) -> float:
    """Patches a second of a core, student against teacher: the best of rounds that take turns."""
    config = YAMNET.frontend
    shape = (_SPEED_PATCHES, config.patch_frames, config.n_mels)
    frames = np.asarray(np.random.default_rng(0).normal(-3, 2, shape), np.float32)
    best = {teacher: np.inf, student: np.inf}
    for _ in range(_SPEED_ROUNDS):
        for model in best:
            begun = time.process_time()
            model.logits(frames)
            best[model] = min(best[model], time.process_time() - begun)
    return best[teacher] / best[student]


def _demo(folder: Path) -> Iterator[Clip]:
    number = {category.name: category.index for category in YAMNET.categories}
    for sound in write_demo(folder):
        yield Clip(folder / sound.file_name, frozenset(number[name] for name in sound.expected))


def _esc(folder: Path) -> Iterator[Clip]:
    number = {category.mid: category.index for category in YAMNET.categories}
    with (folder / "esc10_dev.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            mids = row["expected_class_mids"].split()
            yield Clip(folder / row["path"], frozenset(number[m] for m in mids), row["category"])


def _judge_demo(clips: list[Clip], student: Model) -> None:
    names = [category.name for category in YAMNET.categories]
    missed = []
    for clip in clips:
        best = student.scores(clip.path).mean(axis=0).argsort()[::-1][:3]
        if not clip.expected & set(best.tolist()):
            missed.append(f"{clip.path.stem} ({', '.join(names[i] for i in best)})")
    print(f"demo: {len(clips) - len(missed)} of {len(clips)}; missed: {'; '.join(missed)}")


def _judge_esc(clips: list[Clip], teacher: Model, student: Model) -> None:
    classes = {clip.category: sorted(clip.expected) for clip in clips}
    right = dict.fromkeys(classes, 0)
    of: dict[str, int] = dict.fromkeys(classes, 0)
    students, teachers = [], []
    for clip in clips:
        found = student.scores(clip.path)
        means = found.mean(axis=0)
        pick = max(classes, key=lambda name: float(means[classes[name]].max()))
        right[clip.category] += pick == clip.category
        of[clip.category] += 1
        students.append(found)
        teachers.append(teacher.scores(clip.path))
    each = ", ".join(f"{name} {right[name]}/{of[name]}" for name in classes)
    agreed: Agreement = compare(np.concatenate(students), np.concatenate(teachers))
    print(f"ESC-10 development clips: {sum(right.values())} of {len(clips)}; {each}")
    print(f"ESC-10 against yamnet, every patch: {agreed}")
