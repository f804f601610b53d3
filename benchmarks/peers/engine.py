"""Our engine alone: decode, resample, log-mel, network; no flow, SQL, hashing or result files.

Decode threads read ahead of the scorer by a bounded number of loads, as the pipeline's shards do.
"""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Queue

import numpy as np
from threadpoolctl import threadpool_limits

from audioset_core.audio.decoders import open_decoder
from audioset_core.features.config import FrontendConfig
from audioset_core.features.patch_reader import LogMelPiece, LogMelReader
from audioset_core.inference.interface import ComputeOptions
from audioset_core.inference.scorer import Scorer
from audioset_core.models.registry import YAMNET
from audioset_core.weights.locate import prepare as prepare_weights
from benchmarks.peers import protocol

N_DECODE_THREADS = 2
_LOAD_S = 300.0
_LOADS_AHEAD = 2

Load = list[LogMelPiece]


def prepare(options: argparse.Namespace) -> protocol.Work:
    """Load the network."""
    threadpool_limits(1, user_api="blas")  # as the pipeline does
    frontend = YAMNET.framed(patch_hop_s=options.hop, framing="reference")
    scorer = Scorer(YAMNET, prepare_weights(YAMNET), ComputeOptions("cpu"))
    rehearsal = LogMelReader(iter([np.zeros(16_000, np.float32)]), 16_000, frontend).read(_LOAD_S)
    scorer.run([rehearsal], frontend)

    def work(files: Sequence[Path]) -> int:
        n_patches = 0
        for load in loads_ahead(files, frontend):
            for output in scorer.run(load, frontend):
                n_patches += 0 if output.logits is None else len(output.logits)
        return n_patches

    return work


def loads_ahead(files: Sequence[Path], frontend: FrontendConfig) -> Iterator[Load]:
    """Loads of about five minutes of audio, from threads that take the next file each."""
    queue: Queue[Load | BaseException | None] = Queue(_LOADS_AHEAD)
    waiting = iter(files)  # several threads may take from a sequence's iterator

    def decode() -> None:
        try:
            for load in _loads(waiting, frontend):
                queue.put(load)
            queue.put(None)
        except BaseException as error:
            queue.put(error)

    for _ in range(N_DECODE_THREADS):
        threading.Thread(target=decode, daemon=True).start()
    n_working = N_DECODE_THREADS
    while n_working:
        found = queue.get()
        if isinstance(found, BaseException):
            raise found
        if found is None:
            n_working -= 1
        else:
            yield found


def _loads(files: Iterator[Path], frontend: FrontendConfig) -> Iterator[Load]:
    load: Load = []
    loaded_s = 0.0
    for path in files:
        for piece in _pieces(path, frontend):
            load.append(piece)
            loaded_s += piece.n_patches * frontend.patch_hop_s
            if loaded_s >= _LOAD_S:
                yield load
                load, loaded_s = [], 0.0
    if load:
        yield load


def _pieces(path: Path, frontend: FrontendConfig) -> Iterator[LogMelPiece]:
    fd = os.open(path, os.O_RDONLY)
    try:
        decoder = open_decoder(fd, os.fstat(fd).st_size)
        reader = LogMelReader(decoder.blocks(), decoder.info.sample_rate_hz, frontend)
        while not reader.is_finished:
            yield reader.read(_LOAD_S)
        decoder.close()
    finally:
        os.close(fd)


if __name__ == "__main__":
    protocol.run(prepare, protocol.parser(__doc__).parse_args())
