"""Pages of `audioset app` over a million clips: how long each kind of search takes.

    .venv/bin/python -m benchmarks.app_pages [--clips 1000000] [--database sqlite postgresql]
                                             [--folder FOLDER] [--repeats 20] [--only WORD]

The app is started as people start it, over the made-up rows of `sql_scale`, and asked by one
client. Printed are the median, the 95th percentile and the slowest in milliseconds, the median's
ratio to the plainest search, and the app's CPU time for a page (with SQLite, the database's too),
which depends less on what else the machine does. The goal is a 95th percentile under 200 ms. With
--folder the SQLite database is kept there, and taken from there if it is there already.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from benchmarks.database_load import prepare
from benchmarks.processes import ROOT
from benchmarks.sql_scale import database, fill
from db.engine import open_engine
from db.migrate import ensure_schema

KINDS = {
    "one class": "/?under=Dog",
    "a branch": "/?under=Animal",
    "a large branch": "/?under=Music",
    "the rest of AudioSet": "/?under=Sounds+of+things",
    "any of several": "/?under=Dog&under=Cat&under=Siren",
    "all of several": "/?under=Music&all_of=Speech",
    "one without another": "/?under=Music&not_under=Speech",
    "from a low score": "/?under=Music&min_score=0.1",
    "from a high score": "/?under=Music&min_score=0.95",
    "every time it is heard": "/?under=Music&each=1",
    "that lasts": "/?under=Music&min_duration=2",
    "on one day": "/?under=Music&from_day=2024-03-01&to_day=2024-03-01",
    "in one month": "/?under=Music&from_day=2024-03-01&to_day=2024-03-31",
    "at dawn": "/?under=Music&from_hour=04:00&to_hour=06:00",
    "in a folder": "/?under=Music&path=site-7",
    "at a site of 50,000": "/?under=Music&site=site+7",
    "at a site of 1,000": "/?under=Music&site=small+site",
    "at a site, rare, low score": "/?under=Chainsaw&site=small+site&min_score=0.1",
    "at a site on one day": "/?under=Music&site=site+7&from_day=2024-03-01&to_day=2024-03-01",
    "near a site": "/?under=Music&near=47.07,8.07&km=2",
    "one file": "/?under=Music&path=777777.wav",
    "earliest first": "/?under=Music&order=time",
    "longest first": "/?under=Music&order=duration",
    "the 20th page": "/?under=Music&offset=1140",
    "the last page": "/?under=Music&offset=2940",
    "the first page": "/",
    "classes for two letters": "/classes?text=do",
    "classes for a branch": "/classes?text=music",
    "an unknown class": "/?under=Sirene",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--database", nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--only", default="", help="the kinds whose name has this word")
    options = parser.parse_args()
    kinds = {name: path for name, path in KINDS.items() if options.only in name}
    with tempfile.TemporaryDirectory(prefix="audioset-app-") as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        for kind in options.database:
            with database(kind, folder) as url:
                if url is None:
                    print(f"{kind}: left out, no server is installed")
                    continue
                _fill(url, options.clips)
                with _app(Path(name), url) as (address, pid):
                    print(f"\n{kind}: {options.clips:,} clips")
                    measure(address, pid, kinds, options.repeats)


def measure(address: str, pid: int, kinds: dict[str, str], repeats: int) -> None:
    """Ask for each kind so many times, after once to warm the caches up, and print."""
    every: list[float] = []
    plainest = 0.0
    print(f"  {'':28}{'p50 ms':>9}{'p95':>9}{'max':>9}{'ratio':>8}{'CPU ms':>9}")
    with httpx.Client(base_url=address, headers={"accept": "text/html"}, timeout=120) as client:
        for name, path in kinds.items():
            client.get(path)
            ms: list[float] = []
            cpu_s = _cpu_s(pid)
            for _ in range(repeats):
                began = time.perf_counter()
                answer = client.get(path)
                ms.append((time.perf_counter() - began) * 1e3)
                assert answer.status_code in (200, 400), answer.text
            cpu_ms = (_cpu_s(pid) - cpu_s) / repeats * 1e3
            p50, p95 = np.percentile(ms, [50, 95])
            plainest = plainest or p50
            ratio = p50 / plainest
            print(
                f"  {name:28}{p50:9.0f}{p95:9.0f}{max(ms):9.0f}{ratio:8.1f}{cpu_ms:9.0f}",
                flush=True,
            )
            every += ms
    p50, p95 = np.percentile(every, [50, 95])
    print(f"  {'all of them':28}{p50:9.0f}{p95:9.0f}{max(every):9.0f}{p50 / plainest:8.1f}")


def _cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _fill(url: str, n_clips: int) -> None:
    engine = open_engine(url)
    ensure_schema(engine)
    with engine.connect() as connection:
        is_full = connection.exec_driver_sql("SELECT 1 FROM clips LIMIT 1").first() is not None
    if not is_full:
        fill(engine, prepare(engine), n_clips)
    engine.dispose()


@contextmanager
def _app(home: Path, url: str) -> Iterator[tuple[str, int]]:
    line = [sys.executable, "-m", "flows.cli.program", "app", "--port", "0", "--home", str(home)]
    with subprocess.Popen(
        [*line, "--db", url], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        try:
            address = next(line.strip() for line in server.stderr if line.startswith("http"))
            yield address, server.pid
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
