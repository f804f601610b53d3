"""Where weights come from: a given file, the cache, or the publisher's address.

The order is: the given path; ``AUDIOSET_WEIGHTS`` for YAMNet and ``AUDIOSET_WEIGHTS_<MODEL>`` for
the others (``AUDIOSET_WEIGHTS_VGGISH``); the package, for a model that it includes; and for
official weights with a known digest ``AUDIOSET_ASSETS/weights/`` and the official download. An
interrupted download is resumed, and used only if its size and SHA-256 are right; of several
processes that want a file, one fetches and the others wait. Files that cannot be verified are
never downloaded. Published files are converted once into the cache.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from audioset_core.checkpoints.readers import find_container, not_weights
from audioset_core.data import FOLDER
from audioset_core.errors import WeightsError
from audioset_core.models.registry import BUNDLES, POCKET, ModelBundle, OfficialWeights
from audioset_core.weights.convert import convert, file_sha256, is_converted, read_metadata
from audioset_core.weights.proxies import proxy_asked, proxy_problem

if TYPE_CHECKING:
    import httpx

_FAULTS_OF_DISKS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
_MOST_BYTES = 1 << 30
"""Of a file whose size no publisher states."""
_MOST_REDIRECTS = 5
_THIS_MACHINE = frozenset({"127.0.0.1", "localhost", "::1"})

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all; 0: nobody states them)."""


@dataclass(frozen=True, slots=True)
class ReadyWeights:
    """Converted weights on disk. ``version`` identifies the values, whatever their source file."""

    path: Path
    model: str
    version: str
    source_sha256: str
    has_scores: bool = True
    """False: these weights have no classifier head, the model gives embeddings only."""

    @property
    def named(self) -> str:
        """Model, version, and the caution about the model's scores, if there is one."""
        caution = BUNDLES[self.model].caution
        return f"{self.model} {self.version}" + (f" ({caution})" if caution else "")


def cache_dir() -> Path:
    """``AUDIOSET_CACHE``, or this project's folder in the user's cache (``XDG_CACHE_HOME``).

    Raises:
        WeightsError: the user's home folder is unknown.
    """
    import platformdirs

    chosen = os.environ.get("AUDIOSET_CACHE")
    if chosen:
        return Path(chosen)
    folder = platformdirs.user_cache_path("audioset-flows")
    if not folder.is_absolute():
        raise WeightsError(
            f"no folder for the cache of weights: {str(folder)!r} is not a full path; set "
            f"XDG_CACHE_HOME to one"
        )
    return folder


def environment_name(bundle: ModelBundle) -> str:
    """The environment variable that names this model's weights."""
    is_default = bundle.name == "yamnet"
    return "AUDIOSET_WEIGHTS" if is_default else f"AUDIOSET_WEIGHTS_{bundle.name.upper()}"


def find_source(
    bundle: ModelBundle, given: Path | None = None, *, env: Mapping[str, str] = os.environ
) -> Path | None:
    """The weights on this machine that would be used; None if they must be downloaded.

    Raises:
        WeightsError: a path was given, but no weights are there; or none are anywhere and there
            is no official download.
    """
    variable = environment_name(bundle)
    for origin, path in (("--weights", given), (variable, env.get(variable))):
        if path:
            if find_container(Path(path)) is None:
                raise WeightsError(f"{origin}: no weights file at {path}")
            return Path(path)
    if bundle.embedded:
        return FOLDER / bundle.embedded
    if bundle.official is None:
        raise WeightsError(
            f"{bundle.name} has no download that could be verified: get {bundle.weights_hint} "
            f"and give the file with --weights or {variable}"
        )
    assets = env.get("AUDIOSET_ASSETS")
    candidates = [cache_dir() / "downloads" / bundle.official.file_name]
    if assets:
        candidates.insert(0, Path(assets) / "weights" / bundle.official.file_name)
    return next((path for path in candidates if _is_file(path)), None)


def peek(bundle: ModelBundle, given: Path | None = None) -> ReadyWeights | None:
    """The weights that would be used, if they are already converted; reads no tensor.

    Raises:
        WeightsError: as `find_source`, or the file belongs to another model.
    """
    source = find_source(bundle, given)
    if source is None:
        return None
    path = _converted(bundle, source)
    return _described(bundle, path) if _is_file(path) else None


def prepare(
    bundle: ModelBundle, given: Path | None = None, *, progress: Progress | None = None
) -> ReadyWeights:
    """Find or download the weights and convert them once; returns the converted weights.

    Raises:
        WeightsError: no file and no network, a damaged file, another model's weights, or a cache
            that cannot be written.
    """
    source = find_source(bundle, given)
    if source is None:
        assert bundle.official is not None  # noqa: S101 (find_source would have raised)
        source = download(
            bundle.official,
            cache_dir() / "downloads",
            variable=environment_name(bundle),
            progress=progress,
        )
    path = _converted(bundle, source)
    if not _is_file(path):
        with _writing_cache(path.parent):
            convert(source, path, model=bundle.name)
    return _described(bundle, path)


def download(
    official: OfficialWeights,
    folder: Path,
    *,
    variable: str = "AUDIOSET_WEIGHTS",
    progress: Progress | None = None,
) -> Path:
    """Download a published file; an interrupted download is resumed.

    Only over https (http only from this machine), also where a redirect leads: GitHub and Hugging
    Face redirect every download to another host. The file gets its name after it was verified.
    `variable` is the environment variable that messages name.

    Raises:
        WeightsError: no network, an HTTP error, another kind of address, or bytes that do not
            hash to the pinned value.
    """
    import httpx

    address = httpx.URL(official.url)
    _check_scheme(address)
    problem = proxy_problem(os.environ)
    if problem is not None:
        raise WeightsError(problem)
    target = folder / official.file_name
    part = target.with_name(target.name + ".part")
    try:
        with _writing_cache(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with _alone_in(folder):
                if not _is_file(target):  # another process may just have fetched the file
                    _fetch(official, part, progress)
                    _verify(official, part)
                    part.replace(target)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        why = re.sub(r"\[Errno -?\d+\] ", "", " ".join(str(error).split()))
        why = why or type(error).__name__
        asked = proxy_asked(address.scheme, os.environ)
        if asked and isinstance(error, httpx.HTTPError) and address.host not in _THIS_MACHINE:
            why = f"{why}; asked through {asked}"
        raise WeightsError(
            f"cannot download {official.url} ({why}). Three ways out: give the file with "
            f"--weights or {variable}; connect this machine to the network and run again; "
            f"or label with the small model that needs no download, --model {POCKET.name}"
        ) from error
    return target


def _verify(official: OfficialWeights, part: Path) -> None:
    """Delete what is not the published file, and say what came."""
    if file_sha256(part) == official.sha256:
        return
    came = not_weights(part).replace("is ", ": it is ", 1)
    part.unlink()
    raise WeightsError(
        f"{official.url} did not deliver the published file (SHA-256 differs{came}); "
        f"the download was deleted; run again or give the file with --weights"
    )


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process downloads into the folder; file systems may have no locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _check_scheme(address: httpx.URL) -> None:
    if address.scheme != "https" and address.host not in _THIS_MACHINE:
        raise WeightsError(f"{address} is not fetched: only https is")


def _fetch(official: OfficialWeights, part: Path, progress: Progress | None) -> None:
    import httpx

    done = part.stat().st_size if part.exists() else 0
    most = official.size_bytes or _MOST_BYTES
    if done >= most or (done and not official.size_bytes and file_sha256(part) == official.sha256):
        return
    # The pinned size and digest are of the plain bytes: no compression on the way.
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    timeout = httpx.Timeout(30.0, connect=10.0)
    client = httpx.Client(
        timeout=timeout, follow_redirects=True, max_redirects=_MOST_REDIRECTS,
        event_hooks={"request": [lambda request: _check_scheme(request.url)]},
    )  # fmt: skip
    with client, client.stream("GET", official.url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)  # the part here is not the beginning of the published file
        response.raise_for_status()
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            done = 0
        own_size = int(response.headers.get("Content-Length", 0))
        whole = official.size_bytes or (done + own_size if own_size else 0)
        with part.open("ab" if done else "wb") as file:
            for piece in response.iter_bytes(1 << 16):
                done += len(piece)
                if done > most:
                    raise httpx.TransportError("more bytes than were published")
                file.write(piece)
                if progress is not None:
                    progress(done, whole)


@contextmanager
def _writing_cache(folder: Path) -> Iterator[None]:
    """Report a cache that cannot be written, with what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FAULTS_OF_DISKS:
            raise
        raise WeightsError(
            f"the cache {folder} cannot be written ({error.strerror}); set XDG_CACHE_HOME or "
            f"AUDIOSET_CACHE to a folder that can be"
        ) from error


def _is_file(path: Path) -> bool:
    """Whether it is a file that we can reach; False in a folder that we may not enter."""
    return os.path.isfile(path)  # noqa: PTH113 (the method raises PermissionError)


def _converted(bundle: ModelBundle, source: Path) -> Path:
    try:
        wrong = not_weights(source)
        if wrong:
            raise WeightsError(f"{source} {wrong}, not the weights: fetch the file again")
        if source.suffix == ".safetensors" and is_converted(source):
            return source
        digest = file_sha256(source)
    except OSError as error:
        raise WeightsError(f"{source} cannot be read: {error.strerror}") from error
    return cache_dir() / "weights" / f"{bundle.name}-{digest[:16]}.safetensors"


def _described(bundle: ModelBundle, path: Path) -> ReadyWeights:
    metadata = read_metadata(path)
    if metadata["model"] != bundle.name:
        raise WeightsError(f"{path} holds {metadata['model']} weights, not {bundle.name}")
    return ReadyWeights(
        path,
        bundle.name,
        metadata["version"],
        metadata["source_sha256"],
        has_scores=metadata["has_scores"] == "true",
    )
