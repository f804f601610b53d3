"""A real server of object storage, moto's, in its own process, and a proxy that makes trouble.

Every request of a test goes through the proxy, which counts them.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

import pytest

from audioset_core.object_storage import credentials, stores

BUCKET = "recordings"
KEY_ID, SECRET = "AKIDOFATESTONLY00000", "a-secret-of-a-test-only"
# The server looks for a signature, and checks none.
_SIGNED = {
    "Authorization": f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=00"
}

Fault = Callable[["_Handler", http.client.HTTPResponse], bool]
"""Answers a request in another way; False leaves it to the proxy."""


@dataclass(slots=True)
class Objects:
    """The proxy before the server, and what a test puts into the bucket.

    ``faults`` chooses for a request, by its method, its path and how often it came, what goes
    wrong; None: nothing does.
    """

    port: int
    behind: int
    counts: Counter[str] = field(default_factory=Counter)
    by_path: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: Callable[[str, str, int], Fault | None] = lambda *_: None
    bucket: str = BUCKET
    _lock: Any = field(default_factory=threading.Lock)

    @property
    def environment(self) -> dict[str, str]:
        """What leads here, and the credentials."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def put(self, key: str, data: bytes, **headers: str) -> str:
        """Store an object; returns its address."""
        self.request("PUT", f"/{self.bucket}/{quote(key, safe='/')}", data, headers)
        return f"s3://{self.bucket}/{key}"

    def delete(self, key: str) -> None:
        self.request("DELETE", f"/{self.bucket}/{quote(key, safe='/')}")

    def request(
        self, method: str, path: str, data: bytes = b"", headers: dict[str, str] | None = None
    ) -> int:
        """A request past the proxy; returns its status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.behind, timeout=30)
        try:
            connection.request(method, path, data, {**_SIGNED, **(headers or {})})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def forget(self) -> None:
        """Begin to count anew, without faults."""
        self.counts.clear()
        self.by_path.clear()
        self.faults = lambda *_: None

    def seen(self, method: str, path: str) -> int:
        """Count a request; returns how often the same one came before."""
        is_listing = "list-type=2" in path
        with self._lock:
            self.counts["LIST" if is_listing else method] += 1
            self.by_path[method, path] += 1
            return self.by_path[method, path] - 1


def status(code: int, error: str = "") -> Fault:
    """An answer with an error's code, as S3 words them."""

    def answer(handler: _Handler, _: http.client.HTTPResponse) -> bool:
        text = f"<Error><Code>{error}</Code><Message>m</Message></Error>" if error else ""
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(text.encode())
        return True

    return answer


def cut(after_bytes: int, *, promised: int | None = None, pause_s: float = 0) -> Fault:
    """The connection ends after some bytes of the body; a length that is not the true one."""

    def answer(handler: _Handler, real: http.client.HTTPResponse) -> bool:
        data = real.read()
        handler.send_response(real.status)
        for name, value in real.getheaders():
            if name.lower() not in ("content-length", "connection"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(promised or len(data)))
        handler.end_headers()
        handler.wfile.write(data[:after_bytes])
        handler.wfile.flush()
        time.sleep(pause_s)
        handler.close_connection = True
        with suppress(OSError):
            handler.connection.shutdown(socket.SHUT_RDWR)
        return True

    return answer


def slow(pause_s: float, pieces: int = 4) -> Fault:
    """The body comes in pieces, with a pause before each."""

    def answer(handler: _Handler, real: http.client.HTTPResponse) -> bool:
        data = real.read()
        handler.begin(real, len(data))
        size = max(1, len(data) // pieces)
        for start in range(0, len(data), size):
            time.sleep(pause_s)
            handler.wfile.write(data[start : start + size])
        return True

    return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: Objects

    def do_GET(self) -> None:
        n_before = self.objects.seen(self.command, self.path)
        fault = self.objects.faults(self.command, self.path, n_before)
        connection = http.client.HTTPConnection("127.0.0.1", self.objects.behind, timeout=60)
        try:
            names = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            connection.request(self.command, self.path, headers={**_SIGNED, **names})
            real = connection.getresponse()
            if fault is None or not fault(self, real):
                data = real.read()
                length = real.getheader("Content-Length") if self.command == "HEAD" else None
                self.begin(real, int(length or len(data)))
                self.wfile.write(data)
        except OSError:  # the reader went away
            self.close_connection = True
        finally:
            connection.close()

    do_HEAD = do_GET  # noqa: N815

    def begin(self, real: http.client.HTTPResponse, n_bytes: int) -> None:
        self.send_response(real.status)
        for name, value in real.getheaders():
            if name.lower() not in ("content-length", "connection", "server", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(n_bytes))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        pass  # a reader that was killed


@contextmanager
def running_objects() -> Iterator[Objects]:
    """The server with an empty bucket, and the proxy before it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        behind = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(behind)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": "1000"},
    )  # fmt: skip
    proxy = _Server(("127.0.0.1", 0), _Handler)
    objects = Objects(proxy.server_address[1], behind)
    proxy.RequestHandlerClass = type("Handler", (_Handler,), {"objects": objects})
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                objects.request("PUT", f"/{BUCKET}")
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield objects
    finally:
        proxy.shutdown()
        proxy.server_close()
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def object_server() -> Iterator[Objects]:
    with running_objects() as objects:
        yield objects


@pytest.fixture
def objects(object_server: Objects, monkeypatch: pytest.MonkeyPatch) -> Objects:
    """The server, to which the environment leads, without faults and counts of an earlier test.

    Its objects are still there.
    """
    for name, value in object_server.environment.items():
        monkeypatch.setenv(name, value)
    # Not in a cloud, whose machines have credentials.
    monkeypatch.setattr(credentials, "_OF_MACHINE", ("127.0.0.1", 9))
    stores._store.cache_clear()
    object_server.forget()
    return object_server
