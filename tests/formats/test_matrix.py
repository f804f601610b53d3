"""Every kind of recording in every plight: labelled whole and at the right times, or it is said.

A tenth is tried by what is known of each file, the rest beside FFmpeg's command line, too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.formats.kinds import KINDS, Kind
from tests.formats.matrix import cells, fault, made, ours, theirs
from tests.formats.plights import PLIGHTS

_TENTH = 10
_LEAST_CELLS = 1_500


@pytest.mark.slow
def test_a_tenth_of_all(tmp_path: Path) -> None:
    wrong, n_cells = [], 0
    for number, (kind, plight) in enumerate(cells()):
        # The plights of a kind fall on other places with the next kind.
        if number % _TENTH != 3 or (data := made(kind, plight)) is None:
            continue
        path = tmp_path / "sound"
        path.write_bytes(data)
        n_cells += 1
        if said := fault(kind, plight, ours(path), None):
            wrong.append(f"{kind.name}, {plight.name}: {said}")
    assert wrong == []
    assert n_cells > _LEAST_CELLS / _TENTH


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_beside_ffmpegs_command_line(tmp_path: Path, kind: Kind) -> None:
    wrong = []
    for plight in PLIGHTS:
        data = made(kind, plight)
        if data is None:
            continue
        path = tmp_path / "sound"
        path.write_bytes(data)
        oracle = theirs(path)
        if oracle is None:
            pytest.skip("no ffmpeg here (install Debian's ffmpeg)")
        if said := fault(kind, plight, ours(path), oracle):
            wrong.append(f"{plight.name}: {said}")
    assert wrong == []


@pytest.mark.parametrize("name", ["SOUND.WAV", "sound.mp3", "sound", "sound.xyz"])
def test_the_ending_plays_no_part(tmp_path: Path, name: str) -> None:
    (wav,) = (kind for kind in KINDS if kind.name == "wav/pcm_s16le")
    (tmp_path / name).write_bytes(PLIGHTS[0].make(wav) or b"")
    assert fault(wav, PLIGHTS[0], ours(tmp_path / name), None) == ""
