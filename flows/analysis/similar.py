"""The recordings most like one: from an index of vectors where there is one, else from every file.

An index only proposes. What it proposes is compared with the tables (is that still the recording's
labelling?) and again by the stored vectors, so that no cosine is an approximate one; recordings
that the index does not have yet are read as well.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from db.paging import PAGE
from db.query.question import Question, restricts_clips
from db.score_files.comparable import Vectors, comparable, describe
from db.score_files.indexed import Series, clips_by_labelling, iter_files_of_other_runs
from flows.analysis.stored_scores import Row, patch_times

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from audioset_core.arrays import F64, Floats
    from audioset_core.scores.similarity import Neighbour
    from audioset_core.storage.index_files import Rows
    from audioset_core.storage.vector_index import VectorIndex

SIMILAR_COLUMNS = ("cosine", "start_s", "end_s", "clip", "path")

_PROPOSALS = 32
"""What the index is asked for beyond twice as many as are wanted."""

_File = tuple[str, str, list[int] | None]
"""A clip, the path of its file, and which of its patches are compared (None: all)."""


@dataclass(frozen=True, slots=True)
class Similar:
    """The answer, as rows of `SIMILAR_COLUMNS`, and how it was found.

    `n_read`: recordings that were read one by one; `n_indexed`: that the index has, None where none
    was asked; `remark`: why an index that is there was not asked.
    """

    rows: list[Row]
    n_read: int
    n_indexed: int | None
    remark: str | None

    @property
    def how(self) -> str:
        """What was compared, in words."""
        if self.n_indexed is None:
            return f"with {self.n_read:,} other recordings"
        newer = f", {self.n_read:,} newer ones read one by one" if self.n_read else ""
        return f"from the index of {self.n_indexed:,} recordings{newer}"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is looked for: files that point in a direction, by their best patch or by their mean.

    Shape:
        wanted: [dim]
    """

    home: Path
    query: Vectors
    wanted: F64
    by_patch: bool
    top: int


@dataclass(frozen=True, slots=True)
class _Proposed:
    """What is to be compared because of an index."""

    files: list[_File]
    n_newer: int
    n_indexed: int


def similar_clips(
    engine: Engine,
    home: Path,
    query: Vectors,
    question: Question,
    at_s: float | None,
    top: int,
    is_exact: bool = False,
) -> Similar:
    """The clips most like one, or its patch at a second.

    Of the question, only what it says of clips and files counts. Where that leaves any out, or if
    `is_exact`, no index is asked. A whole clip has no times.

    Raises:
        UserError: the clip ends before that second.
    """
    from audioset_core.errors import AudiosetError, UserError

    if at_s is not None and at_s >= query.duration_s:
        raise UserError(f"the recording ends at {query.duration_s:.2f} s, before {at_s:g} s")
    asked = _Asked(home, query, _wanted(home, query, at_s), at_s is not None, top)
    proposed = remark = None
    if not is_exact and not restricts_clips(question):
        try:
            proposed = _proposed(engine, asked)
        except AudiosetError as error:
            remark = f"the index was not asked: {error}"
    if proposed is None:
        every = comparable(engine, query, question)
        found, n_read = _nearest(asked, ((clip, path, None) for clip, path in every))
        n_indexed = None
    else:
        found, _ = _nearest(asked, proposed.files)
        n_read, n_indexed = proposed.n_newer, proposed.n_indexed
    described = describe(engine, [each.clip for each in found], question)
    rows = []
    for each in found:
        file, at = described[each.clip], each.patch
        when = (None, None) if at is None else patch_times(query, at, at, file.duration_s)
        rows.append((each.cosine, *when, each.clip, file.path_text))
    return Similar(rows, n_read, n_indexed, remark)


def has_index(home: Path, query: Vectors, *, by_moment: bool) -> bool:
    """Whether there is an index that could answer."""
    from audioset_core.storage.index_files import About, is_there

    rows: Rows = "moments" if by_moment else "recordings"
    return is_there(home / "index", About(query.model, query.digest, query.kind, rows))


def _wanted(home: Path, query: Vectors, at_s: float | None) -> F64:
    """The mean of a clip's vectors, or the vector of its patch at a second."""
    from audioset_core.scores.similarity import mean_vector, prepare_of
    from audioset_core.storage.score_files import read_scores

    prepare = prepare_of(query.kind)
    own = read_scores(home / query.path, mmap=True)
    if at_s is None:
        return mean_vector(own, prepare)
    # The patch in whose middle the second lies, or nearly.
    patch = round((at_s - query.window_s / 2) / query.patch_hop_s)
    row = own[min(len(own) - 1, max(0, patch))]
    moment: F64 = prepare(row[None])[0].astype("float64")
    return moment


def _nearest(asked: _Asked, files: Iterable[_File]) -> tuple[list[Neighbour], int]:
    """The nearest of these files by their stored vectors, and how many files there were."""
    from audioset_core.scores.similarity import nearest, prepare_of
    from audioset_core.storage.score_files import read_scores

    n_read = 0
    patches_of: dict[str, list[int]] = {}

    def matrices() -> Iterator[tuple[str, Floats]]:
        nonlocal n_read
        for clip, path, patches in files:
            n_read += 1
            matrix = read_scores(asked.home / path, mmap=True)
            if patches is not None:
                patches_of[clip] = patches
                matrix = matrix[patches]
            yield clip, matrix

    found = nearest(
        asked.wanted, matrices(),
        top=asked.top, by_patch=asked.by_patch, prepare=prepare_of(asked.query.kind),
    )  # fmt: skip
    return [
        replace(each, patch=patches_of[each.clip][each.patch])
        if each.patch is not None and each.clip in patches_of
        else each
        for each in found
    ], n_read


def _proposed(engine: Engine, asked: _Asked) -> _Proposed | None:
    """What an index proposes; None where there is none, or it has fewer than are wanted.

    Raises:
        DamagedIndexError: the index cannot be used.
        UserError: usearch is not installed.
    """
    from audioset_core.storage.index_files import About
    from audioset_core.storage.vector_index import open_index

    query, width = asked.query, len(asked.wanted)
    rows: Rows = "moments" if asked.by_patch else "recordings"
    about = About(query.model, query.digest, query.kind, rows)
    index = open_index(asked.home / "index", about, width)
    if index is None:
        return None
    series = Series(
        query.model, query.model_id, query.parameter_set_id, query.digest, width, query.kind
    )
    count = 2 * asked.top + _PROPOSALS
    files = _living(engine, asked, series, index, count)
    while len(files) < asked.top and count < index.n_vectors:
        count *= 4  # many moments of few recordings, or many that were labelled again
        files = _living(engine, asked, series, index, count)
    if len(files) < asked.top:
        return None
    missing = clips_by_labelling(engine, series, _newer(engine, series, index))
    newer: list[_File] = [
        (clip, path, None) for clip, path in missing.values() if clip != query.clip
    ]
    return _Proposed(files + newer, len(newer), len(index.members) - index.coverage.n_gone)


def _living(
    engine: Engine, asked: _Asked, series: Series, index: VectorIndex, count: int
) -> list[_File]:
    """The nearest vectors, by recording; without those that a finished labelling no longer has."""
    from audioset_core.storage.vector_index import member_digest

    patches: dict[int, list[int]] = defaultdict(list)
    for found in index.search(asked.wanted, count):
        patches[found.member].append(found.patch)
    members = index.members[list(patches)].tolist()
    now = clips_by_labelling(engine, series, [labelling for labelling, _ in members])
    return [
        (clip, path, sorted(patches[number]) if asked.by_patch else None)
        for number, (labelling, digest) in zip(patches, members, strict=True)
        for clip, path in [now.get(labelling, ("", ""))]
        if digest == member_digest(labelling, path) and clip != asked.query.clip
    ]


def _newer(engine: Engine, series: Series, index: VectorIndex) -> list[int]:
    """The labellings that the index does not have."""
    from audioset_core.storage.vector_index import are_among, digest_of, member_digest

    def known(runs: Sequence[str]) -> Sequence[bool]:
        found: list[bool] = are_among(map(digest_of, runs), index.coverage.runs).tolist()
        return found

    newer = index.coverage.left_out.tolist()
    files = iter_files_of_other_runs(engine, series, known)
    while some := list(islice(files, PAGE)):
        has = are_among([member_digest(*file) for file in some], index.digests)
        newer += [file[0] for file, is_in in zip(some, has.tolist(), strict=True) if not is_in]
    return list(dict.fromkeys(newer))
