"""Does an hour cost the same in a large collection, and does memory stay flat?

    .venv/bin/python -m benchmarks.scale             (1 and 10 hours; 10 to 10,000 files of 5 s)
    .venv/bin/python -m benchmarks.scale --full      (and 100 hours, 8 GB of files)

``audioset label`` labels generated collections of mono FLAC at 16 kHz, each into a fresh home.
Contents differ, or they would be recognised as copies: the sounds repeat, a block of padding does
not. The start of the process is in neither figure; "peak" is the largest process.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.corpora import default_folder, make_flac
from benchmarks.processes import call, must_run

RATE_HZ = 16_000
_HOURS = (1, 10, 100)
_FILES = (10, 100, 1_000, 10_000)
_N_SOUNDS = 12
# "fLaC", then the block STREAMINFO: a header of 4 bytes, and 34. Source: RFC 9639, section 8.
_STREAMINFO_END = 42
_PADDING, _LAST = 1, 0x80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--folder", type=Path, default=default_folder())
    options = parser.parse_args()
    sizes = [(f"{hours} h in files of 5 min", 300.0, 12 * hours) for hours in _HOURS]
    sizes += [(f"{count:,} files of 5 s", 5.0, count) for count in _FILES]
    if not options.full:
        sizes = [size for size in sizes if size[1] * size[2] < 100 * 3600]
    print(f"{'':28}{'x real time':>12}{'s an hour':>11}{'s in all':>10}{'peak MB':>9}")
    for title, length_s, n_files in sizes:
        compare(options.folder / "scale" / f"{length_s:g}-s", title, length_s, n_files)


def compare(corpus: Path, title: str, length_s: float, n_files: int) -> None:
    """Label the first so many files of a corpus, and print a line."""
    call("benchmarks.scale:make", corpus, length_s, n_files)
    files = [str(path_of(corpus, number)) for number in range(n_files)]
    outcome = must_run(["-m", "benchmarks.peers.pipeline", "--hop", "0.48", *files])
    audio_s, work_s = n_files * length_s, outcome.said["work_s"]
    print(
        f"{title:28}{audio_s / work_s:12.0f}{work_s / audio_s * 3600:11.2f}{work_s:10.1f}"
        f"{outcome.peak_mb:9.0f}",
        flush=True,
    )


def path_of(corpus: Path, number: int) -> Path:
    """Where a file of a corpus lies."""
    return corpus / f"{number:05}.flac"


def make(folder: str, length_s: float, n_files: int) -> None:
    """The first files of a corpus, those that are not there yet."""
    corpus = Path(folder)
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        sounds = []
        for seed in range(min(_N_SOUNDS, n_files)):
            path = Path(name) / f"{seed}.flac"
            make_flac(str(path), length_s, seed, RATE_HZ, 1)
            sounds.append(path.read_bytes())
    for number in range(n_files):
        path = path_of(corpus, number)
        if not path.exists():
            path.write_bytes(padded(sounds[number % len(sounds)], number.to_bytes(8, "big")))


def padded(flac: bytes, padding: bytes) -> bytes:
    """A FLAC file with a block of padding more."""
    first, rest = bytearray(flac[:_STREAMINFO_END]), flac[_STREAMINFO_END:]
    kind = _PADDING | (first[4] & _LAST)
    first[4] &= ~_LAST & 0xFF
    return bytes(first) + bytes([kind]) + len(padding).to_bytes(3, "big") + padding + rest


if __name__ == "__main__":
    main()
