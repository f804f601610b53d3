"""One file of many hours: its speed and memory, and whether its scores are those of the whole.

    .venv/bin/python -m benchmarks.long_file [--hours 10]

A FLAC file at 44.1 kHz stereo is labelled by ``audioset label`` in a process of its own, cut into
parts as any long recording is. Beside it the same file is taken as one array from beginning to end
(resampled and framed whole, which needs about 1 GB an hour), and the scores are
compared. Targets: 500 MB; scores within 1e-5.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from benchmarks.corpora import RATE_HZ, default_folder
from benchmarks.processes import call, must_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--folder", type=Path, default=default_folder())
    options = parser.parse_args()
    path = options.folder / "hours" / f"{options.hours:g}.flac"
    if not path.exists():
        call("benchmarks.corpora:make_flac", path, options.hours * 3600.0, 0, RATE_HZ, 2)
    with tempfile.TemporaryDirectory(prefix="audioset-long-") as name:
        label = ["-m", "flows.cli.program", "label", str(path), "--home", name, "--device", "cpu"]
        outcome = must_run([*label, "--score-dtype", "float32"])
        with closing(sqlite3.connect(Path(name) / "labels.db")) as labels:
            scores, n_patches = labels.execute(
                "SELECT scores_path, n_patches FROM labellings WHERE status = 'done'"
            ).fetchone()
        print(
            f"{options.hours:g} h: {options.hours * 3600 / outcome.wall_s:.0f} x real time, start "
            f"included; peak {outcome.peak_mb:.0f} MB; {n_patches:,} patches",
            flush=True,
        )
        compared = call("benchmarks.long_file:largest_difference", path, f"{name}/{scores}")
    print(
        f"largest difference of a score from the whole: {compared.said['result']:.1e} "
        f"(which took {compared.peak_mb:,.0f} MB)"
    )


def largest_difference(sound_file: str, scores_file: str) -> float:
    """Between the stored scores and those of the file taken as one array."""
    import numpy as np
    import soundfile
    import soxr

    from audioset_core.features.log_mel import log_mel
    from audioset_core.features.patch_reader import LogMelPiece
    from audioset_core.inference.interface import ComputeOptions
    from audioset_core.inference.scorer import Scorer
    from audioset_core.models.registry import YAMNET
    from audioset_core.scores.pooling import sigmoid
    from audioset_core.storage.score_files import read_scores
    from audioset_core.weights.locate import prepare

    frontend = YAMNET.framed(patch_hop_s=None, framing="reference")
    with soundfile.SoundFile(sound_file) as file:
        rate_hz, mono = file.samplerate, np.empty(file.frames, np.float32)
        for start in range(0, len(mono), rate_hz):
            both = file.read(rate_hz, dtype="float32", always_2d=True)
            mono[start : start + len(both)] = (both[:, 0] + both[:, 1]) / 2
    whole = soxr.resample(mono, rate_hz, frontend.sample_rate_hz, quality="HQ")
    del mono
    n_patches = frontend.n_patches(len(whole))
    frames = log_mel(whole, frontend)
    scorer = Scorer(YAMNET, prepare(YAMNET), ComputeOptions("cpu"))
    (logits,) = scorer.score([LogMelPiece(frames, n_patches)], frontend)
    stored = read_scores(Path(scores_file), mmap=True)
    assert stored.shape == logits.shape
    rows = range(0, len(logits), 10_000)
    return max(
        float(np.abs(sigmoid(stored[r : r + 10_000]) - sigmoid(logits[r : r + 10_000])).max())
        for r in rows
    )


if __name__ == "__main__":
    main()
