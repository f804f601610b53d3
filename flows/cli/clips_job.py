"""The files and tables of ``audioset clips export``: what is cut where, and what is there already.

A file's name tells class, score, recording and time, so the same sound always has the same name. A
file of that name which has the cut's length and rate is left as it is: files appear only whole.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from audioset_core.cuts.recording_cuts import Cut, LabelledFile, write_cuts
from audioset_core.cuts.sound_file import Format, facts_of
from audioset_core.errors import AudioError, Reason, UserError
from audioset_core.export_formats.file_names import class_folder, piece_name
from audioset_core.export_formats.text import delimited
from audioset_core.storage.atomic_files import write_text
from db.answer_records import HeardSound
from db.ledger.runs import labelled_paths
from db.query.question import Question
from db.reports.collection import Place, places
from flows.terminal import note, one_line, progress_lines

COLUMNS = (
    "file", "class", "mid", "score", "clip", "source", "start_s", "end_s", "start_in_file_s",
    "end_in_file_s", "padding_after_s", "first_sample", "n_samples", "sample_rate_hz", "format",
    "source_format", "source_channels", "track", "model", "model_version", "remark",
)  # fmt: skip
FAILURE_COLUMNS = (
    "class", "mid", "score", "clip", "source", "start_s", "end_s", "reason",
)  # fmt: skip
TABLE, LINES, FAILURES = "clips.csv", "clips.jsonl", "failures.csv"
_N_TOLD = 10
_DIGITS = 9

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is written where, and what was asked about the files."""

    out: Path
    padding_s: float
    sound_format: Format
    overwrite: bool
    question: Question | None = None


def refuse_clips(out: Path, padding_s: float) -> None:
    """Refuse what cannot be done.

    Raises:
        UserError: `out` is a file, or has a table of that name that is none of ours; or the padding
            is no number.
    """
    if not math.isfinite(padding_s):
        raise UserError(f"--padding {padding_s}: seconds, such as 1.5; 0 for none")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name the folder to write to")
    _rows_there(out)


def scanned_folder(engine: Engine, out: Path) -> str | None:
    """The labelled folder in which the files would be found as recordings, if there is one."""
    own = Path(os.path.abspath(out))  # noqa: PTH100 (links stay)
    for text in sorted(labelled_paths(engine)):
        folder = Path(os.path.abspath(text))  # noqa: PTH100
        if not (own.is_relative_to(folder) and folder.is_dir()):
            continue
        if not any(part.startswith(".") for part in own.relative_to(folder).parts):
            return str(folder)
    return None


def export_clips(engine: Engine, wanted: Wanted, sounds: Sequence[HeardSound]) -> Counter[str]:
    """Write files and tables; counts what was written, there and failed, and sounds by MID.

    Tables are written also when it is stopped: they tell what is there.
    """
    counts = Counter(sound.mid for sound in sounds)
    job = _Job(wanted, counts, _folders(sounds))
    show = progress_lines("sounds")
    by_clip: dict[tuple[str, Any], list[HeardSound]] = defaultdict(list)
    for sound in sounds:
        by_clip[sound.clip, sound.track].append(sound)
    try:
        n_done = 0
        for (clip, _), own in sorted(by_clip.items(), key=lambda item: item[0][0]):
            job.cut(places(engine, clip, wanted.question), own)
            n_done += len(own)
            show(n_done, len(sounds))
    finally:
        job.write_tables()
    return counts


class _Job:
    """A running export: its rows by the names of their files, and its failures."""

    def __init__(self, wanted: Wanted, counts: Counter[str], folders: Mapping[str, str]) -> None:
        self._wanted, self._counts, self._folders = wanted, counts, folders
        self._rows = _rows_there(wanted.out)
        self._failures: list[Row] = []
        self._taken: set[Path] = set()

    def cut(self, found: Sequence[Place], sounds: Sequence[HeardSound]) -> None:
        """Write the sounds of one clip, from the first of its files that can be read."""
        planned = {self._planned(found, sound): sound for sound in sounds}
        gone = "", AudioError(Reason.VANISHED, "the recording is no longer anywhere")
        left = {
            cut: gone for cut, sound in planned.items() if self._is_to_be_written(cut, sound, found)
        }
        for place in found:
            if not left:
                return
            source = _labelled_file(place, sounds[0])
            for cut, result in write_cuts(source, list(left), self._wanted.sound_format):
                if isinstance(result, AudioError):
                    left[cut] = place.path_text, result
                    continue
                del left[cut]
                self._counts["written"] += 1
                row = _row(cut, planned[cut], place)
                self._keep(result.path, row, result.encoding.format, result.encoding.remark)
        for cut, (path_text, error) in left.items():
            self._fail(planned[cut], path_text, str(error))

    def write_tables(self) -> None:
        """The tables of all files that are in the folder, by name, and of the failures."""
        out = self._wanted.out
        rows = [row for name, row in sorted(self._rows.items()) if (out / name).exists()]
        write_text(out / TABLE, _csv(COLUMNS, rows))
        write_text(out / LINES, (f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
        if self._failures:
            write_text(out / FAILURES, _csv(FAILURE_COLUMNS, self._failures))
        else:
            (out / FAILURES).unlink(missing_ok=True)

    def _planned(self, found: Sequence[Place], sound: HeardSound) -> Cut:
        rate_hz, padding_s = sound.sample_rate_hz, self._wanted.padding_s
        first = round(max(0.0, sound.start_s - padding_s) * rate_hz)
        last = min(sound.n_samples, round((sound.end_s + padding_s) * rate_hz))
        folder = self._wanted.out / self._folders[sound.mid]
        name = found[0].path if found else b""
        path = folder / piece_name(name, sound.score, sound.start_s, sound.clip[:8])
        if path in self._taken:
            path = folder / piece_name(name, sound.score, sound.start_s, sound.clip)
        self._taken.add(path)
        return Cut(first, last, path)

    def _is_to_be_written(self, cut: Cut, sound: HeardSound, found: Sequence[Place]) -> bool:
        """Whether there is no such file yet; one that is there is kept, or told as a failure."""
        if cut.last <= cut.first:
            self._fail(sound, _first(found), "the recording ends before the sound begins")
            return False
        endings = (".flac", ".wav") if self._wanted.sound_format == "flac" else (".wav",)
        paths = (cut.path.with_name(cut.path.name + ending) for ending in endings)
        path = next((path for path in paths if path.exists()), None)
        if path is None or self._wanted.overwrite:
            return True
        facts = facts_of(path)
        wanted = (cut.last - cut.first, sound.sample_rate_hz)
        if facts is None or (facts.n_samples, facts.sample_rate_hz) != wanted:
            why = f"{path.name} is there with another length: --overwrite replaces it"
            self._fail(sound, _first(found), why)
        elif found:
            self._counts["there"] += 1
            remark = self._rows.get(self._name(path), {}).get("remark", "")
            self._keep(path, _row(cut, sound, found[0]), facts.format, remark)
        return False

    def _keep(self, path: Path, row: Row, written_as: str, remark: str) -> None:
        name = self._name(path)
        row |= {"file": name, "format": written_as, "remark": remark}
        self._rows[name] = {column: row[column] for column in COLUMNS}

    def _fail(self, sound: HeardSound, source: str, why: str) -> None:
        self._counts["failed"] += 1
        if self._counts["failed"] <= _N_TOLD:
            note(f"not written: {one_line(source or sound.clip)}: {one_line(why)}")
        self._failures.append({
            "class": sound.name, "mid": sound.mid, "score": sound.score, "clip": sound.clip,
            "source": source, "start_s": sound.start_s, "end_s": sound.end_s, "reason": why,
        })  # fmt: skip

    def _name(self, path: Path) -> str:
        return path.relative_to(self._wanted.out).as_posix()


def _first(found: Sequence[Place]) -> str:
    return found[0].path_text if found else ""


def _row(cut: Cut, sound: HeardSound, place: Place) -> Row:
    """What a cut is, by `COLUMNS`, but for its file."""
    rate_hz = sound.sample_rate_hz
    first_s, last_s = cut.first / rate_hz, cut.last / rate_hz
    return {
        "class": sound.name, "mid": sound.mid, "score": sound.score, "clip": sound.clip,
        "source": place.path_text, "start_s": sound.start_s, "end_s": sound.end_s,
        "start_in_file_s": round(sound.start_s - first_s, _DIGITS),
        "end_in_file_s": round(sound.end_s - first_s, _DIGITS),
        "padding_after_s": max(0.0, round(last_s - sound.end_s, _DIGITS)),
        "first_sample": cut.first, "n_samples": cut.last - cut.first, "sample_rate_hz": rate_hz,
        "source_format": sound.format, "source_channels": sound.n_channels, "track": sound.track,
        "model": sound.model, "model_version": sound.model_version,
    }  # fmt: skip


def _labelled_file(place: Place, sound: HeardSound) -> LabelledFile:
    return LabelledFile(
        place.path, place.size_bytes, place.mtime_ns, sound.clip, sound.sample_rate_hz,
        sound.track, sound.is_partial,
    )  # fmt: skip


def _folders(sounds: Iterable[HeardSound]) -> dict[str, str]:
    """A folder's name for each MID; classes of one name, whatever its case, get theirs added."""
    names = {sound.mid: sound.name for sound in sounds}
    n_of_name = Counter(name.casefold() for name in names.values())
    return {
        mid: class_folder(f"{name} {mid}" if n_of_name[name.casefold()] > 1 else name)
        for mid, name in names.items()
    }


def _csv(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    return delimited(chain([columns], ([row[name] for name in columns] for row in rows)), ",")


def _rows_there(out: Path) -> dict[str, Row]:
    """The rows of an earlier export into the folder, by file.

    Raises:
        UserError: files of these names are there which this command did not write.
    """
    lines = out / LINES
    if not lines.exists() and not (out / TABLE).exists():
        return {}
    try:
        rows = [json.loads(line) for line in lines.read_text().splitlines()]
        if all(set(row) == set(COLUMNS) for row in rows):
            return {row["file"]: row for row in rows}
    except (OSError, ValueError, TypeError):
        pass
    raise UserError(
        f"{out} has a {TABLE} without the {LINES} of this version beside it: name another folder"
    )
