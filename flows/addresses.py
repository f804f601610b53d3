"""Where Prefect shows a run, and where `audioset app` is, as far as is known without asking."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

APP_FILE = "app.address"
"""In the home, while `audioset app` runs: its address, without the token."""
_ANSWERS_WITHIN_S = 0.3


def prefect_address(home: Path) -> str | None:
    """The address of Prefect's pages: the one that is configured, or that of `audioset serve` on
    this home, whose file names the API and below it the pages, if there are any.

    The configured one is not asked; what the home's file names may have ended long ago, so its
    port must be open.
    """
    return _address(("PREFECT_UI_URL", "PREFECT_API_URL"), home / "prefect.lock", line=1)


def app_address(home: Path) -> str | None:
    """The address of the app, as `prefect_address`: AUDIOSET_APP_URL, or `audioset app`."""
    return _address(("AUDIOSET_APP_URL",), home / APP_FILE)


def run_address(prefect: str | None, flow_run_id: str | None) -> str | None:
    """The page of a run of a flow."""
    return f"{prefect}/runs/flow-run/{flow_run_id}" if prefect and flow_run_id else None


def _address(variables: tuple[str, ...], file: Path, line: int = 0) -> str | None:
    for variable in variables:
        if address := os.environ.get(variable):
            return _of_pages(address)
    try:
        published = file.read_text(encoding="utf-8").splitlines()[line]
    except (OSError, UnicodeDecodeError, IndexError):
        return None
    address = _of_pages(published)
    return address if address and _is_open(address) else None


def _of_pages(address: str) -> str | None:
    """The address without the API's path, and without a password."""
    try:
        parts = urlsplit(address.strip())
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{place}{parts.path.rstrip('/').removesuffix('/api')}"


def _is_open(address: str) -> bool:
    parts = urlsplit(address)
    try:
        with socket.create_connection((parts.hostname, parts.port or 80), _ANSWERS_WITHIN_S):
            return True
    except (OSError, ValueError):
        return False
