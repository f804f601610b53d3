"""Fetch the packages of `packages.tsv` and take the sound files out of them.

Nothing is installed: a package is downloaded with ``apt-get download`` and unpacked into the
working folder. Archives inside packages (zip, pk3) are opened; of Qt's resource files the Ogg
streams are cut out.
"""

from __future__ import annotations

import csv
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from training.places import Places

SOUND_SUFFIXES = frozenset(
    {".ogg", ".oga", ".wav", ".mp3", ".flac", ".opus", ".aif", ".aiff", ".au", ".gsm", ".h2w"}
)
_ZIP_SUFFIXES = frozenset({".zip", ".pk3", ".ocg", ".ocd"})
_QT_SUFFIX = ".rcc"
_PAGE = b"OggS\0"  # capture pattern and version
_SOUND_FONT_SUFFIXES = frozenset({".sf2", ".sf3"})


@dataclass(frozen=True, slots=True)
class Package:
    """One line of `packages.tsv`."""

    name: str
    terms: str
    """``free``: public domain, CC0, CC BY, MIT, BSD, zlib; ``share-alike``: CC BY-SA, GPL, LGPL."""
    is_held_out: bool
    """Whether only the held-out measures use it."""
    licences: str
    """As the package's own copyright file names them."""


def read_packages() -> list[Package]:
    """Every package that the training uses."""
    with Path(__file__).with_name("packages.tsv").open(newline="") as file:
        return [
            Package(row["package"], row["terms"], row["held_out"] == "yes", row["licences"])
            for row in csv.DictReader(file, delimiter="\t")
        ]


def fetch(places: Places) -> None:
    """Download and unpack what is not there yet.

    Raises:
        subprocess.CalledProcessError: a package cannot be downloaded.
    """
    places.packages.mkdir(parents=True, exist_ok=True)
    for package in read_packages():
        folder = places.sounds / package.name
        if folder.exists():
            continue
        found = list(places.packages.glob(f"{package.name}_*.deb"))
        if not found:
            print(f"fetching {package.name}", flush=True)
            subprocess.run(
                ["apt-get", "download", "-q", package.name], cwd=places.packages, check=True
            )
            found = list(places.packages.glob(f"{package.name}_*.deb"))
        passing = folder.with_name(f".{package.name}")
        passing.mkdir(parents=True, exist_ok=True)
        n_files = _unpack(found[0], passing)
        passing.rename(folder)
        print(f"{package.name}: {n_files} sound files", flush=True)


def sound_files(folder: Path) -> list[Path]:
    """The sound files of one source, in a fixed order."""
    return sorted(path for path in folder.iterdir() if path.suffix in SOUND_SUFFIXES)


def _unpack(package: Path, folder: Path) -> int:
    """Write the package's sound files under running numbers; how many there are."""
    n_files = 0
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
    ) as unpacking:
        assert unpacking.stdout is not None
        with tarfile.open(fileobj=unpacking.stdout, mode="r|") as members:
            for member in members:
                if not member.isfile():
                    continue
                opened = members.extractfile(member)
                assert opened is not None
                for suffix, sound in _sounds(Path(member.name).suffix.lower(), opened):
                    (folder / f"{n_files:05d}{suffix}").write_bytes(sound)
                    n_files += 1
    return n_files


def _sounds(suffix: str, opened: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """The sounds in one file of a package: the file itself, or what an archive holds."""
    if suffix in SOUND_SUFFIXES or suffix in _SOUND_FONT_SUFFIXES:
        yield suffix, opened.read()
    elif suffix in _ZIP_SUFFIXES:
        from io import BytesIO

        with zipfile.ZipFile(BytesIO(opened.read())) as archive:
            for name in archive.namelist():
                inner = Path(name).suffix.lower()
                if inner in SOUND_SUFFIXES:
                    yield inner, archive.read(name)
    elif suffix == _QT_SUFFIX:
        for sound in ogg_streams(opened.read()):
            yield ".ogg", sound


def ogg_streams(data: bytes) -> Iterator[bytes]:
    """Ogg streams that lie anywhere in the data, each from its first page to its last.

    Source: RFC 3533, section 6: a page begins with ``OggS``; bit 1 of byte 5 marks the first page
    of a stream, bit 2 the last; byte 26 counts the segments, whose sizes follow.
    """
    at, begun = data.find(_PAGE), -1
    while at >= 0 and at + 27 <= len(data):
        flags, n_segments = data[at + 5], data[at + 26]
        end = at + 27 + n_segments + sum(data[at + 27 : at + 27 + n_segments])
        if flags & 2:
            begun = at
        if flags & 4 and begun >= 0:
            yield data[begun:end]
            begun = -1
        at = data.find(_PAGE, end)
