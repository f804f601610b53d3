"""Addresses of objects: how people write them, and the one form that is stored."""

from __future__ import annotations

import difflib
import os
import re
from typing import NamedTuple

from audioset_core.errors import UserError

_SCHEMES = {
    "s3": "s3://bucket/key",
    "gs": "gs://bucket/key",
    "az": "az://container/key",
    "https": "https://host/file",
    "http": "http://host/file",
}
_WRITTEN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_STORED = tuple(f"{scheme}://".encode() for scheme in _SCHEMES)
_MAGIC = re.compile(rb"[*?\[]")


class Parts(NamedTuple):
    """An address: scheme, bucket (container, host) and key; an empty key is the bucket itself."""

    scheme: str
    bucket: str
    key: str


def is_address(path: bytes) -> bool:
    """Whether a source's path is an address.

    >>> is_address(b"s3://bucket/a.wav"), is_address(b"/music/a.wav")
    (True, False)
    """
    return path.startswith(_STORED)


def absolute(path: bytes) -> bytes:
    """A path made absolute; an address already is.

    >>> absolute(b"s3://bucket/a//b.wav")
    b's3://bucket/a//b.wav'
    """
    return path if is_address(path) else os.path.abspath(path)


def place_meant(text: str) -> bytes:
    """The address or absolute path that a person wrote; see `read_address`."""
    return read_address(text) or os.path.abspath(os.fsencode(text))


def read_address(text: str) -> bytes | None:
    """The address that a person wrote; None for a path, and for ``file://``.

    >>> read_address(' "S3://bucket/site 3/" ')
    b's3://bucket/site 3/'

    Raises:
        UserError: a scheme that is not known, no bucket, or something that may be a secret. The
            message does not repeat secrets.
    """
    written = _WRITTEN.fullmatch(text.strip().strip("\"'").strip())
    if written is None or written[1].lower() == "file":
        return None
    scheme = written[1].lower()
    bucket, slash, key = written[2].partition("/")
    if scheme not in _SCHEMES:
        nearest = difflib.get_close_matches(scheme, _SCHEMES, n=1, cutoff=0.3)
        examples = _SCHEMES[nearest[0]] if nearest else ", ".join(_SCHEMES.values())
        raise UserError(f"unknown kind of address {scheme}://; did you mean {examples}?")
    if "@" in bucket:
        raise UserError(
            f"an address may hold no user name or password, since it is stored: write "
            f"{scheme}://{bucket.rpartition('@')[2]}/..., with credentials in the environment"
        )
    if scheme in ("http", "https"):
        bucket = bucket.lower()
        if "?" in written[2] or "#" in written[2]:
            raise UserError(
                f"an address may hold no query ('?') or '#', which may be a secret, since it is "
                f"stored: write {scheme}://{re.split('[?#]', bucket)[0]}/... without it"
            )
    if not bucket or "\0" in key:
        raise UserError(f"an address looks like {_SCHEMES[scheme]}")
    return os.fsencode(f"{scheme}://{bucket}{slash}{key}")


def parts_of(address: bytes) -> Parts:
    """A stored address in its parts.

    >>> parts_of(b"s3://bucket/site/a.wav")
    Parts(scheme='s3', bucket='bucket', key='site/a.wav')
    """
    scheme, _, rest = os.fsdecode(address).partition("://")
    bucket, _, key = rest.partition("/")
    return Parts(scheme, bucket, key)


def plain_start(pattern: bytes) -> bytes | None:
    """The folder below which all matches of a pattern lie; None if it is no pattern.

    >>> plain_start(b"s3://bucket/2024/site-*/*.wav")
    b's3://bucket/2024'
    """
    wildcard = _MAGIC.search(pattern)
    return pattern[: wildcard.start()].rpartition(b"/")[0] if wildcard else None


def pattern_regex(pattern: bytes) -> re.Pattern[bytes]:
    """A pattern as a regular expression over addresses; what lies below a match matches too.

    As in globs of paths: ``**`` is any number of folders, ``*`` and ``?`` stay within a name.

    >>> bool(pattern_regex(b"s3://b/**/*.wav").fullmatch(b"s3://b/a/c.wav"))
    True
    """
    kinds = {b"**/": b"(?:.*/)?", b"**": b".*", b"*": b"[^/]*", b"?": b"[^/]"}
    pieces = re.split(rb"(\*\*/|\*\*|\*|\?|\[!?[^\]/]+\])", pattern)
    text = b""
    for n, piece in enumerate(pieces):
        if n % 2 == 0:
            text += re.escape(piece)
        elif piece in kinds:
            text += kinds[piece]
        else:
            inner = piece[1:-1].replace(b"\\", rb"\\").replace(b"^", rb"\^")
            text += b"[" + (b"^" + inner[1:] if inner.startswith(b"!") else inner) + b"]"
    return re.compile(text + rb"(?:/.*)?", re.DOTALL)
