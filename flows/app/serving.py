"""The server of the page, until it is stopped."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import socket
import threading
import webbrowser
from pathlib import Path

import uvicorn
from sqlalchemy import Engine

from audioset_core.errors import UserError
from db.read_only import snapshot_of
from flows.addresses import APP_FILE
from flows.app.application import application
from flows.app.guard import Guard
from flows.app.served import Served
from flows.stopping import stopper
from flows.terminal import note

TOKEN_VARIABLE = "AUDIOSET_APP_TOKEN"  # noqa: S105 (a name)
_END_S = 3
"""So long may answers take once a signal has come."""


def serve_app(
    engine: Engine, home: Path, *, host: str, port: int, read_only: bool, show: bool
) -> None:
    """Serve the page until a signal comes; prints its address.

    Raises:
        UserError: the address is not one of this machine's, or the port is taken.
    """
    stopper().line = "audioset: stopped"
    listening = _listening(host, port)
    token = None
    if not _is_loopback(listening):
        token = os.environ.get(TOKEN_VARIABLE) or secrets.token_urlsafe(24)
    guard = Guard(token, read_only or snapshot_of(engine) is not None)
    config = uvicorn.Config(
        application(Served(engine, home, guard)),
        log_level="warning", access_log=False, server_header=False, ws="none",
        timeout_graceful_shutdown=_END_S,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    address = _address(host, listening)
    published = None if guard.is_read_only else home / APP_FILE
    if published:
        with contextlib.suppress(OSError):  # no such folder, or one that can only be read
            published.write_text(address, encoding="utf-8")
    if token:
        address += f"?token={token}"
    note(address)
    if guard.is_read_only:
        note("read-only: nothing can be judged or taught here")
    if show:
        webbrowser.open(address)
    try:
        thread.join()
    finally:
        if published:
            with contextlib.suppress(OSError):
                published.unlink()
        server.should_exit = True
        thread.join(2 * _END_S)


def _listening(host: str, port: int) -> socket.socket:
    found = None
    try:
        family, kind, protocol, _, at = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # Of an unstated protocol asyncio would not send at once, which costs a page 40 ms.
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(at)
        found.listen()
    except OSError as error:
        if found is not None:
            found.close()
        message = f"--host {host} --port {port}: {error.strerror or error}"
        raise UserError(f"{message}; choose another, or --port 0 for any free port") from None
    return found


def _is_loopback(listening: socket.socket) -> bool:
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def _address(host: str, listening: socket.socket) -> str:
    port = listening.getsockname()[1]
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 (compared)
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"
