"""The notes in files of clips that an earlier version labelled, which kept fewer."""

from __future__ import annotations

import os

from sqlalchemy import Engine

from audioset_core.audio.recording import open_regular
from audioset_core.audio.sandbox import open_sandboxed
from audioset_core.errors import AudioError, Reason
from audioset_core.file_headers.field_notes import FieldNotes
from db.catalog.clips import add_notes, clips_without_notes
from tasks.labelling.start_times import told_by_file


def read_notes_again(engine: Engine) -> tuple[int, int]:
    """Read the headers of clips without notes; how many have some, and how many files are changed.

    That is meant for clips that an earlier version labelled. Nothing is decoded.
    """
    n_found, n_changed = 0, 0
    for page in clips_without_notes(engine):
        for clip_id, path, size_bytes, mtime_ns in page:
            try:
                notes = _notes_in(path, (size_bytes, mtime_ns))
            except (AudioError, OSError):
                n_changed += 1
                continue
            if notes is not None:
                add_notes(engine, clip_id, told_by_file(notes), notes.statements)
                n_found += 1
    return n_found, n_changed


def _notes_in(path: bytes, as_labelled: tuple[int, int]) -> FieldNotes | None:
    fd = open_regular(path)
    try:
        now = os.fstat(fd)
        if (now.st_size, now.st_mtime_ns) != as_labelled:
            raise AudioError(Reason.CHANGED)
        decoder = open_sandboxed(fd, now.st_size)
        decoder.stop_reading()  # its process reads the next file's header
        return decoder.info.notes
    finally:
        os.close(fd)
