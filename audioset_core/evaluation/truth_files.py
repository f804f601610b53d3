"""Files of truth, which say what recordings contain: of public data sets, tables, and reviews.

    esc                meta/esc50.csv of ESC-50: filename, category
    audioset-segments  AudioSet's segments: # comments, then YTID, start, end, "mid,mid"
    audioset-strong    AudioSet's temporally strong labels: segment_id, start, end, mid by tabs
    fsd50k             FSD50K.ground_truth/{dev,eval}.csv: fname, labels, mids
    csv                a recording and a class in each line, with times if you like; or a review,
                       which has a verdict (yes, no, unsure) in each line

Source: https://github.com/karolpiczak/ESC-50, https://research.google.com/audioset/download.html,
https://research.google.com/audioset/download_strong.html, https://zenodo.org/records/4060432
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from audioset_core.data import FOLDER
from audioset_core.errors import UnknownNodeError, UserError
from audioset_core.inputs.delimited import encoding_of, open_table
from audioset_core.inputs.written_paths import names_meant
from audioset_core.marks import tables
from audioset_core.marks.mark import Mark
from audioset_core.marks.names import listed
from audioset_core.marks.read import format_of, mark_files, read_marks
from audioset_core.ontology.graph import Ontology

TruthFormat = Literal["esc", "audioset-segments", "audioset-strong", "fsd50k", "csv"]

_ESC_FILE = FOLDER / "esc_classes.csv"
_KEYS = (
    "clip", "sha256", "path", "file_path", "filepath", "full_path", "fullname", "file", "file_name",
    "filename", "audio_file", "fname", "recording", "id",
)  # fmt: skip
_CLASSES = ("mid", "mids", "label", "labels", "class", "classes", "name", "category")
_LEAST_SEGMENT_S = 0.1
_VERDICTS = ("yes", "no", "unsure")


@dataclass(frozen=True, slots=True)
class Event:
    """One sound in a recording, in seconds from its start."""

    mid: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Item:
    """A recording, or a span of one, and the classes that are known to be in it or not.

    `keys`: names of the recording, the most likely first: a clip id, an id, a path, a file's name
    with or without its ending. `negatives` None: every class that is not listed is absent.
    `segment_s`: its place in a longer recording, if it is a part of one; a span is then within it.
    """

    keys: tuple[str, ...]
    positives: frozenset[str]
    negatives: frozenset[str] | None = None
    span_s: tuple[float, float] | None = None
    segment_s: tuple[float, float] | None = None
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Truth:
    """The content of a truth file; `left_out` counts by reason what could not be used."""

    format: TruthFormat
    items: tuple[Item, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    is_exclusive: bool = False
    """Each recording is of one class, and classes exclude each other."""
    has_times: bool = False

    @property
    def mids(self) -> tuple[str, ...]:
        """Every class that some item names as present or absent, sorted."""
        return tuple(sorted({m for i in self.items for m in i.positives | (i.negatives or set())}))


def read_truth(path: Path, kind: TruthFormat, ontology: Ontology) -> Truth:
    """Read a truth file.

    Raises:
        UserError: it cannot be read, has another format, or names an unknown class (unknown MIDs
            in files of public data sets are counted instead).
    """
    counts = Counter[str]()
    try:
        items, has_times = _READERS[kind](_Source(path, ontology, counts))
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not items:
        raise UserError(f"{path} names no recording that could be used as {kind}")
    return Truth(kind, tuple(items), dict(counts), kind == "esc", has_times)


def in_segments(truth: Truth, length_s: float) -> Truth:
    """Each recording cut into segments, with the classes of the events that overlap a segment.

    Raises:
        UserError: the truth has no times, or the length is too short or not finite.
    """
    if not truth.has_times:
        raise UserError(f"--segment is for truth with times of events, and {truth.format} has none")
    if not _LEAST_SEGMENT_S <= length_s < math.inf:
        raise UserError(f"--segment {length_s:g}: at least {_LEAST_SEGMENT_S:g} seconds")
    items = []
    for item in truth.items:
        total_s = item.segment_s[1] - item.segment_s[0] if item.segment_s else 0.0
        for n in range(math.ceil(total_s / length_s - 1e-9)):
            span_s = (n * length_s, min((n + 1) * length_s, total_s))
            inside = (e.mid for e in item.events if e.start_s < span_s[1] and e.end_s > span_s[0])
            items.append(replace(item, positives=frozenset(inside), span_s=span_s, events=()))
    return replace(truth, items=tuple(items))


@dataclass(frozen=True, slots=True)
class _Source:
    path: Path
    ontology: Ontology
    counts: Counter[str]

    def rows(self, *needed: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
        """(where, row) of a table with a header; of each of `needed` one column must be there."""
        known = {name for names in needed for name in names}
        with open_table(self.path, known | {"verdict", "start_s", "end_s"}) as table:
            columns = set(table.headings)
            missing = [" or ".join(names) for names in needed if not columns & set(names)]
            if missing:
                raise UserError(
                    f"{self.path} has no column {missing[0]}: is its --format right? "
                    f"({table.described})"
                )
            for line, cells in table.rows:
                row = dict(zip(reversed(table.headings), reversed(cells), strict=True))
                yield f"{self.path}, line {line}", {k: v.strip() for k, v in row.items()}

    def lines(self) -> Iterator[str]:
        """The lines of a file without a header."""
        encoding = encoding_of(self.path)
        encoding = "utf-8-sig" if encoding == "utf-8" else encoding
        with self.path.open(encoding=encoding, newline="") as file:
            yield from file

    def find(self, text: str, where: str) -> str:
        try:
            return self.ontology.find(text).mid
        except UserError as error:
            raise UserError(f"{where}: {error}") from None

    def known(self, mids: Iterable[str]) -> frozenset[str]:
        """The MIDs that the ontology has; the others are counted."""
        wanted = {mid.strip() for mid in mids if mid.strip()}
        found = {mid for mid in wanted if mid in self.ontology.nodes}
        if len(found) < len(wanted):
            self.counts["labels that the ontology lacks"] += len(wanted - found)
        return frozenset(found)


_Read = tuple[list[Item], bool]


def _esc(source: _Source) -> _Read:
    items = []
    for where, row in source.rows(("filename", "path"), ("category",)):
        category = re.sub(r"[\s,]+", "_", row["category"].casefold())
        if category not in _esc_classes():
            near = UnknownNodeError(row["category"], _nearest(category, _esc_classes()))
            raise UserError(f"{where}: {near}")
        name = _esc_classes()[category]
        if not name:
            source.counts["recordings of ESC-50 classes that AudioSet lacks"] += 1
            continue
        mid = source.ontology.find(name).mid
        items.append(Item((row.get("filename") or row["path"],), frozenset({mid})))
    return items, False


@cache
def _esc_classes() -> Mapping[str, str]:
    """Class by category of ESC-50 and of ESC-10's folders; "" where AudioSet has none."""
    with _ESC_FILE.open(encoding="utf-8", newline="") as file:
        return {row["category"]: row["class"] for row in csv.DictReader(file)}


def _audioset_segments(source: _Source) -> _Read:
    items = []
    lines = (line for line in source.lines() if not line.startswith("#"))
    for number, row in enumerate(csv.reader(lines, skipinitialspace=True), 1):
        if not row or row == ["YTID", "start_seconds", "end_seconds", "positive_labels"]:
            continue
        where = f"{source.path}, segment {number}"
        if len(row) != 4:
            raise UserError(f'{where}: expected YTID, start, end, "mid,mid", found {row!r}')
        span_s = _span(row[1], row[2], where)
        mids = source.known(row[3].split(","))
        items.append(Item(_segment_keys(row[0], *span_s), mids, segment_s=span_s))
    return items, False


def _segment_keys(ytid: str, start_s: float, end_s: float) -> tuple[str, ...]:
    """The names that download tools give to a segment's file; last, that of the whole video."""
    start, ms = f"{start_s:.3f}", round(start_s * 1000)
    named = (
        f"{ytid}_{ms}", f"{ytid}_{start}_{end_s:.3f}", f"{ytid}_{start}", f"{ytid}_{start_s:g}",
        f"{ytid}_{start_s:g}_{end_s:g}", f"{ytid}_{ms}_{round(end_s * 1000)}", f"Y{ytid}", ytid,
    )  # fmt: skip
    return tuple(dict.fromkeys(named))


def _audioset_strong(source: _Source) -> _Read:
    by_segment: dict[str, list[Event]] = {}
    columns = ("segment_id", "start_time_seconds", "end_time_seconds", "label")
    for where, row in source.rows(*((c,) for c in columns)):
        events = by_segment.setdefault(row["segment_id"], [])
        if not source.known([row["label"]]):
            continue
        events.append(
            Event(row["label"], *_span(row["start_time_seconds"], row["end_time_seconds"], where))
        )
    items = []
    for segment, events in by_segment.items():
        mids = frozenset(event.mid for event in events)
        ytid, _, start_ms = segment.rpartition("_")
        if not ytid or not start_ms.isdecimal():
            raise UserError(f"{source.path}: the segment {segment!r} is not YTID_milliseconds")
        start_s = int(start_ms) / 1000
        keys = (segment, *_segment_keys(ytid, start_s, start_s + 10))
        segment_s = (start_s, start_s + 10)
        items.append(
            Item(tuple(dict.fromkeys(keys)), mids, segment_s=segment_s, events=tuple(events))
        )
    return items, True


def _fsd50k(source: _Source) -> _Read:
    rows = source.rows(("fname",), ("labels",), ("mids",))
    return [Item((row["fname"],), source.known(row["mids"].split(","))) for _, row in rows], False


def _table(source: _Source) -> _Read:
    """A review if there are verdicts, else a recording and its classes in each line.

    Files in which programs keep marks, and folders of them, are of whole recordings.
    """
    if _has_marks(source.path):
        return _marked(source), False
    rows = source.rows(_KEYS, _CLASSES)
    judged: dict[tuple[tuple[str, ...], tuple[float, float] | None], dict[str, set[str]]] = (
        defaultdict(lambda: {"yes": set(), "no": set()})
    )
    is_review = False
    for where, row in rows:
        written = (name for column in _KEYS if row.get(column) for name in names_meant(row[column]))
        keys = tuple(dict.fromkeys(written))
        if not keys:
            raise UserError(f"{where}: no recording is named")
        has_span = row.get("start_s") or row.get("end_s")
        span_s = _span(row.get("start_s", ""), row.get("end_s", ""), where) if has_span else None
        is_review = "verdict" in row
        verdict = row.get("verdict", "yes").casefold() if is_review else "yes"
        found = judged[keys, span_s]
        if verdict not in _VERDICTS and verdict:
            raise UserError(
                f"{where}: the verdict {verdict!r} is not one of {', '.join(_VERDICTS)}"
            )
        if verdict in ("unsure", ""):
            source.counts["verdicts that are unsure"] += 1
            continue
        text = next((row[name] for name in _CLASSES if row.get(name)), "")
        found[verdict] |= {source.find(each, where) for each in listed(text)}
    items = []
    for (keys, span_s), found in judged.items():
        both = found["yes"] & found["no"]
        if both:
            source.counts["verdicts that contradict each other"] += len(both)
        no = frozenset(found["no"] - both) if is_review else None
        items.append(Item(keys, frozenset(found["yes"] - both), no, span_s))
    if is_review:
        items = [item for item in items if item.positives or item.negatives]
    return items, False


def _has_marks(path: Path) -> bool:
    """Whether it is a file of an annotation program (`audioset_core.marks`), not a plain table."""
    if path.is_file() and not path.stat().st_size:
        return False
    if path.is_dir() or format_of(path) != "table":
        return True
    with open_table(path, {*_KEYS, *_CLASSES, *tables.STARTS}) as table:
        there = set(table.headings)
    own = there & set(_KEYS) and there & set(_CLASSES)
    return not own and bool(there & set(tables.NAMES) and there & set(tables.STARTS))


def _marked(source: _Source) -> list[Item]:
    """Marked classes are present, others absent; with verdicts, each is for its span alone."""
    marks: list[Mark] = []
    silent = []
    for path in mark_files([source.path]):
        found = read_marks(path, source.ontology)
        if found.problems:
            raise UserError(f"{path}, {found.problems[0].place}: {found.problems[0].text}")
        marks += found.marks
        silent += [Item(found.silent, frozenset())] if found.silent else []
        source.counts.update(found.counts)
    is_judged = any(mark.verdict != "present" for mark in marks)
    by_item: dict[Any, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for mark in marks:
        place = (mark.keys, mark.span_s if is_judged else None)
        by_item[place][mark.verdict].add(mark.mid)
    items = [
        Item(
            keys,
            frozenset(said["present"] - said["absent"]),
            frozenset(said["absent"] - said["present"]) if is_judged else None,
            span_s,
        )
        for (keys, span_s), said in by_item.items()
    ]
    return items if is_judged else items + silent


_READERS: Mapping[TruthFormat, Callable[[_Source], _Read]] = {
    "esc": _esc,
    "audioset-segments": _audioset_segments,
    "audioset-strong": _audioset_strong,
    "fsd50k": _fsd50k,
    "csv": _table,
}


def _span(start: str, end: str, where: str) -> tuple[float, float]:
    try:
        # Where semicolons part the columns, a comma is the decimal mark.
        start_s, end_s = (float(text.replace(",", ".")) for text in (start, end))
    except ValueError:
        start_s = end_s = math.nan
    if not 0 <= start_s <= end_s < math.inf:
        raise UserError(f"{where}: {start!r} to {end!r} is not a span of seconds")
    return start_s, end_s


def _nearest(text: str, known: Iterable[str]) -> tuple[str, ...]:
    from difflib import get_close_matches

    return tuple(get_close_matches(text, known, n=3, cutoff=0.3))
