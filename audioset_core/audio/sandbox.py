"""Decoding that cannot crash this process: native decoders run in processes of their own.

A process decodes one recording at a time and is used again for the next. If it crashes, hangs or
exceeds a limit, the recording fails with a reason. If the process had decoded other recordings
before, this one is first tried again in a new process, since the others may be the cause.
"""

from __future__ import annotations

import atexit
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from audioset_core.arrays import F32, Floats
from audioset_core.audio.decoders import DecodeOptions
from audioset_core.audio.mono import Decoder, StreamInfo, after
from audioset_core.audio.remarks import Remark, RemarkKind
from audioset_core.audio.sandbox_process import (
    CLOSE,
    CPU_S,
    CPU_S_PER_S,
    END,
    FAILED,
    HEAD,
    MEASURES,
    N_SLOTS,
    NEXT,
    OPEN,
    READY,
    REQUEST,
    ROOM_BYTES,
    SLOT_SAMPLES,
    WAIT_S,
    WITH_JSON,
    exact_slot,
)
from audioset_core.errors import AudioError, Reason
from audioset_core.file_headers.field_notes import FieldNotes
from audioset_core.records import Health, Statement
from audioset_core.system import n_cores

# Longer than the process's own limit, for a process that the system cannot end.
_PATIENCE_S = WAIT_S + 30
_CRASHES = frozenset({
    signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP,
    signal.SIGSYS,
})  # fmt: skip
_MAY_BE_ANOTHERS = frozenset({Reason.CRASHED, Reason.TOO_LARGE, Reason.INTERNAL})


def open_sandboxed(
    fd: int, size_bytes: int, options: DecodeOptions | None = None, start_s: float | None = None
) -> SandboxedDecoder:
    """As `decoders.open_decoder`, in another process; from about `start_s` on, if that is given.

    Raises:
        AudioError: also if the decoder crashed, or exceeded a limit.
    """
    options = options or DecodeOptions()
    track = {"default": 0, "all": -1}.get(str(options.track), options.track)
    start_s = -1.0 if start_s is None else start_s
    about = (int(track), options.is_strict, options.is_exact, MEASURES.index(options.measures))
    return SandboxedDecoder(fd, REQUEST.pack(size_bytes, *about, start_s), decoder_pool())


def decoder_pool() -> DecoderPool:
    """The decoders of this process."""
    return _pool(os.getpid())  # a fork must not use its parent's sockets


@cache
def _pool(process_id: int) -> DecoderPool:
    del process_id  # the cache's key
    pool = DecoderPool()
    atexit.register(pool.close)
    return pool


class DecoderPool:
    """Processes that decode, started when they are needed and kept for the next recording."""

    def __init__(self, module: str = "audioset_core.audio.sandbox_process") -> None:
        self.module = module
        self._most_idle = 2 + n_cores()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._lock = threading.Lock()

    def start_workers(self, n_workers: int) -> None:
        """Start processes that will be needed soon, in another thread."""

        def start() -> None:
            with suppress(AudioError, OSError):  # raised again when one is needed
                for _ in range(n_workers):
                    self.put_back(self.new())

        threading.Thread(target=start, name="start-decoders", daemon=True).start()

    def take(self) -> _Worker:
        """An idle process, or a new one."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self.new()

    def new(self) -> _Worker:
        """A process that has decoded nothing yet."""
        worker = _Worker(self.module)
        with self._lock:
            self._all = {known for known in self._all if not known.has_ended}
            self._all.add(worker)
        return worker

    def put_back(self, worker: _Worker) -> None:
        """Keep a process that has finished its recording, or end it if enough are idle."""
        with self._lock:
            if len(self._idle) < self._most_idle:
                self._idle.append(worker)
                return
        worker.end()

    def close(self) -> None:
        """End the idle processes; new ones are started when they are needed."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()

    def kill(self) -> None:
        """End all processes, busy or not, because this process ends."""
        for worker in self._all:
            worker.kill()


class _DiedError(Exception):
    """The process has ended; `error` is the reason for its recording."""

    def __init__(self, error: AudioError) -> None:
        super().__init__(error)
        self.error = error


class _Worker:
    """A decoding process and the socket to it."""

    def __init__(self, module: str) -> None:
        self.n_files = 0
        self._wire, theirs = socket.socketpair()
        # The system's timeout: with Python's own, every call would poll first.
        patience = struct.pack("ll", int(_PATIENCE_S), 0)
        self._wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        with theirs, _room() as room:
            self._memory = mmap.mmap(room.fileno(), ROOM_BYTES)
            self._process = subprocess.Popen(  # noqa: S603 (this Python, our own module)
                # -P: no imports from the working directory, only what this process would import.
                [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(room.fileno())],
                pass_fds=(theirs.fileno(), room.fileno()),
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libmpg123 prints remarks on a file
            )
        self.slots = np.frombuffer(self._memory, np.float32).reshape(N_SLOTS, SLOT_SAMPLES)
        try:
            if self.answer()[0] != READY:
                raise ConnectionError
        except (_DiedError, ConnectionError):
            self.end()
            code = self._process.returncode
            hint = f"exit code {code}; python -m {module} may say why"
            raise AudioError(
                Reason.INTERNAL, f"the decoder's process does not start: {hint}"
            ) from None

    def send(self, data: bytes, *fds: int) -> None:
        """Send a command. Raises: _DiedError."""
        try:
            if fds:
                socket.send_fds(self._wire, [data], fds)
            else:
                self._wire.sendall(data)
        except OSError:
            raise _DiedError(self._cause(is_silent=False)) from None

    def answer(self) -> tuple[int, Any]:
        """The kind of the next answer, and its number or content. Raises: _DiedError."""
        try:
            kind, n = HEAD.unpack(self._receive(HEAD.size))
            return (kind, json.loads(self._receive(n))) if kind in WITH_JSON else (kind, n)
        except (OSError, ValueError) as error:
            is_silent = isinstance(error, BlockingIOError)
            raise _DiedError(self._cause(is_silent=is_silent)) from None

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended and was waited for."""
        return self._process.returncode is not None

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def end(self) -> None:
        """End the process, wait for its end and close the socket."""
        self.kill()
        with suppress(subprocess.TimeoutExpired):  # it hangs in the kernel: left alone
            self._process.wait(timeout=10)
        self._wire.close()

    def _receive(self, n_bytes: int) -> bytes:
        data = b""
        while len(data) < n_bytes:
            piece = self._wire.recv(n_bytes - len(data))
            if not piece:
                raise ConnectionError
            data += piece
        return data

    def _cause(self, *, is_silent: bool) -> AudioError:
        """Why the process ended, as an error."""
        try:
            code = 0 if is_silent else self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            code = 0
        if is_silent or code == -signal.SIGALRM:
            return AudioError(Reason.UNREADABLE, f"nothing came for {WAIT_S:.0f} s")
        if code == -signal.SIGPROF:
            return AudioError(
                Reason.TOO_SLOW,
                f"more than {CPU_S:.0f} s of CPU, and {60 * CPU_S_PER_S:.0f} s per minute of audio",
            )
        if code < 0 and -code not in _CRASHES:
            name = signal.Signals(-code).name
            return AudioError(Reason.INTERNAL, f"the decoder was ended from outside ({name})")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return AudioError(Reason.CRASHED, f"its process ended with {how}")


class SandboxedDecoder(Decoder):
    """A recording that another process decodes.

    Its blocks begin at sample ``first_sample`` of the recording.
    """

    def __init__(self, fd: int, request: bytes, pool: DecoderPool) -> None:
        self._fd, self._request, self._pool = fd, request, pool
        self._worker: _Worker | None = None
        self._is_streaming = False
        self._remarks: tuple[Remark, ...] = ()
        self.first_sample = 0
        try:
            self.info = self._open(pool.take())
        except _DiedError as death:
            self._begin_again(death)

    def blocks(self) -> Iterator[F32]:
        """As `Decoder.blocks`; continued in a new process where one died of an earlier file."""
        return cast("Iterator[F32]", self._continued(0))

    def all_channels(self) -> Iterator[Floats]:
        """As `Decoder.all_channels`, where that was asked for when the recording was opened."""
        return self._continued(self.info.n_channels)

    def _continued(self, n_channels: int) -> Iterator[Floats]:
        n_given = 0
        while True:
            try:
                for block in after(n_given, self._stream(n_channels)):
                    n_given += len(block)
                    if len(block):
                        yield block
                return
            except _DiedError as death:
                self._begin_again(death)

    def remarks(self) -> tuple[Remark, ...]:
        """As `Decoder.remarks`; known once all blocks are read."""
        return self._remarks

    def close(self) -> None:
        """Free the process for the next recording; end it if it is still decoding this one."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if self._is_streaming:
            worker.end()
            return
        try:
            worker.send(CLOSE)
            worker.answer()  # after this it no longer uses the descriptor, whose position is shared
        except _DiedError:
            worker.end()
        else:
            self._pool.put_back(worker)

    def stop_reading(self) -> None:
        """Close it where blocks are left, and keep the process: it first decodes a block or two."""
        worker = self._worker
        if worker is not None and self._is_streaming:
            try:
                worker.send(CLOSE)
                while worker.answer() != (END, None):
                    pass
            except _DiedError:
                pass
            else:
                self._release()
        self.close()

    def _open(self, worker: _Worker) -> StreamInfo:
        worker.n_files += 1
        self._worker, self._is_streaming = worker, True
        worker.send(OPEN, self._fd)
        worker.send(self._request)
        info, self.first_sample = self._content(worker)[1]
        self._is_streaming = False
        notes = info.pop("notes")
        if notes is not None:
            said = tuple(Statement(**each) for each in notes.pop("statements"))
            notes = FieldNotes(**notes, statements=said)
        return StreamInfo(**info, notes=notes)

    def _begin_again(self, death: _DiedError) -> None:
        """Try again in a new process, unless the one that died was new."""
        worker, self._worker = self._worker, None
        assert worker is not None  # noqa: S101 (for mypy: taken when opened)
        worker.end()
        if worker.n_files == 1 or death.error.reason not in _MAY_BE_ANOTHERS:
            raise death.error from None
        try:
            self.info = self._open(self._pool.new())
        except _DiedError as again:
            self.close()
            raise again.error from None

    def _stream(self, n_channels: int) -> Iterator[Floats]:
        worker, slot = self._worker, 0
        assert worker is not None  # noqa: S101 (for mypy: taken when opened)
        self._is_streaming = True
        worker.send(NEXT * N_SLOTS)
        while True:
            kind, n = self._content(worker)
            if kind == END:
                remarks, health = n
                self._remarks = tuple(Remark(RemarkKind(r[0]), *r[1:]) for r in remarks)
                self.health = Health(**health) if health else None
                self._release()
                return
            block = exact_slot(worker.slots[slot], n_channels)[:n].copy()
            if n_channels:
                block = block.reshape(-1, n_channels)
            slot = (slot + 1) % N_SLOTS
            worker.send(NEXT)
            yield block

    def _content(self, worker: _Worker) -> tuple[int, Any]:
        """The next answer; a failure is raised."""
        kind, content = worker.answer()
        if kind != FAILED:
            return kind, content
        error = AudioError(Reason(content[0]), content[1])
        if error.reason is Reason.TOO_LARGE:  # memory of earlier files counts too
            raise _DiedError(error)
        self._release()
        raise error

    def _release(self) -> None:
        """Give the process back, which has closed the recording itself."""
        worker, self._worker, self._is_streaming = self._worker, None, False
        assert worker is not None  # noqa: S101 (for mypy: taken when opened)
        self._pool.put_back(worker)


def _room() -> Any:
    """Shared memory, as a file without a name."""
    if hasattr(os, "memfd_create"):
        file = os.fdopen(os.memfd_create("blocks", os.MFD_CLOEXEC), "r+b", buffering=0)
    else:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (the caller closes it)
    file.truncate(ROOM_BYTES)
    return file


def _environment() -> dict[str, str]:
    """This process's environment without its secrets: a decoder of hostile bytes needs none."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("AUDIOSET_", "PREFECT_"))}
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    # glibc keeps the memory of a block: fresh memory costs FFmpeg a tenth of its time.
    keep = {"MALLOC_MMAP_THRESHOLD_": f"{8 << 20}", "MALLOC_TRIM_THRESHOLD_": f"{32 << 20}"}
    return {**own, **one_thread, **keep, "PYTHONPATH": path}
