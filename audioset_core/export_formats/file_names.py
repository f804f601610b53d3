"""Names of exported files: those of the recordings, made safe and unique.

A byte that a name must not have becomes `%XX`, as in web addresses: characters that are not
printable, bytes that are not UTF-8, `.` and `..` as folders, and a `%` that would look like such an
escape. So a name can be turned back into the path, and different paths have different names. A name
that is too long for a file system ends in `%~` and a digest instead.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import quote_from_bytes

from audioset_core.object_storage.addresses import is_address

# Source: NAME_MAX of Linux and macOS; PATH_MAX is 4,096, 1,024 on macOS, for the whole path.
_NAME_MAX_BYTES = 255
_PATH_BYTES = 700
_DIGEST_HEX = 32

_AMBIGUOUS = re.compile("%(?=[0-9A-Fa-f]{2}|~)")
_OUTSIDE = "%2F"
_EMPTY = "%00"  # no name holds a NUL, so nothing else is written like this


def common_folder(paths: Iterable[bytes]) -> bytes:
    """The deepest folder that contains all of some absolute paths; `/` without paths.

    >>> common_folder([b"/a/b/1.wav", b"/a/b/c/2.wav"])
    b'/a/b'
    """
    common: list[bytes] | None = None
    for path in paths:
        folder = path.split(b"/")[:-1]
        if common is None:
            common = folder
        elif folder[: len(common)] != common:
            same = (a == b for a, b in zip(common, folder, strict=False))
            common = common[: next((i for i, equal in enumerate(same) if not equal), len(folder))]
    return b"/".join(common or []) or b"/"


def relative(path: bytes, root: bytes) -> bytes:
    """The path below `root`, or the whole path if it is not below `root`."""
    below = root.rstrip(b"/") + b"/"
    return path.removeprefix(below)


def tree_name(path: bytes, root: bytes, suffix: str) -> PurePosixPath:
    """The path of a recording's export in a folder that mirrors `root`.

    The suffix comes after the recording's own, so `x.wav` and `x.flac` have different names.

    >>> tree_name(b"/audio/sub/x.wav", b"/audio", ".txt")
    PurePosixPath('sub/x.wav.txt')
    """
    *folders, last = _parts(path, root)
    # A folder whose name ends like an exported file's could have the name of such a file.
    kept = [_escape_end(folder, suffix) for folder in folders]
    name = PurePosixPath(*map(_short, kept), _short(last, suffix))
    if len(str(name).encode()) <= _PATH_BYTES:
        return name
    return PurePosixPath(f"%~{_digest(path)}{suffix}")


def flat_name(path: bytes, root: bytes) -> str:
    """As `tree_name` with the suffix `.tsv`, for a folder without sub-folders.

    >>> flat_name(b"/audio/sub/x.wav", b"/audio")
    'sub%2Fx.wav.tsv'
    """
    return _short("%2F".join(_parts(path, root)), ".tsv")


def class_folder(name: str) -> str:
    """A folder's name for a class; none is hidden.

    >>> class_folder("Wail, moan"), class_folder("AC/DC")
    ('Wail, moan', 'AC%2FDC')
    """
    escaped = _escape(name).replace("/", _OUTSIDE)
    return _short(f"%2E{escaped[1:]}" if escaped.startswith(".") else escaped)


def piece_name(path: bytes, score: float, start_s: float, clip: str) -> str:
    """The name, without its ending, of a piece of a recording: by score, file and time.

    >>> piece_name(b"/audio/a.b.wav", 0.95, 3723.48, "70cfa6e5fa77")
    '0.9500_a.b_01h02m03.480s_70cfa6e5fa77'
    """
    ending = ".flac"  # the longest
    end = f"_{_moment(start_s)}_{clip}{ending}"
    return _short(f"{score:.4f}_{_stem(path)}", end).removesuffix(ending)


def span_name(path: bytes, start_s: float, end_s: float, clip: str) -> str:
    """As `piece_name`, of a span that has no score: by file, start and end.

    >>> span_name(b"/audio/a.b.wav", 3723.48, 3725.0, "70cfa6e5")
    'a.b_01h02m03.480s-01h02m05.000s_70cfa6e5'
    """
    ending = ".flac"
    end = f"_{_moment(start_s)}-{_moment(end_s)}_{clip}{ending}"
    return _short(_stem(path), end).removesuffix(ending)


def line_name(path: bytes, root: bytes) -> str:
    """The path below `root` as one line of text, escaped as file names are.

    >>> line_name(b"/audio/sub/x\\n.wav", b"/audio")
    'sub/x%0A.wav'
    """
    return "/".join(_parts(path, root))


def uri(path: bytes) -> str:
    """The address of a file (RFC 8089) or an object in ASCII, from which any path can be recovered.

    >>> uri(b"/audio/a b.wav"), uri(b"s3://bucket/a b.wav")
    ('file:///audio/a%20b.wav', 's3://bucket/a%20b.wav')
    """
    if is_address(path):
        return quote_from_bytes(path, safe="/:")
    return "file://" + quote_from_bytes(path, safe="/")


def _stem(path: bytes) -> str:
    stem = os.path.splitext(path.rpartition(b"/")[2])[0]  # noqa: PTH122 (bytes)
    return _escape(stem.decode("utf-8", "surrogateescape"))


def _moment(time_s: float) -> str:
    minutes, ms = divmod(round(time_s * 1000), 60_000)
    return f"{minutes // 60:02d}h{minutes % 60:02d}m{ms / 1000:06.3f}s"


def _parts(path: bytes, root: bytes) -> list[str]:
    prefix = root.rstrip(b"/") + b"/"
    is_below = path.startswith(prefix)
    below = path.removeprefix(prefix if is_below else b"/")
    parts = [_escape(part.decode("utf-8", "surrogateescape")) for part in below.split(b"/")]
    return parts if is_below else [_OUTSIDE, *parts]


def _escape(part: str) -> str:
    if part in ("", ".", ".."):
        return part.replace(".", "%2E") or _EMPTY
    kept = _AMBIGUOUS.sub("%25", part)
    return "".join(c if c.isprintable() and c != "\\" else _percent(c) for c in kept)


def _escape_end(folder: str, suffix: str) -> str:
    if folder.endswith(suffix):
        return folder.removesuffix(suffix) + "%2E" + suffix[1:]
    return folder


def _short(part: str, suffix: str = "") -> str:
    if len(part.encode()) + len(suffix) <= _NAME_MAX_BYTES:
        return part + suffix
    end = f"%~{_digest(part.encode())}{suffix}"
    kept = part.encode()[: _NAME_MAX_BYTES - len(end)].decode(errors="ignore")
    return kept + end


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGEST_HEX]


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogateescape"))
