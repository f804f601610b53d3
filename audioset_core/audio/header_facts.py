"""What a file tells before it is decoded: by its header, and by the bytes around its samples."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from audioset_core.audio.remarks import Remark, RemarkKind
from audioset_core.file_headers.file_view import FileView, without_zeros_behind
from audioset_core.file_headers.ogg_pages import OggFault, n_streams, ogg_fault
from audioset_core.file_headers.signatures import kind_of
from audioset_core.file_headers.stated_sizes import (
    SampleBytes,
    matroska_size,
    mp3_tag,
    mp4_goes_on,
    rebuilt_wav,
    sample_bytes,
    what_follows,
    whole_size,
)
from audioset_core.file_headers.statements import statements
from audioset_core.records import Statement

_FRAMES = {"FLAC": 0, "AMR": 4, "AC-3": 4, "MPEG-TS": 4}
"""Kinds whose zeros at the end are no sound, and how many of them may be the last frame's own."""


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """What is known of a file before it is decoded."""

    kind: str | None
    """The format by its first bytes; None if these are of no known format."""
    view: FileView
    is_whole_file: bool
    remarks: tuple[Remark, ...] = ()
    missing: tuple[int, int] | None = None
    """(stated, present) bytes of samples, where fewer are present."""
    fault: OggFault | None = None
    tagged_samples: int | None = None
    """The length of an MP3 by its tag."""
    ffmpeg_first: bool = False
    said: tuple[Statement, ...] = ()
    """What the file states beside its sound."""


def look_at_header(view: FileView, size_bytes: int, *, is_for_a_part: bool) -> HeaderFacts:
    """The facts of a file. Where it is read for a part alone, not every Ogg page is looked at."""
    kind = kind_of(view.read(0, 256))
    if kind in _FRAMES:
        view = without_zeros_behind(view, _FRAMES[kind])
    # libsndfile reads ID3 tags around MP3 itself, and needs no view without them.
    has_own_tags = kind == "MP3" and os.pread(view.fd, 3, 0) in (b"ID3", view.read(0, 3))
    is_whole = has_own_tags or (view.start == 0 and view.size_bytes == size_bytes)
    said = () if is_for_a_part else statements(view, kind, size_bytes)
    seen = HeaderFacts(kind, view, is_whole, said=said)
    if kind == "OGG":
        # A part is not worth a look at every page.
        fault = None if is_for_a_part else ogg_fault(view)
        remarks = (Remark(RemarkKind.DAMAGED, "an Ogg page is spoilt or missing"),)
        return replace(
            seen,
            fault=fault,
            ffmpeg_first=n_streams(view) > 1 or fault in ("damaged", "chained"),
            remarks=remarks if fault == "damaged" else (),
        )
    if kind == "MP3":
        tag = mp3_tag(view)
        n_samples, n_bytes = tag or (None, 0)
        # Some programs count the tags around, too.
        is_confirmed = any(
            abs(n_bytes - size) <= max(2048, min(8192, size // 100))
            for size in (view.size_bytes, size_bytes)
        )
        return replace(seen, tagged_samples=n_samples, ffmpeg_first=not (tag and is_confirmed))
    if kind == "MP4" and (at := mp4_goes_on(view)) is not None:
        detail = f"another MP4 begins at byte {at:,}; the first alone is labelled"
        return replace(seen, remarks=(Remark(RemarkKind.UNREAD, detail),))
    if kind == "Matroska":
        sizes = matroska_size(view)
        return replace(seen, missing=sizes if sizes and sizes[0] > sizes[1] else None)
    found = sample_bytes(view)
    return seen if found is None else _with_sizes(seen, found)


def _with_sizes(seen: HeaderFacts, found: SampleBytes) -> HeaderFacts:
    """The facts with what follows from the size that the header states."""
    if found.stated > found.present:
        is_promise = not found.is_placeholder
        return replace(seen, missing=(found.stated, found.present) if is_promise else None)
    what, at = what_follows(seen.view, found)
    if what in ("data", "recording"):
        which = "another chunk of samples" if what == "data" else "another recording"
        detail = f"{which} begins at byte {at:,}; only what is before it is labelled"
        return replace(seen, remarks=(Remark(RemarkKind.UNREAD, detail),))
    if what != "sound":
        return seen
    n_bytes = whole_size(seen.view, found)
    detail = f"the header states {found.stated:,} bytes of samples, {n_bytes:,} are there"
    remarks = (Remark(RemarkKind.SIZE, detail),)
    corrected = found.corrected(seen.view, n_bytes)
    if corrected is not None:
        return replace(seen, view=corrected, is_whole_file=False, remarks=remarks)
    # The true size does not fit into the header.
    rebuilt = rebuilt_wav(seen.view, found.start, n_bytes)
    if rebuilt is None:
        return replace(seen, remarks=(Remark(RemarkKind.UNREAD, detail),))
    return replace(seen, view=rebuilt, is_whole_file=False, remarks=remarks)
