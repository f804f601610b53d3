"""Buckets through obstore: what lies in them, how an object looks, and its bytes.

Source: https://developmentseed.org/obstore/
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any
from urllib.parse import unquote

from audioset_core.errors import AudioError, Reason
from audioset_core.object_storage.addresses import parts_of
from audioset_core.object_storage.credentials import has_credentials, of_profile
from audioset_core.object_storage.server_errors import NO_CREDENTIALS, told

_READ_BYTES = 1 << 20
_TRIES = 3
_AT_ONCE = 16
_ENDPOINTS = (
    "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "GOOGLE_BASE_URL", "AZURE_STORAGE_ENDPOINT",
)  # fmt: skip
# A request may take as long as a huge object needs; silence may not.
_CLIENT: dict[str, Any] = {
    "timeout": timedelta(days=1), "connect_timeout": timedelta(seconds=10),
    "read_timeout": timedelta(seconds=60),
}  # fmt: skip
_RETRY: dict[str, Any] = {"max_retries": 6, "retry_timeout": timedelta(seconds=90)}


@dataclass(frozen=True, slots=True)
class Look:
    """How an object looks from outside. Times are whole seconds, as HTTP has them."""

    address: bytes
    size_bytes: int
    mtime_ns: int
    etag: str | None


def look_at(address: bytes) -> Look | None:
    """How an object looks now: one request; None if there is none.

    Raises:
        AudioError: the server, the network or the credentials do not allow to know.
    """
    import obstore

    try:
        store, key = _opened(address)
        try:
            return _look(address, obstore.head(store, key))
        except (PermissionError, obstore.exceptions.PermissionDeniedError):
            # An answer to HEAD has no body: only that to GET says why.
            return _look(address, obstore.get(store, key).meta)
    except FileNotFoundError:
        return None
    except Exception as error:
        raise told(error) from None


def look_at_each(addresses: Sequence[bytes]) -> list[Look | AudioError | None]:
    """As `look_at`, several at a time; an error stands in its address's place."""

    def look(address: bytes) -> Look | AudioError | None:
        try:
            return look_at(address)
        except AudioError as error:
            return error

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(look, addresses))


def listed(folder: bytes, unreadable: list[str] | None = None) -> Iterator[Look]:
    """Every object below a folder; a page of 1,000 is a request, and no more are in memory.

    Keys that obstore cannot ask for (with an empty name, ``.``, ``..`` or a control character
    between slashes) hide the folders in which they lie directly, which are added to `unreadable`.
    Empty objects whose key ends with a slash, which mark folders, are left out.

    Raises:
        AudioError: as `look_at`.
    """
    import obstore

    last = b""
    if folder.startswith(b"http"):
        raise AudioError(Reason.UNREADABLE, "https has no folders")
    try:
        store, key = _opened(folder)
        for page in obstore.list(store, prefix=key or None):
            for look in _looks(folder, page):
                last = look.address
                yield look
        return
    except obstore.exceptions.InvalidPathError:
        pass
    except Exception as error:
        raise told(error) from None
    yield from _by_levels(folder, last, [] if unreadable is None else unreadable)


def _by_levels(folder: bytes, last: bytes, unreadable: list[str]) -> Iterator[Look]:
    """The objects of a folder after the last one that was listed, folder by folder."""
    import obstore

    below = [folder.rstrip(b"/")]
    while below:
        place = below.pop()
        try:
            looks, folders = _level(place)
        except (ValueError, obstore.exceptions.InvalidPathError):
            unreadable.append(
                f"{os.fsdecode(place)}: a key in it has an empty name, '.', '..' or a control "
                f"character; copy that object to another key, or name the folders beside it"
            )
            continue
        except Exception as error:
            raise told(error) from None
        below += reversed(folders)
        yield from (look for look in looks if look.address > last)


def _level(folder: bytes) -> tuple[list[Look], list[bytes]]:
    """The objects and the folders directly in a folder."""
    import obstore

    store, key = _opened(folder)
    found = obstore.list_with_delimiter(store, prefix=key or None)
    root = _root(folder)
    return _looks(folder, found["objects"]), [
        root + os.fsencode(prefix) for prefix in found["common_prefixes"]
    ]


def siblings(address: bytes) -> list[bytes]:
    """The objects and folders beside an address, to propose one of them; empty where unknown."""
    try:
        looks, folders = _level(address.rstrip(b"/").rpartition(b"/")[0])
    except Exception:
        return []
    return [*folders, *(look.address for look in looks)]


def fetch(address: bytes, etag: str | None, fd: int) -> Look:
    """Write an object's bytes to a file. What breaks off is continued, with the same version.

    `etag`: the version that is wanted; any other is refused.

    Raises:
        AudioError: also VANISHED, and CHANGED where there is another version by now.
    """
    import obstore

    look: Look | None = None
    n_bytes = n_failures = 0
    while look is None or n_bytes != look.size_bytes:
        before, answer = n_bytes, None
        try:
            store, key = _opened(address)
            options: dict[str, Any] = {"range": {"offset": n_bytes}} if n_bytes else {}
            if etag is not None and not etag.startswith("W/"):
                options["if_match"] = f'"{etag}"'
            answer = obstore.get(store, key, options=options)  # type: ignore[arg-type]
            look = look or _look(address, answer.meta)
            etag = look.etag
            for piece in answer.stream(min_chunk_size=_READ_BYTES):
                n_bytes += _write(fd, piece)
            failure = AudioError(Reason.UNREADABLE, f"only {n_bytes:,} bytes came")
        except Exception as error:
            failure = told(error)
        if look is not None and n_bytes == look.size_bytes:
            break
        # The library repeats requests; of an answer that broke off, the next request tells why.
        n_failures = 1 if n_bytes > before else n_failures + 1
        if answer is None or failure.reason is not Reason.UNREADABLE or n_failures >= _TRIES:
            raise failure
        if etag is None:  # the rest might be of another version
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
            n_bytes = 0
    return look


def _write(fd: int, piece: Any) -> int:
    view, n_written = memoryview(piece), 0
    try:
        while n_written < len(view):
            n_written += os.write(fd, view[n_written:])
    except OSError as error:
        raise AudioError(Reason.UNREADABLE, f"the spool: {error.strerror}") from None
    return n_written


def _looks(folder: bytes, page: Sequence[Any]) -> list[Look]:
    root = _root(folder)
    looks = (_look(root + os.fsencode(meta["path"]), meta) for meta in page)
    # obstore drops the slash at the end of a key.
    is_marker = re.compile(rb"[^./]*")
    return [
        look
        for look in looks
        if look.size_bytes or not is_marker.fullmatch(look.address.rpartition(b"/")[2])
    ]


def _look(address: bytes, meta: Mapping[str, Any]) -> Look:
    # Listings of some servers have milliseconds, which no answer to a request for an object has.
    mtime_ns = int(meta["last_modified"].timestamp()) * 1_000_000_000
    etag = meta["e_tag"]
    if etag and not etag.startswith("W/"):
        etag = etag.strip('"')  # Azure's listings have none of these
    return Look(address, meta["size"], mtime_ns, etag or None)


def _root(address: bytes) -> bytes:
    scheme, bucket, _ = parts_of(address)
    return os.fsencode(f"{scheme}://{bucket}/")


def _opened(address: bytes) -> tuple[Any, str]:
    """The store of an address, and its key as obstore takes it."""
    scheme, bucket, key = parts_of(address)
    key = key.rstrip("/")
    return _store(scheme, bucket), unquote(key) if scheme in ("https", "http") else key


@cache
def _store(scheme: str, bucket: str) -> Any:
    """The connection to a bucket, with what the environment says of the server and credentials.

    Raises:
        AudioError: there are no credentials, or the profile that is named has none.
    """
    from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

    if not has_credentials(scheme):
        raise AudioError(Reason.UNREADABLE, NO_CREDENTIALS)
    urls = {name: os.environ.get(name, "") for name in _ENDPOINTS}
    is_plain = scheme == "http" or any(url.startswith("http://") for url in urls.values())
    options: dict[str, Any] = {
        "client_options": {**_CLIENT, "allow_http": is_plain},
        "retry_config": _RETRY,
    }
    match scheme:
        case "s3":
            endpoint = urls["AWS_ENDPOINT_URL_S3"] or urls["AWS_ENDPOINT_URL"]
            given: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
            return S3Store(bucket, **given, **of_profile(), **options)
        case "gs":
            return GCSStore(bucket, **options)
        case "az":
            return AzureStore(bucket, **options)
        case _:
            return HTTPStore(f"{scheme}://{bucket}", **options)
