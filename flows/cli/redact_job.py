"""The copies and tables of ``audioset redact``, and what is there already.

A line of redactions.jsonl is synced before its copy gets its name, so that no copy is without one;
both tables are made of these lines.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine

from audioset_core.cuts.recording_cuts import LabelledFile
from audioset_core.errors import AudioError, UserError
from audioset_core.export_formats.file_names import tree_name
from audioset_core.export_formats.text import delimited
from audioset_core.redaction.copies import Copy, Span, VoiceScores, find_spans, opened, write_copy
from audioset_core.redaction.settings import Redaction
from audioset_core.redaction.voice import DETECTOR
from audioset_core.scores.pooling import sigmoid
from audioset_core.storage.atomic_files import TEMP_SUFFIX, move_into_place, write_text
from audioset_core.storage.score_files import read_scores
from db.reports.redactable import RedactableFile, classes_by_column
from flows.terminal import note, one_line

LINES, TABLE, FAILURES = "redactions.jsonl", "redactions.csv", "failures.csv"
_OF_COPY = (
    "file", "clip", "source", "copy_sha256", "source_format", "format", "sample_rate_hz",
    "n_channels", "n_samples", "model", "voice_detector", "program", "redacted_at", "remark",
)  # fmt: skip
_OF_SPAN = (
    "start_s", "end_s", "first_sample", "n_redacted", "why", "classes", "voice_peak",
)  # fmt: skip
_OF_SETTINGS = ("label_score", "voice_probability", "padding_s", "low_pass_hz", "also")
COLUMNS = ("file", *_OF_SPAN, *_OF_COPY[1:], *_OF_SETTINGS)
FAILURE_COLUMNS = ("source", "clip", "reason")
_N_TOLD = 10
_DIGITS = 9
_LEFT_BEHIND = re.compile(r"\.[0-9a-f]{16}" + re.escape(TEMP_SUFFIX))

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is written where. `voices`: MIDs of what counts; `root`: names begin there."""

    home: Path
    out: Path
    root: bytes
    settings: Redaction
    voices: tuple[str, ...]


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """The folder, made if need be, for this process alone; what a killed one left is removed.

    Raises:
        UserError: `out` is a file, or another process writes to it.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name the folder to write to")
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        left: Iterable[Path] = out.rglob(f".*{TEMP_SUFFIX}")
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another audioset redact writes to {out}: wait for its end") from None
        except OSError:  # NFS locks no folder: what is there may be another's that is at work
            left = ()
        for path in left:
            if _LEFT_BEHIND.fullmatch(path.name):
                path.unlink(missing_ok=True)
        yield
    finally:
        os.close(folder)


class RedactJob:
    """A running job: the lines of the copies in the folder, by file, and its failures."""

    def __init__(self, engine: Engine, wanted: Wanted) -> None:
        self._engine, self._wanted = engine, wanted
        self._lines = lines_there(wanted.out)
        self._columns: dict[int, dict[int, str]] = {}
        self._failures: list[Row] = []
        self.counts = Counter[str]()

    def redact(self, file: RedactableFile) -> None:
        """Make the copy of a file, unless the same one is there; or tell why there is none."""
        name = str(tree_name(file.path, self._wanted.root, ".flac")).removesuffix(".flac")
        made = next((n for n in _names(name) if self._is_of(n, file)), None)
        if made is not None and self._is_same(self._lines[made], file):
            self._count(self._lines[made], "there")
            return
        try:
            self._write(name, file)
        except (AudioError, UserError) as error:
            if made is not None:  # made with other settings, or of another recording
                (self._wanted.out / made).unlink(missing_ok=True)
                del self._lines[made]
            self.fail(file.path_text, str(error), file.clip or "")

    def fail(self, source: str, why: str, clip: str = "") -> None:
        """Tell and keep that a recording has no copy."""
        self.counts["failed"] += 1
        if self.counts["failed"] <= _N_TOLD:
            note(f"not copied: {one_line(source)}: {one_line(why)}")
        self._failures.append({"source": source, "clip": clip, "reason": why})

    def write_tables(self) -> None:
        """The lines and the table of all copies that are in the folder, and the failures."""
        out = self._wanted.out
        kept = [line for name, line in sorted(self._lines.items()) if (out / name).exists()]
        write_text(out / LINES, (_json(line) for line in kept))
        rows = chain.from_iterable(map(_rows, kept))
        write_text(out / TABLE, _csv(COLUMNS, rows))
        if self._failures:
            write_text(out / FAILURES, _csv(FAILURE_COLUMNS, iter(self._failures)))
        else:
            (out / FAILURES).unlink(missing_ok=True)

    def _write(self, name: str, file: RedactableFile) -> None:
        settings, path = self._wanted.settings, self._wanted.out / name
        labels, source = self._scores(file), _labelled_file(file)
        assert file.n_samples is not None  # noqa: S101 (for mypy: it is labelled)
        with opened(source, file.n_samples) as recording:
            spans = find_spans(recording, labels, file.n_samples, settings)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise UserError(f"a file is there where its folder would be: {name}") from error
            copy = write_copy(recording, spans, path.parent, file.n_samples, settings)
            info = recording.known_info()
        try:
            made = f"{name}{copy.suffix}"
            if (self._wanted.out / made).exists() and not self._is_of(made, file):
                raise UserError(f"{made} is there, which is not a copy of it")
            line = self._line(made, file, copy, spans) | {"source_format": info.format}
            with (self._wanted.out / LINES).open("a") as lines:
                lines.write(_json(line))
                lines.flush()
                os.fsync(lines.fileno())
            for other in _names(name):
                if other != made and self._is_of(other, file):
                    (self._wanted.out / other).unlink(missing_ok=True)
            move_into_place(copy.part, self._wanted.out / made)
        finally:
            copy.part.unlink(missing_ok=True)
        self._lines[made] = line
        self._count(line, "written")

    def _scores(self, file: RedactableFile) -> VoiceScores:
        """The stored scores of voices.

        Raises:
            UserError: there are none, or the file is not as it was written; or the recording was
                not read completely, or is gone.
        """
        if file.status == "missing":
            raise UserError("it is no longer there")
        if file.model_id is None or file.clip is None:
            why = f"labelling failed: {file.reason}" if file.reason else "not labelled"
            raise UserError(f"{why}: audioset label")
        if file.is_partial:
            raise UserError("only a part of it could be read and labelled")
        if file.scores_path is None or file.patch_hop_s is None or file.window_s is None:
            raise UserError("its labelling has no scores")
        if file.model_id not in self._columns:
            found = classes_by_column(self._engine, file.model_id, self._wanted.voices)
            self._columns[file.model_id] = found
        columns = self._columns[file.model_id]
        if not columns:
            raise UserError(f"{file.model} predicts no voices: choose another --model")
        path = self._wanted.home / file.scores_path
        try:
            with path.open("rb") as scores:
                digest = hashlib.file_digest(scores, "sha256").hexdigest()
            if digest != file.scores_sha256:
                raise UserError("its score file is damaged: audioset verify")
            logits = read_scores(path, mmap=True)[:, list(columns)]
        except OSError as error:
            why = f"its score file cannot be read: {error.strerror}: audioset verify"
            raise UserError(why) from error
        scores_ = sigmoid(np.asarray(logits, np.float32))
        return VoiceScores(list(columns.values()), scores_, file.patch_hop_s, file.window_s)

    def _line(self, made: str, file: RedactableFile, copy: Copy, spans: Sequence[Span]) -> Row:
        return {
            "file": made, "clip": file.clip, "source": file.path_text,
            "copy_sha256": copy.sha256, "format": copy.format, "remark": copy.remark,
            "sample_rate_hz": file.sample_rate_hz, "n_channels": file.n_channels,
            "n_samples": file.n_samples, "scores_sha256": file.scores_sha256,
            "settings": self._settings(), "spans": [asdict(span) for span in spans],
            "model": file.model, "voice_detector": DETECTOR,
            "program": f"audioset-flows {version('audioset-flows')}",
            "redacted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip

    def _settings(self) -> Row:
        settings = asdict(self._wanted.settings)
        return settings | {"also": list(settings["also"])}

    def _is_of(self, made: str, file: RedactableFile) -> bool:
        return made in self._lines and self._lines[made]["source"] == file.path_text

    def _is_same(self, line: Row, file: RedactableFile) -> bool:
        """Whether the copy is there that would be made; its bytes are compared with the line."""
        now = {
            "clip": file.clip, "scores_sha256": file.scores_sha256,
            "settings": self._settings(), "voice_detector": DETECTOR,
        }  # fmt: skip
        if any(line[key] != value for key, value in now.items()):
            return False
        with suppress(OSError), (self._wanted.out / line["file"]).open("rb") as copy:
            digest = hashlib.file_digest(copy, "sha256").hexdigest()
            return bool(digest == line["copy_sha256"])
        return False

    def _count(self, line: Row, what: str) -> None:
        self.counts.update({
            what: 1, "spans": len(line["spans"]), "clean": not line["spans"],
            "converted": bool(line["remark"]),
            "ms": sum(_n_redacted(s) for s in line["spans"]) * 1000 // line["sample_rate_hz"],
            "of ms": line["n_samples"] * 1000 // line["sample_rate_hz"],
        })  # fmt: skip


def lines_there(out: Path) -> dict[str, Row]:
    """The lines of earlier calls, by file. The last one may have been cut off by a kill.

    Raises:
        UserError: a file of this name is there which this command did not write.
    """
    path = out / LINES
    lines = path.read_text().splitlines() if path.exists() else []
    found: dict[str, Row] = {}
    try:
        for number, text in enumerate(lines, start=1):
            try:
                line = json.loads(text)
                found[line["file"]] = line
            except ValueError:
                if number < len(lines):
                    raise
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not of this command: name another folder") from None
    if not lines and (out / TABLE).exists():
        raise UserError(f"{out} has a {TABLE} without its {LINES}: name another folder")
    if path.exists():
        write_text(path, map(_json, found.values()))  # without what was cut off
    return found


def _rows(line: Row) -> Iterator[Row]:
    """A row for each span; one without a span for a copy in which nothing is redacted."""
    rate_hz = line["sample_rate_hz"]
    of_copy = {name: line[name] for name in _OF_COPY} | line["settings"]
    of_copy["also"] = " ".join(of_copy["also"])
    if not line["spans"]:
        yield dict.fromkeys(COLUMNS, "") | of_copy | {"why": "nothing was found"}
    for span in line["spans"]:
        yield of_copy | {
            "start_s": round(span["first"] / rate_hz, _DIGITS),
            "end_s": round(span["last"] / rate_hz, _DIGITS),
            "first_sample": span["first"], "n_redacted": _n_redacted(span),
            "why": span["why"], "voice_peak": span["voice_peak"],
            "classes": "; ".join(f"{name} {peak:.4f}" for name, peak in span["classes"]),
        }  # fmt: skip


def _n_redacted(span: Row) -> int:
    return int(span["last"] - span["first"])


def _names(name: str) -> tuple[str, ...]:
    """What the copy of a recording of this name may be called."""
    return name, f"{name}.flac", f"{name}.wav"


def _labelled_file(file: RedactableFile) -> LabelledFile:
    return LabelledFile(
        file.path, file.size_bytes, file.mtime_ns, file.clip or "", file.sample_rate_hz or 0,
        file.track,
    )  # fmt: skip


def _json(line: Row) -> str:
    return f"{json.dumps(line, ensure_ascii=False)}\n"


def _csv(columns: Sequence[str], rows: Iterator[Row]) -> Iterator[str]:
    return delimited(chain([columns], ([row[name] for name in columns] for row in rows)), ",")
