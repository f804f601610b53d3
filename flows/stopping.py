"""How the command line ends on Ctrl-C, SIGTERM and SIGHUP: within seconds, and with one line.

The first signal raises `Stopped` in the main thread, so that work in progress ends in good order.
A second thread, which the signal reaches whatever the main thread does, watches the clock. When the
time is over, or at a second Ctrl-C, it ends the process at once. Nothing is lost by that: the next
run goes on as after a crash. While there is nothing to put in order (modules are imported, a server
starts, the interpreter ends), the first signal ends the process at once.

Only the standard library is imported here: this module works before any other is imported.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_S = 8.0
"""From the first signal to the end; the rest of ten seconds is for a busy machine."""
SAME_REQUEST_S = 0.3
"""A terminal that closes, and `timeout`, send their signal twice within milliseconds."""
LINE = "audioset: stopped; what is done is kept, the same command goes on from there"
_AGAIN = 0
_CLEAR_LINE, _SHOW_CURSOR = b"\r\x1b[2K", b"\x1b[?25h"


class Stopped(KeyboardInterrupt):
    """A person or the system asked this process to end."""


@cache
def stopper() -> Stopper:
    """The stopper of this process."""
    return Stopper()


class Stopper:
    """Waits for the signals, once `watch` was called."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._is_raised = self._is_told = False
        self._n_own = 0  # signals to the main thread that came from here
        self._n_at_once = 0
        self._last_acts: list[Callable[[], Any]] = []
        self._before: dict[int, Any] = {}
        self._wire: tuple[int, int] | None = None
        self._leaving, self._telling = threading.Lock(), threading.Lock()
        self.line = LINE
        """What `tell` prints."""

    @property
    def code(self) -> int | None:
        """The exit code if a signal has come: 128 and its number, as a shell shows it."""
        return None if self._number is None else 128 + self._number

    @property
    def watched(self) -> list[int]:
        """The signals that are not ignored."""
        return list(self._before)

    def watch(self) -> None:
        """Begin to watch; a signal that is ignored (`nohup`, a background job) stays ignored."""
        if threading.current_thread() is not threading.main_thread():
            return  # no thread but the main one may
        for number in SIGNALS:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                self._before[number] = before
        self._wire = reading, writing = os.pipe()
        os.set_blocking(writing, False)
        self.watch_again()
        atexit.register(self._at_exit)  # the first to be registered is the last to be called
        threading.Thread(target=self._watch, args=(reading,), name="stop", daemon=True).start()

    def watch_again(self) -> None:
        """Watch again, after other code, such as asyncio, had handlers of its own."""
        for number in self._before:
            signal.signal(number, self._on_signal)
        if self._wire is not None:
            signal.set_wakeup_fd(self._wire[1], warn_on_full_buffer=False)

    def unwatch(self) -> None:
        """Restore the handlers from before `watch`."""
        for number, before in self._before.items():
            signal.signal(number, before)
        if self._wire is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._wire[1])
        atexit.unregister(self._at_exit)
        stopper.cache_clear()

    def ask(self, number: int) -> None:
        """Act as if the signal had come; for code with handlers of its own, such as asyncio."""
        if self._wire is not None:
            os.write(self._wire[1], bytes([number]))

    def end_in_time(self) -> None:
        """End this process with code 0 when the time is over; for code that ends by itself."""
        end = threading.Timer(GRACE_S, self._leave)
        end.daemon = True
        end.start()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside the block a signal ends the process at once: there is nothing to put in order."""
        self.begin_at_once()
        try:
            yield
        finally:
            self.end_at_once()

    def begin_at_once(self) -> None:
        """As `at_once`, until `end_at_once`."""
        self._n_at_once += 1

    def end_at_once(self) -> None:
        """From now on `Stopped` is raised."""
        self._n_at_once -= 1

    def on_leave(self, act: Callable[[], Any]) -> None:
        """Call ``act`` before the process is ended at once, from any thread; the last one first."""
        self._last_acts.append(act)

    def tell(self) -> None:
        """Print once that the process was stopped, in place of a progress bar, as the last line.

        What other threads still write to stderr is discarded: a frame of the bar, or the complaint
        of a logger that the interpreter has ended.
        """
        if sys.__stderr__ is None:
            return  # closed from the start: descriptor 2 may be any file
        # A thread that ends the process waits here until another has written the line. A terminal
        # may be gone, or stopped with Ctrl-S.
        with self._telling, contextlib.suppress(OSError):
            if self._is_told:
                return
            self._is_told = True
            stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            bar = _CLEAR_LINE + _SHOW_CURSOR if os.isatty(stderr) else b""
            if select.select([], [stderr], [], 1.0)[1]:
                os.write(stderr, bar + self.line.encode() + b"\n")

    def _leave(self) -> None:
        """End this process and what it has started, now."""
        with self._leaving:
            for act in reversed(self._last_acts):
                with contextlib.suppress(Exception):
                    act()
            if self.code is not None:
                self.tell()
            os._exit(self.code or 0)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._note(number)
        if not self._is_raised and not self._n_at_once:
            self._is_raised = True
            raise Stopped

    def _note(self, number: int) -> None:
        if self._number is None:
            self._number = number
            # Errors of threads and finalizers are of no interest while the process ends.
            threading.excepthook = lambda _: None
            sys.unraisablehook = self._on_lost

    def _on_lost(self, lost: Any) -> None:
        """Raise `Stopped` again if it was raised in a finalizer, where Python discards it."""
        if isinstance(lost.exc_value, Stopped):
            self._is_raised = False
            self.ask(_AGAIN)

    def _watch(self, reading: int) -> None:
        first_s, left_s = None, None
        while True:
            if first_s is not None:
                left_s = max(0.0, first_s + GRACE_S - time.monotonic())
            if not select.select([reading], [], [], left_s)[0]:
                self._leave()
            numbers = os.read(reading, 64)
            if not numbers:
                os.close(reading)
                return
            for number in numbers:
                if number == _AGAIN:
                    time.sleep(0.05)  # the finalizer has ended by then
                    self._n_own += 1
                    signal.pthread_kill(threading.main_thread().ident or 0, self._number or 0)
                if number not in self._before:
                    continue
                self._note(number)
                if self._n_own:
                    self._n_own -= 1
                elif self._n_at_once:
                    self._leave()
                elif first_s is None:
                    first_s = time.monotonic()
                elif number == signal.SIGINT and time.monotonic() - first_s > SAME_REQUEST_S:
                    self._leave()

    def _at_exit(self) -> None:
        """The interpreter would wait for what native libraries do at their end."""
        if self._number is not None:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            self._leave()
