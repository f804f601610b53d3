"""Names that a recording may have, and numbers and times as people and programs write them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from audioset_core.inputs.written_paths import names_meant

_MOST_PARTS = 8
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
# What programs and people put behind a recording's name: x.wav.txt, x.Table.1.selections.txt.
_ENDING = re.compile(
    r"\.(txt|csv|tsv|json|parquet|vtt|textgrid|selections?|table(\.\d+)?|birdnet|results|"
    r"labels?|annotations?)$|[ _-](labels?|annotations?)$",
    re.IGNORECASE,
)
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
_CLOCK = re.compile(r"(?:(\d+):)?([0-5]?\d):([0-5]?\d(?:[.,]\d+)?)")
_MIDS = re.compile(r"/[mtg]/[\w-]+(?:[\s,;|]+/[mtg]/[\w-]+)*")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)


def recording_keys(texts: Iterable[str]) -> tuple[str, ...]:
    """The names that the recording may have here, the most likely first.

    For a path also its last parts, since it may come from another machine; escapes are resolved.
    """
    keys: dict[str, None] = {}
    for text in texts:
        for name in names_meant(text) if text.strip() else ():
            forms = (
                (name, unquote(name, errors="surrogateescape")) if _ESCAPE.search(name) else (name,)
            )
            for form in forms:
                keys.update(dict.fromkeys(_ends(form)))
    return tuple(keys)


def keys_of_own_name(path: Path) -> tuple[str, ...]:
    """Names of the recording that a file belongs to: the file's own name, without added endings."""
    names = [path.name]
    while (shorter := _ENDING.sub("", names[-1])) not in ("", names[-1]):
        names.append(shorter)
    folders = path.absolute().parts[1:-1]
    return recording_keys("/".join((*folders, name)) for name in names[1:] or names)


def keys_of_address(text: str) -> tuple[str, ...]:
    """Names by an address of Label Studio: /data/local-files/?d=, /data/upload/, or any other."""
    parts = urlsplit(text)
    local = parse_qs(parts.query).get("d", [""])[0]
    if not local:
        path = unquote(parts.path) if parts.scheme not in ("", "file") or "%" in text else text
    elif parts.path.rstrip("/").endswith("local-files"):
        path = local
    else:  # before 1.0: /data/NAME?d=FOLDER
        path = f"{local}/{unquote(parts.path).rpartition('/')[2]}"
    folder, _, name = path.rpartition("/")
    if "/data/upload" in f"/{folder}" or not folder:
        # An upload has eight random digits before its own name.
        return recording_keys((name, _UPLOADED.sub("", name)))
    return recording_keys((path,))


def listed(text: str) -> list[str]:
    """The classes in one cell: MIDs separated by any mark; names, which have commas, by ; or |.

    >>> listed("/m/0bt9lr, /m/01yrx"), listed("Dog; Bicycle, tricycle")
    (['/m/0bt9lr', '/m/01yrx'], ['Dog', 'Bicycle, tricycle'])
    """
    if _MIDS.fullmatch(text):
        return re.split(r"[\s,;|]+", text)
    return [part.strip() for part in re.split(r"[;|]", text) if part.strip()]


def seconds(text: str) -> float | None:
    """A time in seconds; None if the text is not a time.

    >>> seconds("1,5"), seconds("0:01.5"), seconds("1.5 s")
    (1.5, 1.5, None)
    """
    plain = text.strip()
    if clock := _CLOCK.fullmatch(plain):
        hours, minutes, rest = clock.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))
    if not _NUMBER.fullmatch(plain):
        return None
    value = float(plain.replace(",", "."))
    return value if math.isfinite(value) else None


def moment(text: str) -> datetime | None:
    """A date and time in ISO 8601, in UTC where it has no zone; None if the text is not one."""
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _ends(path: str) -> Iterator[str]:
    yield path
    parts = [part for part in re.split(r"[\\/]", path) if part not in ("", ".")]
    for n in range(min(len(parts), _MOST_PARTS), 0, -1):
        yield "/".join(parts[-n:])
