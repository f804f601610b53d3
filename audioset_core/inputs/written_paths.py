"""Paths as people and programs write them into lists, and the file here that is meant."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from audioset_core.errors import UserError
from audioset_core.object_storage.addresses import read_address

_OF_WINDOWS = re.compile(r"(?:[A-Za-z]:[\\/]|\\\\[^\\]|//[^/]+/[^/]+\\)")
_DRIVE_OF_ADDRESS = re.compile(r"/[A-Za-z]:[\\/]")
_ODD = re.compile(r"""^[\s"'~]|[\s"']$|\\|://|^file:|^[A-Za-z]:/""", re.IGNORECASE)


def meant_path(text: str, base: bytes = b"") -> bytes:
    """The path that is meant; a relative path is below the folder `base`.

    A file with exactly the written name comes first. Otherwise surrounding blanks and quotes are
    removed, ``~`` and ``file://`` are resolved, and ``a\\b.wav`` means ``a/b.wav`` if that exists.

    >>> meant_path('"file:///music/a%20b.wav"')
    b'/music/a b.wav'

    Raises:
        UserError: the path belongs to Windows or to another machine, or an address is not right.
        UnicodeEncodeError: the text cannot be a file name here.
    """
    literal = os.path.join(base, os.fsencode(text))
    if not _ODD.search(text) or os.path.lexists(literal):
        return literal
    if (address := read_address(text)) is not None:
        return address
    plain = text.strip().strip("\"'").strip()
    if plain[:5].lower() == "file:":
        plain = _of_address(plain)
    if _OF_WINDOWS.match(plain):
        return _of_windows(plain)
    path = os.path.join(base, os.path.expanduser(os.fsencode(plain)))
    if not os.path.lexists(path) and b"\\" in path:
        turned = os.path.join(base, os.fsencode(plain.replace("\\", "/")))
        return turned if os.path.lexists(turned) else path
    return path


def names_meant(text: str) -> tuple[str, ...]:
    """The names that a recording in a list may have here, the most likely first.

    For a Windows path that includes the file's name alone.

    >>> names_meant("D:\\\\site\\\\a.wav")
    ('D:\\\\site\\\\a.wav', 'a.wav')
    """
    plain = text.strip().strip("\"'").strip()
    if plain[:5].lower() == "file:":
        plain = _path_of(urlsplit(plain).path)
    if _OF_WINDOWS.match(plain):
        return plain, re.split(r"[\\/]", plain)[-1]
    return (os.path.expanduser(plain),)


def _of_address(text: str) -> str:
    """The path of a file:// address."""
    parts = urlsplit(text)
    if parts.netloc.lower() not in ("", "localhost"):
        host = parts.netloc
        raise UserError(f"{text!r} is on machine {host!r}: write the path of its mount point here")
    return _path_of(parts.path)


def _path_of(address_path: str) -> str:
    path = unquote(address_path, errors="surrogateescape")
    return path[1:] if _DRIVE_OF_ADDRESS.match(path) else path


def _of_windows(text: str) -> bytes:
    """Where a drive of Windows is mounted, below WSL."""
    drive, rest = text[0].lower(), text[2:].replace("\\", "/")
    mounted = os.fsencode(f"/mnt/{drive}{rest}")
    if text[1] == ":" and os.path.lexists(mounted):
        return mounted
    raise UserError(
        f"{text!r} is a Windows path that does not exist on this machine: write "
        f"the path by which it is mounted here"
    )
