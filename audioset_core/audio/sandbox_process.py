"""A decoder in a process of its own: recordings come in as descriptors, mono blocks go out.

A file may make a native decoder crash, hang or fill the memory. All of this happens here, in a
process that `audioset_core.audio.sandbox` starts, controls and replaces. Limits are set by means of
the operating system, so that they hold while native code runs, and after the parent has ended.

The connection is a stream socket. A command is one byte; `OPEN` comes with a descriptor, and a
`REQUEST` follows it. An answer is a kind and a number, and for some kinds so many bytes of JSON.
Samples are in shared memory, in slots that are filled in turn: a block is decoded while the one
before it is used.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any, get_args

import numpy as np

from audioset_core.arrays import F32, Floats
from audioset_core.audio.decoders import DecodeOptions, Measures, open_decoder
from audioset_core.audio.mono import BLOCK_SAMPLES, Decoder, StreamInfo
from audioset_core.errors import AudioError, Reason

N_SLOTS = 2
SLOT_SAMPLES = 4 * BLOCK_SAMPLES
"""6 s at 44.1 kHz: a quarter of the messages that a block each would take."""
ROOM_BYTES = N_SLOTS * SLOT_SAMPLES * 4

OPEN, NEXT, CLOSE = b"o", b"n", b"c"
READY, INFO, BLOCK, END, FAILED = range(5)
HEAD = struct.Struct("<II")
WITH_JSON = frozenset({INFO, END, FAILED})
REQUEST = struct.Struct("<qi??id")
"""The file's size, the track (0: the default one, -1: all), whether to be strict, whether to give
all channels in float64, which of `MEASURES`, and the start time (below 0: the whole file)."""
MEASURES: tuple[Measures, ...] = get_args(Measures)

MEMORY_BYTES = 512 << 20
"""Most memory of decoding, beyond the process itself. FFmpeg's index of a day of AAC: 0.1 GB."""
CPU_S, CPU_S_PER_S, CPU_S_PER_BYTE = 60.0, 0.05, 1e-6
"""CPU time for a file: a minute, and more for every second decoded and every byte read. The slowest
decoders here take 0.003 s for a second."""
WAIT_S = 120.0
"""Wall-clock time for one slot: only a file system that does not respond takes so long."""
LENGTH_S, LENGTH_S_PER_BYTE = 24 * 3600.0, 1e-3
"""Longest audio of a file: 24 h, or more at 8 kbit/s and above. 24 h of silence: 30 kB of FLAC."""


def main() -> None:
    """Decode for the process at the other end of the socket, until it closes the socket."""
    wire = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=_end_with, args=(wire.fileno(),), daemon=True).start()
    room = mmap.mmap(int(sys.argv[2]), ROOM_BYTES)
    _confine()
    wire.sendall(HEAD.pack(READY, 0))
    serve(wire, np.frombuffer(room, np.float32).reshape(N_SLOTS, SLOT_SAMPLES))


def serve(wire: socket.socket, slots: F32) -> None:
    """Carry out commands until the socket is closed. Shape of slots: [N_SLOTS, SLOT_SAMPLES]."""
    work: _Work | None = None
    while True:
        command, fds, _, _ = socket.recv_fds(wire, 1, 1)
        if command == OPEN:
            request = REQUEST.unpack(wire.recv(REQUEST.size, socket.MSG_WAITALL))
            work = _Work(fds[0], request, slots)
            is_done = _answer(wire, work.open)
        elif command == NEXT:  # one may still arrive after the last block
            is_done = work is not None and _answer(wire, work.next)
        elif command == CLOSE:
            is_done = _answer(wire, lambda: (END, None))
        else:
            return
        if is_done and work is not None:
            work.close()
            work = None


class _Work:
    """One file that is being decoded, and the CPU time that it has taken so far."""

    def __init__(self, fd: int, request: tuple[Any, ...], slots: F32) -> None:
        self._fd, self._size_bytes = fd, request[0]
        track: int | str = {0: "default", -1: "all"}.get(request[1], request[1])
        measures = MEASURES[request[4]]
        self._options = DecodeOptions(track, request[2], request[3], measures)
        self._start_s = request[5]
        self._slots, self._slot = slots, 0
        self._began_s, self._n_samples = time.process_time(), 0
        self._decoder: Decoder | None = None
        self._blocks: Iterator[Floats] = iter(())
        self._rest: Floats = np.empty(0, np.float32)

    def open(self) -> tuple[int, Any]:
        with self._limits():
            if self._options.measures == "loudness" and "scipy.signal" not in sys.modules:
                import scipy.signal  # noqa: F401 - for `audioset_core.audio.loudness`

                _limit_memory()  # the library's own 150 MiB are not the file's
            is_part = self._start_s >= 0
            decoder = open_decoder(self._fd, self._size_bytes, self._options, is_for_a_part=is_part)
            self._decoder, self._blocks = decoder, decoder.blocks()
            info = decoder.info
            if self._options.is_exact:
                self._blocks = (block.ravel() for block in decoder.all_channels())
            self._check_length(info, info.promised_samples or 0)
            first = decoder.skip(round(self._start_s * info.sample_rate_hz)) if is_part else 0
            return INFO, [asdict(info), first]

    def next(self) -> tuple[int, Any]:
        """Fill a slot, however small the decoder's own blocks: FFmpeg gives 20 ms at a time."""
        assert self._decoder is not None  # noqa: S101 (for mypy: opened before)
        slot, n, has_ended = exact_slot(self._slots[self._slot], self._width), 0, False
        with self._limits():
            while n < len(slot):
                if not len(self._rest):
                    block = next(self._blocks, None)
                    has_ended = block is None
                    if block is None or not len(block):  # empty: a sign of life
                        break
                    self._rest = block
                piece = self._rest[: len(slot) - n]
                slot[n : n + len(piece)] = piece
                self._rest = self._rest[len(piece) :]
                n += len(piece)
            self._n_samples += n // (self._width or 1)
            self._check_length(self._decoder.info, self._n_samples)
        self._slot = (self._slot + 1) % N_SLOTS
        if has_ended and not n:
            health = self._decoder.health
            remarks = [[r.kind, r.detail, r.start_s, r.end_s] for r in self._decoder.remarks()]
            return END, [remarks, asdict(health) if health else None]
        return BLOCK, n

    @property
    def _width(self) -> int:
        """How many channels a slot has; 0: mono, in float32."""
        return self._decoder.info.n_channels if self._decoder and self._options.is_exact else 0

    def close(self) -> None:
        with suppress(Exception):  # damage may raise once more
            if self._decoder is not None:
                self._decoder.close()
        os.close(self._fd)

    @contextmanager
    def _limits(self) -> Iterator[None]:
        """The system ends this process if it exceeds the time limits of the file."""
        decoded_s = self._n_samples / self._decoder.info.sample_rate_hz if self._decoder else 0.0
        budget_s = CPU_S + CPU_S_PER_S * decoded_s + CPU_S_PER_BYTE * self._size_bytes
        left_s = budget_s - (time.process_time() - self._began_s)
        signal.setitimer(signal.ITIMER_PROF, max(0.001, left_s))
        signal.setitimer(signal.ITIMER_REAL, WAIT_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _check_length(self, info: StreamInfo, n_samples: int) -> None:
        length_s = n_samples / info.sample_rate_hz
        if length_s > LENGTH_S + LENGTH_S_PER_BYTE * self._size_bytes:
            raise AudioError(
                Reason.TOO_LONG,
                f"{length_s / 3600:,.0f} h in {self._size_bytes:,} bytes: "
                f"longer than 24 h at under 8 kbit/s is refused as implausible",
            )


def exact_slot(slot: F32, n_channels: int) -> Floats:
    """A slot for whole frames of all channels in float64; with 0 channels, as it is."""
    if not n_channels:
        return slot
    wide = slot.view(np.float64)
    return wide[: len(wide) // n_channels * n_channels]


def _answer(wire: socket.socket, step: Any) -> bool:
    """Carry out a step and send its result; True if it was the last step of the file."""
    try:
        kind, content = step()
    except AudioError as error:
        kind, content = FAILED, [error.reason, error.detail]
    except MemoryError:
        kind, content = FAILED, [Reason.TOO_LARGE, f"it takes more than {MEMORY_BYTES >> 20} MiB"]
    except OSError as error:
        kind, content = FAILED, [Reason.UNREADABLE, error.strerror or str(error)]
    except Exception as error:  # a defect of ours; the file's run goes on
        kind, content = FAILED, [Reason.INTERNAL, f"{type(error).__name__}: {error}"[:200]]
    body = json.dumps(content).encode() if kind in WITH_JSON else b""
    wire.sendall(HEAD.pack(kind, len(body) if body else content) + body)
    return kind in (END, FAILED)


def _end_with(wire: int) -> None:
    """End this process when the socket is closed, also while a file is being decoded."""
    closed = select.poll()
    closed.register(wire, 0)
    closed.poll()
    os._exit(0)


def _confine() -> None:
    """Limits that hold for all files."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # These signals are meant for the parent, whose end closes the socket.
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory()
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("800")  # if memory runs out, the system ends this process, not the run


def _limit_memory() -> None:
    """Leave so much room beyond what this process has now."""
    with suppress(OSError, ValueError):  # Linux; elsewhere there is no such limit
        with open("/proc/self/statm") as file:  # noqa: PTH123
            own_bytes = int(file.read().split()[0]) * mmap.PAGESIZE
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (own_bytes + MEMORY_BYTES, most))


if __name__ == "__main__":
    main()
