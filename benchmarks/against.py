"""This tree against an earlier commit: the speed of decoding, and of whole runs.

    .venv/bin/python -m benchmarks.against 3e92266 [--repeats 5] [--runs]

Both read the same generated files in turns, in processes of their own, and decode them as a run
does: hashed, in contained processes, mixed to mono. Printed is the CPU time of an hour of audio
(short: of a thousand files), all processes together, and the ratio of speeds, this tree's to the
commit's; the fastest turn counts, because other load can only add to it. With ``--runs`` the same
for whole runs of the pipeline.

Measured against 3e92266 on 2 cores (decoding: in one process, fastest of 12): decoding is as fast
within 2 %, 5-second OGG a tenth faster; whole runs, their start included, take 1 / 1.75 of the CPU
time on 20 minutes of WAV, 1 / 1.68 on FLAC, 1 / 1.40 on 400 short OGG files.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.corpora import CORPORA, Corpus, default_folder, files_of
from benchmarks.processes import ROOT, must_run
from benchmarks.ways import PIPELINE, WAYS

_N_FILES = {"short": 400}
_TIMES = 10
"""How often each file is decoded: the start of a process takes as long as an hour of WAV."""
_DECODE = """
import sys, os
from audioset_core.audio.recording import Recording
from audioset_core.audio.sandbox import decoder_pool
for path in int(sys.argv[1]) * sys.argv[2:]:
    with Recording(os.fsencode(path)) as recording:
        for block in recording.blocks():
            pass
decoder_pool().close()
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--corpora", nargs="*", choices=CORPORA, default=["short", "wav", "flac",
                        "ogg", "mp3"])  # fmt: skip
    parser.add_argument("--runs", action="store_true")
    parser.add_argument("--folder", type=Path, default=default_folder())
    options = parser.parse_args()
    print(f"{'':12}{'commit':>10}{'here':>10}{'speed':>8}")
    with _checked_out(options.commit) as before:
        for name in options.corpora:
            corpus = CORPORA[name]
            files = files_of(corpus, _N_FILES.get(name, 4), options.folder)
            _compare(corpus, files, before, options.repeats, runs=options.runs)


def _compare(
    corpus: Corpus, files: list[Path], before: Path, n_repeats: int, *, runs: bool
) -> None:
    n_times = 1 if runs else _TIMES
    command = (
        ["-m", WAYS[PIPELINE].module, "--hop", "0.96"] if runs else ["-c", _DECODE, str(n_times)]
    )
    command += [str(path) for path in files]
    spent: dict[Path, list[float]] = {before: [], ROOT: []}
    for turn in range(-1, n_repeats):  # the first fills caches
        for tree in spent if turn % 2 else reversed(spent):
            cpu_s = must_run(command, tree=tree).cpu_s
            if turn >= 0:
                spent[tree].append(cpu_s)
    n_files = n_times * len(files)
    n_units = n_files / 1_000 if corpus.name == "short" else n_files * corpus.length_s / 3_600
    old_s, new_s = (min(seconds) / n_units for seconds in spent.values())
    print(f"{corpus.title:12}{old_s:10.2f}{new_s:10.2f}{old_s / new_s:8.3f}", flush=True)


@contextlib.contextmanager
def _checked_out(commit: str) -> Iterator[Path]:
    """A folder with the tree of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "tree.tar"
        git = ["git", "-C", str(ROOT)]
        subprocess.run([*git, "archive", "--output", str(archive), commit], check=True)
        tree = Path(folder) / "tree"
        tree.mkdir()
        with tarfile.open(archive) as packed:
            packed.extractall(tree, filter="data")
        yield tree


if __name__ == "__main__":
    main()
