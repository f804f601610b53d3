"""What people write for objects, and what is refused before it is stored."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from audioset_core.errors import UserError
from audioset_core.inputs.manifest import read_manifest
from audioset_core.inputs.written_paths import meant_path
from audioset_core.object_storage.addresses import (
    absolute,
    parts_of,
    pattern_regex,
    plain_start,
    read_address,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("s3://bucket/a.wav", b"s3://bucket/a.wav"),
        (" 'S3://bucket/a b.wav' ", b"s3://bucket/a b.wav"),
        ("s3://bucket", b"s3://bucket"),
        ("gs://bucket/100%/ä?.wav", "gs://bucket/100%/ä?.wav".encode()),
        ("az://container/a//b.wav", b"az://container/a//b.wav"),
        ("HTTPS://Host.org/A%20b.wav", b"https://host.org/A%20b.wav"),
        ("file:///a.wav", None),
        ("/music/s3:/a.wav", None),
        ("C:/a.wav", None),
    ],
)
def test_an_address_is_told_from_a_path(text: str, address: bytes | None) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s3a://bucket/a", "unknown kind of address s3a://; did you mean s3://bucket/key?"),
        ("azure://c/a", "unknown kind of address azure://; did you mean az://container/key?"),
        ("ftp://host/a", "did you mean http"),
        ("s3:///a.wav", "an address looks like s3://bucket/key"),
        ("s3://ann:geheim@bucket/a.wav", "may hold no user name or password"),
        ("https://ann:geheim@host/a.wav", "write https://host/..., with credentials"),
        ("https://host/a.wav?sig=geheim", "write https://host/... without it"),
        ("https://host?token=geheim", "may hold no query"),
    ],
)
def test_what_is_no_address_is_refused_and_a_secret_never_repeated(text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        read_address(text)
    assert "geheim" not in str(refused.value)


def test_an_address_keeps_every_character_of_its_key() -> None:
    odd = b"s3://bucket/a/../b//./c%2F.wav"
    assert absolute(odd) == odd == meant_path(odd.decode(), b"/base")
    assert parts_of(odd) == ("s3", "bucket", "a/../b//./c%2F.wav")


@pytest.mark.parametrize(
    ("pattern", "start", "fits", "others"),
    [
        ("s3://b/site-*/*.wav", "s3://b", ["s3://b/site-1/a.wav"], ["s3://b/site-1/c/a.wav"]),
        (
            "s3://b/x/**/*.wav",
            "s3://b/x",
            ["s3://b/x/a.wav", "s3://b/x/y/z/a.wav"],
            ["s3://b/a.wav"],
        ),
        ("s3://b/2024-[0-3]?", "s3://b", ["s3://b/2024-01/a.wav"], ["s3://b/2024-91/a.wav"]),
        ("s3://b/[!a]*", "s3://b", ["s3://b/b.wav"], ["s3://b/a.wav"]),
        ("s3://b/a+(1).*", "s3://b", ["s3://b/a+(1).wav"], ["s3://b/aa1.wav"]),
    ],
)
def test_patterns_match_as_those_of_paths(
    pattern: str, start: str, fits: list[str], others: list[str]
) -> None:
    matches = pattern_regex(pattern.encode()).fullmatch
    assert plain_start(pattern.encode()) == start.encode()
    assert all(matches(text.encode()) for text in fits)
    assert not any(matches(text.encode()) for text in others)


def test_a_manifest_lists_objects_beside_files(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,id\ns3://bucket/a//b.wav,one\nc.wav,two\n")
    listed, _ = read_manifest(manifest)
    assert listed == {
        b"s3://bucket/a//b.wav": ("one", None),
        bytes(tmp_path / "c.wav"): ("two", None),
    }
    manifest.write_text("path\nhttps://host/a.wav?sig=geheim\n")
    with pytest.raises(
        UserError, match=r"list.csv, line 2: an address may hold no query"
    ) as refused:
        read_manifest(manifest)
    assert "geheim" not in str(refused.value)
