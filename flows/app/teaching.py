"""What the Teach page keeps while it is served: patches in memory, heads, labellings at work."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine

from audioset_core.errors import UserError
from db.answer_records import ModelReport
from db.score_files.teachable import EmbeddedModel, embedded_models
from flows.terminal import one_line
from tasks.teaching.learning import Teacher
from tasks.teaching.patches import Patches, read_patches
from tasks.teaching.teach import find_base

_PROGRAM = "from flows.cli.program import main; main()"
_LAST_LINES = 6
_GROWN = 0.02
"""By this share the collection has to grow before all is read again."""


@dataclass(frozen=True, slots=True)
class Labelling:
    """A labelling with a taught model: whether it is at work, and the last lines that it said."""

    is_at_work: bool
    has_failed: bool
    said: tuple[str, ...]


@dataclass(slots=True)
class Teaching:
    """One home's classes that are being taught; safe for several threads."""

    engine: Engine
    home: Path
    teacher: Teacher = field(init=False)
    patches: Patches | None = None
    """None until they were read once; those of before while newer ones are being read."""
    progress: tuple[int, int] = (0, 0)
    """Recordings that were read, of how many."""
    _is_reading: bool = False
    _failed: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _at_work: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.teacher = Teacher(self.engine, self.home)

    def base(self) -> EmbeddedModel:
        """The model whose embeddings are used: the one that most recordings have them of.

        Raises:
            UserError: there are none.
        """
        known = embedded_models(self.engine)
        name = max(known, key=lambda each: each.n_clips).name if known else None
        return find_base(self.engine, name)

    def _is_new(self, base: EmbeddedModel) -> bool:
        """Whether what is in memory is of another model, or of clearly fewer or more recordings."""
        if self.patches is None or self.patches.base.title != base.title:
            return True
        read = self.patches.base.n_clips
        return abs(base.n_clips - read) > _GROWN * read

    def look(self) -> EmbeddedModel:
        """The model whose embeddings are used; they begin to be read if they are new.

        Raises:
            UserError: there are none, or they could not be read.
        """
        base = self.base()
        with self._lock:
            failed, self._failed = self._failed, None
            if failed is not None:
                raise UserError(failed)
            if not self._is_reading and self._is_new(base):
                self._is_reading = True
                threading.Thread(target=self._read, args=(base,), daemon=True).start()
        return base

    def _read(self, base: EmbeddedModel) -> None:
        def note(n_read: int, n_all: int) -> None:
            self.progress = n_read, n_all

        with suppress(ImportError):
            import sklearn.linear_model  # noqa: F401 (seconds, which nobody need wait for later)
        try:
            self.patches = read_patches(self.engine, self.home, base, note)
        except Exception as error:  # told to whoever looks next, who may try again
            self._failed = f"the embeddings cannot be read: {' '.join(str(error).split())}"
        finally:
            self._is_reading = False

    def label(self, model: ModelReport) -> None:
        """Begin `audioset label --model NAME`, as a process that outlives the page.

        It holds a lock on its log as long as it lives. What is labelled already costs nothing.
        """
        # The address may hold a password, which no list of processes should show.
        environment = {
            **os.environ,
            "AUDIOSET_DB": self.engine.url.render_as_string(hide_password=False),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        arguments = ["label", "--model", model.name, "--home", str(self.home.absolute())]
        self._log(model.name).parent.mkdir(exist_ok=True)
        with self._log(model.name).open("ab") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # it is at work
            log.truncate(0)
            self._at_work[model.name] = subprocess.Popen(  # noqa: S603 (this program itself)
                [sys.executable, "-c", _PROGRAM, *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=environment, start_new_session=True,
            )  # fmt: skip

    def labelling(self, name: str) -> Labelling:
        """How far the labelling with a model is."""
        process = self._at_work.get(name)
        code = process.poll() if process is not None else None
        try:
            with self._log(name).open("rb") as log:
                text = log.read().decode(errors="replace")
                try:
                    fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    is_at_work = False
                except BlockingIOError:
                    is_at_work = True
        except OSError:
            return Labelling(is_at_work=False, has_failed=False, said=())
        lines = [one_line(line) for line in text.splitlines() if line.strip()]
        return Labelling(
            is_at_work=is_at_work, has_failed=code not in (None, 0),
            said=tuple(lines[-_LAST_LINES:]),
        )  # fmt: skip

    def _log(self, name: str) -> Path:
        return self.home / "taught" / f"{name}.log"
