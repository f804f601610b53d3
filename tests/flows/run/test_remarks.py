"""Recordings that are not as their files say: labelled as far as they go, and a person is told."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

from audioset_core.arrays import F32
from audioset_core.audio.decoders import DecodeOptions
from audioset_core.previews.snippets import RATE_HZ, read_snippet
from db.reports.collection import places
from tests.flows.build import Lab, sound, write_clip
from tests.formats.makers import Take, mux


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    write_clip(folder / "whole.wav", 1)
    write_clip(folder / "cut.wav", 2, 4.0)
    cut = (folder / "cut.wav").read_bytes()
    (folder / "cut.wav").write_bytes(cut[: 44 + 3 * 32_000])
    takes = [Take(sound(seed, 3.0).astype(np.float32), 16_000) for seed in (3, 4)]
    (folder / "tracks.mkv").write_bytes(mux("matroska", "pcm_s16le", takes))
    return folder


def durations(lab: Lab) -> dict[str, tuple[float, bool]]:
    rows = lab.rows(
        "SELECT s.path_text, c.duration_s, l.is_partial FROM sources s JOIN clips c "
        "ON c.id = s.clip_id JOIN labellings l ON l.clip_id = c.id AND l.is_current"
    )
    return {Path(path).name: (round(length_s, 2), bool(part)) for path, length_s, part in rows}


def test_what_is_there_is_labelled_and_what_is_not_is_said(
    lab: Lab, corpus: Path, audioset: Callable[..., Any]
) -> None:
    label = ("label", corpus, "--home", lab.home, "--weights", lab.weights)
    said = audioset(*label)
    assert said.code == 0, said.err
    assert "labelled in part\t1 (something of these is missing)" in said.out
    assert "remark: truncated\t1" in said.out
    assert "cut.wav: truncated (the header states 4.00 s, 3.00 s are there)" in said.err
    assert durations(lab) == {
        "whole.wav": (2.0, False), "cut.wav": (3.0, True), "tracks.mkv": (3.0, False),
    }  # fmt: skip
    view = lab.rows("SELECT path, kind, detail, start_s, end_s FROM remarks ORDER BY path")
    assert [(Path(row[0]).name, *row[1:]) for row in view] == [
        ("cut.wav", "truncated", "the header states 4.00 s, 3.00 s are there", 3.0, 4.0),
        ("tracks.mkv", "tracks", "track 1 of 2 is labelled, not 2 (pcm_s16le)", None, None),
    ]
    lab.check()

    again = audioset(*label)
    assert (again.code, "labelled now\t0" in again.out) == (0, True)
    home = ("--home", lab.home)
    assert audioset("verify", *home).code == 0
    shown = audioset("show", corpus / "cut.wav", *home).out
    assert "truncated at 0:03.0-0:04.0: the header states 4.00 s, 3.00 s are there" in shown
    assert ", partial" in shown
    told = json.loads(audioset("show", corpus / "cut.wav", *home, "--json").out)
    assert told["remarks"][0]["kind"] == "truncated"
    exported = audioset("export", "csv", "-", *home).out
    told = {Path(r["path"]).name: r for r in csv.DictReader(io.StringIO(exported))}
    assert told["cut.wav"]["is_partial"] == "True"
    assert told["cut.wav"]["remarks"].startswith("truncated at 3.00-4.00 s")
    assert (told["whole.wav"]["is_partial"], told["whole.wav"]["remarks"]) == ("False", "")
    audioset("export", "json", lab.home / "all.json", *home)
    predictions = json.loads((lab.home / "all.json").read_text())["predictions"]
    assert sum(entry["is_partial"] for entry in predictions) == 1


@pytest.mark.slow
def test_who_is_strict_refuses_and_who_is_not_labels_later(lab: Lab, corpus: Path) -> None:
    summary = lab.label(corpus, strict=True)
    assert dict(summary.failures) == {"truncated": 1}
    assert lab.sources()["cut.wav"] == ("failed", "truncated")
    again = lab.label(corpus, strict=True)
    assert (again.n_failed, again.n_failed_before) == (0, 1)
    lenient = lab.label(corpus)
    assert (lenient.n_labelled, lenient.n_partial, lenient.n_failed_before) == (1, 1, 0)
    # What is labelled stays so, and is nobody's failure.
    assert lab.label(corpus, strict=True).n_failed_before == 0
    lab.check()


def heard(lab: Lab, clip: str) -> F32:
    """What a page or picture reads of a clip, at 16 kHz."""
    (place,) = places(lab.engine, clip)
    piece = read_snippet(
        place.path, (place.size_bytes, place.mtime_ns), 0.0, 3.0, 100, DecodeOptions(place.track)
    )
    return soxr.resample(piece.samples, RATE_HZ, 16_000)


@pytest.mark.slow
def test_another_track_is_another_labelling(lab: Lab, corpus: Path) -> None:
    lab.label(corpus)
    first = lab.results()
    assert lab.label(corpus / "tracks.mkv", track=2).n_labelled == 1
    second = lab.results()
    (changed,) = [clip for clip in first if first[clip][0] != second[clip][0]]
    assert (
        lab.rows("SELECT path FROM remarks WHERE clip = :clip AND kind = 'tracks'", clip=changed)
        == []
    )
    # What a page lets a person hear is what was labelled.
    listened = heard(lab, changed)
    two = sound(4, 3.0).astype(np.float32)[:, 0]
    assert np.abs(np.corrcoef(listened[: len(two)], two)[0, 1]) > 0.9
    assert lab.label(corpus / "tracks.mkv", track="all").n_labelled == 1
    assert lab.rows("SELECT detail FROM remarks WHERE kind = 'tracks'") == [
        ("the mean of 2 tracks is labelled",)
    ]


@pytest.mark.parametrize("track", ["0", "first", "-1", "2.5"])
def test_a_track_that_is_none_is_the_persons_mistake(
    lab: Lab, corpus: Path, audioset: Callable[..., Any], track: str
) -> None:
    said = audioset("label", corpus, "--home", lab.home, "--track", track)
    assert said.code == 2
    assert f"--track '{track}': give a number from 1 to 100, 'default' or 'all'" in said.err
