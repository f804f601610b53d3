"""A run over the torture corpus ends as any other, in bounded memory; every file has an outcome."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from audioset_core.errors import Reason
from tests.flows.build import Lab, command, write_clip
from tests.torture.corpus import LABELLED, PARTIAL, PASSED_OVER, write
from tests.torture.faulty_decoder import told

GOOD = tuple(f"good-{n}.wav" for n in range(6))
# What a run of this corpus may take beyond one of ordinary files; its largest file has 4 MB.
MOST_BYTES = 256 << 20

# Files that somebody changes under the run: name -> what happens to it, and what may come of it.
CHANGING = {
    "vanishes.wav": ("before", "os.unlink(path)", {Reason.VANISHED}),
    "becomes-a-folder.wav": ("before", "os.unlink(path); os.mkdir(path)", {Reason.NOT_A_FILE}),
    "is-replaced.wav": ("after", "os.replace(path + b'.new', path)", {Reason.CHANGED, LABELLED}),
    "is-cut.wav": ("after", "os.truncate(path, 5_000)", {Reason.CHANGED}),
    "is-emptied.wav": ("after", "os.truncate(path, 0)", {Reason.CHANGED}),
    "grows.wav": ("after", "open(path, 'ab').write(bytes(100))", {Reason.CHANGED}),
}
# Files that a decoder has a defect for: name -> what it does, when, and what is said of it.
FAULTS = {
    "crashes.wav": ("segfault", "open", Reason.CRASHED),
    "crashes-amid.wav": ("segfault", "amid", Reason.CRASHED),
    "aborts.wav": ("abort", "amid", Reason.CRASHED),
    "is-slow.wav": ("spin", "amid", Reason.TOO_SLOW),
    "eats-memory.wav": ("eat", "amid", Reason.TOO_LARGE),
    "waits.wav": ("sleep", "amid", Reason.UNREADABLE),
}
SETUP = f"""
import os
from audioset_core.audio import recording as audio
plain_open, take_in = audio.open_regular, audio.Recording._take_in
changing, amid = { ({k: v[:2] for k, v in CHANGING.items()})!r}, dict()
def meddling_open(path, *version):
    when, what = changing.get(os.path.basename(path).decode(errors="replace"), ("", ""))
    if when == "before":
        exec(what)
    fd = plain_open(path, *version)
    amid[fd] = (path, what if when == "after" else "")
    return fd
def meddling_take_in(recording):
    path, what = amid.pop(recording._fd)
    exec(what)
    return take_in(recording)
audio.open_regular, audio.Recording._take_in = meddling_open, meddling_take_in
from audioset_core.audio import sandbox as contained
contained.DecoderPool.__init__.__defaults__ = ("tests.torture.faulty_decoder",)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_over_the_torture_corpus(
    lab: Lab, environment: Mapping[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "corpus"
    expected: dict[bytes, frozenset[str]] = {}
    for entry in write(folder):
        expected[entry.name] = frozenset(entry.expected)
    for seed, name in enumerate((*GOOD, *CHANGING)):
        write_clip(folder / name, seed)
        expected[name.encode()] = frozenset(map(str, CHANGING[name][2] if seed > 5 else [LABELLED]))
    write_clip(folder / "is-replaced.wav.new", 99, format="WAV")
    for seed in range(100):
        write_clip(tmp_path / "ordinary" / f"{seed}.wav", seed)
    plain = Lab(tmp_path / "plain", "", lab.weights)
    code, said, usual_bytes = _label(tmp_path / "ordinary", plain, environment, tmp_path)
    assert code == 0, said

    for name, (order, when, _) in FAULTS.items():
        (folder / name).write_bytes(told(order, when))
        expected[name.encode()] = frozenset({str(FAULTS[name][2])})

    code, said, peak_bytes = _label(folder, lab, environment, tmp_path)
    assert code == 1, said  # some files failed, as in any other run
    assert "Traceback" not in said
    assert peak_bytes < usual_bytes + MOST_BYTES
    assert lab.rows("SELECT status FROM runs") == [("completed",)]
    lab.check()

    found = _outcomes(lab, folder)
    passed_over = {name for name, outcomes in expected.items() if outcomes == {PASSED_OVER}}
    assert found.keys() == expected.keys() - passed_over
    wrong = {name: became for name, became in found.items() if became not in expected[name]}
    assert wrong == {}
    assert "internal error" not in found.values()

    # What failed for good is not tried again; what may pass is, and comes to the same.
    code, said, _ = _label(folder, lab, environment, tmp_path)
    assert code == 1, said
    assert lab.count("runs", "status = 'completed'") == 2
    again = _outcomes(lab, folder)
    hostile = found.keys() - {name.encode() for name in CHANGING}
    assert {name: again[name] for name in hostile} == {name: found[name] for name in hostile}


def _outcomes(lab: Lab, folder: Path) -> dict[bytes, str]:
    rows = lab.rows(
        "SELECT path, reason, is_partial FROM sources LEFT JOIN labellings USING (clip_id)"
    )
    labelled = {0: LABELLED, 1: PARTIAL}
    return {
        os.path.relpath(path, os.fsencode(folder)): reason or labelled[is_partial]
        for path, reason, is_partial in rows
    }


def _label(
    folder: Path, lab: Lab, environment: Mapping[str, str], cwd: Path
) -> tuple[int, str, int]:
    """Exit code, what was printed, and the largest resident set of the run."""
    line = command("label", folder, "--home", lab.home, setup=SETUP)
    with (cwd / "said.txt").open("wb+") as said:
        process = subprocess.Popen(
            line, env=dict(environment), cwd=cwd, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        return process.returncode, said.read().decode(), usage.ru_maxrss * 1024
