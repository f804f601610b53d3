"""Paths as people and programs write them into lists, and which file here is meant."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from audioset_core.errors import UserError

_OF_WINDOWS = re.compile(r"(?:[A-Za-z]:[\\/]|\\\\[^\\]|//[^/]+/[^/]+\\)")
_DRIVE_OF_ADDRESS = re.compile(r"/[A-Za-z]:[\\/]")
_ODD = re.compile(r"""^[\s"'~]|[\s"']$|\\|^file:|^[A-Za-z]:/""", re.IGNORECASE)


def meant_path(text: str, base: bytes = b"") -> bytes:
    """The path that is meant, within the folder `base` where it is relative.

    What is there by the very name that is written comes first. Else surrounding blanks and quotes
    are dropped, ``~`` and ``file://`` are understood, and ``a\\b.wav`` is ``a/b.wav`` where that is
    there.

    Raises:
        UserError: it is a path of Windows or of another machine.
        UnicodeEncodeError: it cannot be a name here.
    """
    literal = os.path.join(base, os.fsencode(text))
    if not _ODD.search(text) or os.path.lexists(literal):
        return literal
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
    """What a recording in a list may be called here, the surest first.

    Of a path of another machine that is also the file's name alone.
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
        f"{text!r} is a path of Windows, and nothing is there by that name on this machine: write "
        f"the path by which it is mounted here"
    )
