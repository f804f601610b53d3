"""The cost of each stage by itself, on one core, and the bound that follows for this machine.

    python -m benchmarks.stages --hop 0.48 FILE ...

The bound: all cores busy with nothing but decoding (libsndfile, or FFmpeg where that is faster),
mixing, soxr, log-mel and the network at the speed of a matrix product. Prints one line of JSON:
seconds per hour of audio by stage, ``bound`` in x real time, ``gflops`` of all cores.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one core is meant

import hashlib
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from audioset_core.audio.health import HealthMeter
from audioset_core.audio.mono import mix_to_mono
from audioset_core.audio.recording import Recording
from audioset_core.audio.resample import resampled
from audioset_core.features.config import FrontendConfig
from audioset_core.features.log_mel import LogMelStream
from audioset_core.features.patch_reader import LogMelPiece
from audioset_core.inference.interface import ComputeOptions
from audioset_core.inference.scorer import Scorer
from audioset_core.models.registry import YAMNET
from audioset_core.scores.pooling import pool
from audioset_core.storage.atomic_files import write_many
from audioset_core.storage.score_files import check_scores, npy_bytes
from audioset_core.system import n_cores
from audioset_core.weights.locate import prepare
from benchmarks.peers import protocol

# Multiplications and additions of YAMNet for one patch: twice 69,165,056.
FLOP_PER_PATCH = 138_330_112
_MATRIX = 1_024


def main() -> None:
    options = protocol.parser(__doc__).parse_args()
    frontend = YAMNET.framed(patch_hop_s=options.hop, framing="reference")
    scorer = Scorer(YAMNET, prepare(YAMNET), ComputeOptions("cpu"), n_lanes=1)
    spent: Counter[str] = Counter()
    audio_s = 0.0
    with tempfile.TemporaryDirectory() as folder:
        stages(options.files[0], scorer, frontend, Path(folder))  # a rehearsal
        for path in options.files:
            heard_s, costs = stages(path, scorer, frontend, Path(folder))
            audio_s += heard_s
            spent += costs
    per_hour = {stage: cost / audio_s * 3600 for stage, cost in spent.items()}
    gflops, cores = matrix_gflops(), n_cores()
    network_s = 3600 / options.hop * FLOP_PER_PATCH / (gflops / cores * 1e9)
    decode_s = min(per_hour["decode"], per_hour.get("decode by FFmpeg", np.inf))
    others_s = per_hour["mix"] + per_hour["resample"] + per_hour["log-mel"]
    bound = cores * 3600 / (decode_s + others_s + network_s)
    print(json.dumps({"per_hour": per_hour, "gflops": gflops, "bound": bound, "cores": cores}))


def stages(
    path: Path, scorer: Scorer, frontend: FrontendConfig, folder: Path
) -> tuple[float, Counter[str]]:
    """(seconds of audio, wall seconds by stage) of one file."""
    spent: Counter[str] = Counter()

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        spent[stage] += time.perf_counter() - began

    with timed("open and hash"):
        recording = Recording(os.fsencode(path))
    rate_hz, n_channels = recording.info.sample_rate_hz, recording.info.n_channels
    recording.close()
    buffer = np.empty((65_536 // n_channels, n_channels), np.float32)
    mono = []
    meters = {
        stage: HealthMeter(rate_hz, n_channels, "int16", with_loudness=stage != "health")
        for stage in ("health", "health and loudness")
    }
    with soundfile.SoundFile(path) as file:
        while True:
            with timed("decode"):
                block = file.read(out=buffer)
            if not len(block):
                break
            with timed("mix"):
                mono.append(mix_to_mono(block))
            for stage, meter in meters.items():
                with timed(stage):
                    meter.add(block)
    for stage, meter in meters.items():
        with timed(stage):
            meter.result()
    with timed("resample"):
        samples = list(resampled(iter(mono), rate_hz, frontend.sample_rate_hz))
    stream = LogMelStream(frontend)
    with timed("log-mel"):
        frames = np.concatenate([*map(stream.push, samples), stream.finish()])
    with timed("network"):
        piece = LogMelPiece(frames, frontend.n_patches(stream.n_samples))
        (output,) = scorer.run([piece], frontend)
    assert output.logits is not None
    with timed("persist: files"):
        stored = output.logits.astype(np.float16)
        check_scores(stored, scorer.n_classes)
        pool(stored, floor=0.1, threshold=0.1)
        data = npy_bytes(stored)
        write_many([(folder / f"{hashlib.sha256(data).hexdigest()}.npy", data)])
    decode_by_ffmpeg(path, timed)
    return sum(map(len, mono)) / rate_hz, spent


def decode_by_ffmpeg(path: Path, timed: Callable[[str], Any]) -> None:
    import av

    with timed("decode by FFmpeg"), av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            frame.to_ndarray()


def matrix_gflops() -> float:
    """float32 matrix products of all cores together, the median of a few rounds."""
    cores = n_cores()
    pairs = [np.random.default_rng(n).random((2, _MATRIX, _MATRIX), np.float32) for n in
             range(cores)]  # fmt: skip
    rates = []
    with ThreadPoolExecutor(cores) as pool_of_cores:
        for _ in range(9):
            began = time.perf_counter()
            list(pool_of_cores.map(lambda pair: [pair[0] @ pair[1] for _ in range(8)], pairs))
            rates.append(cores * 8 * 2 * _MATRIX**3 / (time.perf_counter() - began) / 1e9)
    return statistics.median(rates)


if __name__ == "__main__":
    main()
