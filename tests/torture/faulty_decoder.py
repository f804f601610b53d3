"""The decoding process with a decoder that does what a file tells it to, in place of a defect.

`told` writes such a file: an ordinary WAV file with an order in a chunk of its own.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import numpy as np

from audioset_core.arrays import F32
from audioset_core.audio import sandbox_process as decode_process
from audioset_core.audio.decoders import DecodeOptions, open_decoder
from audioset_core.audio.mono import Decoder
from tests.torture.makers import chunk, pcm, wav

ORDERS = ("segfault", "abort", "leave", "spin", "sleep", "eat", "raise", "poison", "linger")
CPU_S, WAIT_S = 0.3, 1.5


def told(order: str, when: str = "open", n_samples: int = 300_000) -> bytes:
    """A WAV file; ``when`` is ``open``, or ``amid`` decoding it."""
    assert order in ORDERS
    return wav(pcm(n_samples), extra=chunk(b"test", f"{when}:{order}.".encode()))


def faulty(fd: int, size_bytes: int, options: DecodeOptions, **how: bool) -> Decoder:
    """As `open_decoder`, but obedient."""
    head = os.pread(fd, 200, 0)
    for order in ORDERS:
        if f"open:{order}.".encode() in head:
            obey(order)
        if f"amid:{order}.".encode() in head:
            return _amid(order, open_decoder(fd, size_bytes, options, **how))
    return open_decoder(fd, size_bytes, options, **how)


def obey(order: str) -> None:
    match order:
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "abort":
            os.abort()
        case "leave":
            os._exit(3)
        case "spin":
            while True:
                pass
        case "sleep":
            time.sleep(3600)
        case "eat":
            eaten = []
            while True:
                eaten.append(bytearray(1 << 24))
        case "raise":
            raise ZeroDivisionError("of the decoder")
        case "poison":  # harms the file after it
            decode_process.open_decoder = lambda *about, **how: _amid(
                "segfault", open_decoder(*about, **how)
            )


def _amid(order: str, decoder: Decoder) -> Decoder:
    blocks = decoder.blocks()

    def spoilt() -> Iterator[F32]:
        yield next(blocks)
        if order == "linger":
            yield from _lingering()
        obey(order)
        yield from blocks

    decoder.blocks = spoilt  # type: ignore[method-assign]
    return decoder


def _lingering() -> Iterator[F32]:
    """Longer than anybody waits, with a sign of life now and then."""
    for _ in range(6):
        time.sleep(WAIT_S / 3)
        yield np.empty(0, np.float32)


if __name__ == "__main__":
    decode_process.open_decoder = faulty
    decode_process.CPU_S, decode_process.CPU_S_PER_BYTE = CPU_S, 0.0
    decode_process.WAIT_S, decode_process.MEMORY_BYTES = WAIT_S, 128 << 20
    decode_process.main()
