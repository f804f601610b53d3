"""What a decoder is shown of a file: any part, with bytes replaced and others before it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioset_core.file_headers.file_view import FileView, without_tags
from tests.torture.makers import id3

CONTENT = np.random.default_rng(0).bytes(300)


@pytest.fixture(scope="module")
def fd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path = tmp_path_factory.mktemp("view") / "content"
    path.write_bytes(CONTENT)
    opened = os.open(path, os.O_RDONLY)
    yield opened
    os.close(opened)


@given(
    start=st.integers(0, 100),
    length=st.integers(0, 200),
    lead=st.binary(max_size=20),
    patches=st.dictionaries(st.integers(0, 200), st.binary(min_size=1, max_size=9), max_size=3),
    reads=st.lists(st.tuples(st.integers(0, 240), st.integers(0, 240)), max_size=5),
)
def test_reads_are_those_of_the_bytes_put_together(
    fd: int,
    start: int,
    length: int,
    lead: bytes,
    patches: dict[int, bytes],
    reads: list[tuple[int, int]],
) -> None:
    view = FileView(fd, start, start + length, lead=lead)
    whole = bytearray(lead + CONTENT[start : start + length])
    for at, value in patches.items():
        view = view.patched(at, value)
        value = value[: max(0, len(whole) - at)]
        whole[at : at + len(value)] = value
    assert view.size_bytes == len(whole)
    file = view.open()
    for at, n_bytes in reads:
        assert view.read(at, n_bytes) == whole[at : at + n_bytes]
        file.seek(at)
        assert file.read(n_bytes) == whole[at : at + n_bytes]
    assert file.seek(0, os.SEEK_END) == len(whole)
    file.seek(0)
    assert file.read() == whole


BODY = b"fLaC" + CONTENT
ID3V1 = b"TAG" + bytes(125)
APE = b"APETAGEX" + (2000).to_bytes(4, "little") + (32).to_bytes(4, "little") + bytes(16)


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        (b"", b""),
        (id3(40, bytes(40)), b""),
        (id3(40, bytes(40)) + id3(7, bytes(7)), ID3V1),
        (bytes(4_096), APE + ID3V1),
        (id3(9, bytes(9)) + bytes(50), ID3V1 + APE),
        (bytes(100) + id3(9, bytes(9)), b""),
    ],
)
def test_tags_and_zeros_are_not_shown(tmp_path: Path, before: bytes, behind: bytes) -> None:
    path = tmp_path / "tagged"
    path.write_bytes(before + BODY + behind)
    with path.open("rb") as file:
        view = without_tags(file.fileno(), path.stat().st_size)
        assert view.read(0, 10_000) == BODY


@pytest.mark.parametrize("content", [bytes(5_000), id3(90), id3(10, bytes(10)), b"\0\0\0\x18ftyp"])
def test_what_is_nothing_else_is_shown_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "only"
    path.write_bytes(content)
    with path.open("rb") as file:
        view = without_tags(file.fileno(), len(content))
        assert (view.start, view.end) == (0, len(content))
