"""Object storage: which library reads it, what a listing needs, and a run that is killed.

    .venv/bin/python -m benchmarks.object_storage libraries [--other PYTHON]
    .venv/bin/python -m benchmarks.object_storage listing [--objects 1000000]
    .venv/bin/python -m benchmarks.object_storage run [--objects 10000]

``libraries``: obstore and s3fs list and read many small objects and a few huge ones, each in a
process of its own, of a server on this machine; PYTHON is an interpreter that has both. The server
is slow, so the processor time of the reader counts. ``listing``: a stand-in server lists objects
that are not there. ``run``: tiny recordings are labelled, the run is killed in the middle and
started again.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import soundfile

from audioset_core.inputs.walk import PassedOver, find_recordings, read_inputs
from tests.objects import Objects, running_objects

_SMALL, _HUGE_BYTES = 10_000, 256 << 20
_PAGE = 1_000
# Each reads in 8 threads, or with as many requests at a time.
_WAYS = {
    "obstore": """
import obstore
from concurrent.futures import ThreadPoolExecutor
from obstore.store import S3Store
store = S3Store("recordings", endpoint=os.environ["AWS_ENDPOINT_URL"],
                client_options={"allow_http": True})
def listed(prefix):
    return [meta["path"] for page in obstore.list(store, prefix=prefix) for meta in page]
def read(keys):
    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(read_one, keys))
def read_one(key):
    return sum(len(piece) for piece in obstore.get(store, key).stream(min_chunk_size=1 << 20))
""",
    "s3fs": """
import s3fs
store = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"], asynchronous=False)
def listed(prefix):
    return list(store.find(f"recordings/{prefix}", detail=True))
def read(keys):
    if len(keys) > 10:
        return sum(sum(map(len, store.cat(keys[n:n + 8]).values())) for n in range(0, len(keys), 8))
    total = 0
    for key in keys:
        with store.open(key, "rb", block_size=8 << 20, cache_type="readahead") as file:
            while piece := file.read(1 << 20):
                total += len(piece)
    return total
""",
}
_MEASURE = """
import os, time
{way}
def measured(what, act):
    wall, cpu = time.perf_counter(), time.process_time()
    result = act()
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    print(what, wall_s, cpu_s, flush=True)
    return result
for kind in ("small", "huge"):
    keys = measured(f"list-{{kind}}", lambda: listed(kind))
    measured(f"read-{{kind}}", lambda: read(keys))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("libraries", "listing", "run"))
    parser.add_argument("--objects", type=int)
    parser.add_argument("--other", default=sys.executable, metavar="PYTHON")
    options = parser.parse_args()
    match options.what:
        case "libraries":
            _libraries(options.other, options.objects or _SMALL)
        case "listing":
            _listing(options.objects or 1_000_000)
        case "run":
            _run(options.objects or _SMALL)


def _put_all(objects: Objects, data: Iterator[tuple[str, bytes]]) -> None:
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda each: objects.put(*each), data):
            pass


def _libraries(python: str, n_small: int) -> None:
    with running_objects() as objects:
        small = ((f"small/{n % 10}/{n:05}.wav", os.urandom(4_096)) for n in range(n_small))
        _put_all(objects, small)
        _put_all(objects, ((f"huge/{n}.wav", bytes(_HUGE_BYTES)) for n in range(2)))
        direct = {**objects.environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{objects.behind}"}
        found: dict[str, dict[str, tuple[float, float]]] = {}
        for name, way in _WAYS.items():
            done = subprocess.run(
                [python, "-c", _MEASURE.format(way=way)], env={**os.environ, **direct},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                print(f"{name}: left out, {done.stderr.strip().splitlines()[-1]}")
                continue
            lines = (line.split() for line in done.stdout.splitlines())
            found[name] = {each[0]: (float(each[1]), float(each[2])) for each in lines}
    for name, figures in found.items():
        for what, (wall_s, cpu_s) in figures.items():
            base_s, base_cpu_s = found["obstore"][what]
            print(
                f"{name:8} {what:10} {wall_s:7.2f} s, CPU {cpu_s:6.2f} s: {wall_s / base_s:.1f} x "
                f"and {cpu_s / base_cpu_s:.1f} x of obstore's"
            )


class _Lister(BaseHTTPRequestHandler):
    """Lists objects ``n.wav`` that are not there, by pages."""

    protocol_version = "HTTP/1.1"
    n_objects = 0

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        first = int(asked.get("continuation-token", ["0"])[0])
        end = min(first + _PAGE, self.n_objects)
        rows = "".join(
            f"<Contents><Key>site/{n:08}.wav</Key><Size>480044</Size><ETag>&quot;{n:032x}&quot;</ETag>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for n in range(first, end)
        )
        more = (
            f"<NextContinuationToken>{end}</NextContinuationToken>" if end < self.n_objects else ""
        )
        text = f"<ListBucketResult>{rows}{more}</ListBucketResult>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def _lister(n_objects: int) -> Iterator[int]:
    handler = type("Lister", (_Lister,), {"n_objects": n_objects})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def _listing(n_objects: int) -> None:
    with _lister(n_objects) as port:
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none", "AWS_REGION": "us-east-1",
        }  # fmt: skip
        inputs = read_inputs(["s3://recordings/site/"])
        began, peaks_mb = time.perf_counter(), []
        for number, _ in enumerate(find_recordings(inputs, PassedOver()), 1):
            if number % max(1, n_objects // 10) == 0:
                peaks_mb.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        took_s = time.perf_counter() - began
    print(f"{n_objects:,} objects in {took_s:.1f} s, {-(-n_objects // _PAGE):,} requests; peak of")
    print(f"memory in MB, at every tenth: {peaks_mb} (with the server in the same process)")


def _tone(seed: int) -> bytes:
    written = io.BytesIO()
    samples = np.random.default_rng(seed).normal(0, 0.1, 4_800)
    soundfile.write(written, samples, 16_000, format="WAV")
    return written.getvalue()


def _run(n_objects: int) -> None:
    with running_objects() as objects, tempfile.TemporaryDirectory() as name:
        _put_all(objects, ((f"many/{n % 10}/{n:05}.wav", _tone(n)) for n in range(n_objects)))
        home = Path(name) / "home"
        line = [sys.executable, "-c", "from flows.cli.program import main; main()", "label",
                "s3://recordings/many", "--model", "pocket", "--home", str(home)]  # fmt: skip
        env = {**os.environ, **objects.environment}
        for is_killed in (True, False, False):
            objects.forget()
            before, began = _n_done(home), time.perf_counter()
            process = subprocess.Popen(
                line,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            while is_killed and _n_done(home) < n_objects // 2 and process.poll() is None:
                time.sleep(0.05)
            if is_killed:
                os.killpg(process.pid, signal.SIGKILL)
            _, stderr = process.communicate()
            assert is_killed or process.returncode == 0, stderr.decode()
            took_s, n_done = time.perf_counter() - began, _n_done(home)
            how = "killed" if is_killed else "ended"
            requests = ", ".join(
                f"{count:,} {kind}" for kind, count in sorted(objects.counts.items())
            )
            print(f"{how} after {took_s:.1f} s: {n_done - before:,} labelled; requests: {requests}")
        with closing(sqlite3.connect(home / "labels.db")) as conn:
            counts = conn.execute(
                "SELECT count(*), count(DISTINCT clip_id) FROM labellings"
            ).fetchone()
        n_files = sum(1 for _ in (home / "scores").rglob("*.npy"))
        print(f"labellings {counts[0]:,}, of {counts[1]:,} clips, in {n_files:,} files")
        assert {*counts, n_files} == {n_objects}


def _n_done(home: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{home}/labels.db?mode=ro", uri=True)) as conn:
            row = conn.execute("SELECT count(*) FROM labellings WHERE status = 'done'").fetchone()
    except sqlite3.OperationalError:
        return 0
    return int(row[0])


if __name__ == "__main__":
    main()
