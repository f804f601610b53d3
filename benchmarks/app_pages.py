"""Pages of `audioset app` over a million clips: how long each kind of search takes.

    .venv/bin/python -m benchmarks.app_pages [--clips 1000000] [--database sqlite postgresql]
                                             [--folder FOLDER] [--repeats 20] [--only WORD]

The app is started as people start it, over the made-up rows of `sql_scale`, and asked for each kind
of page in turns by one client. Printed are the median, the 95th percentile and the slowest, in
milliseconds and as ratios to the plainest search. The goal is a 95th percentile under 200 ms. With
--folder the SQLite database is kept there, and taken from there if it is there already.
"""

from __future__ import annotations

import argparse
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
    "one file": "/?under=Music&path=777777.wav",
    "earliest first": "/?under=Music&order=time",
    "longest first": "/?under=Music&order=duration",
    "the 20th page": "/?under=Music&offset=1140",
    "the last page": "/?under=Music&offset=5940",
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
                with _app(Path(name), url) as address:
                    print(f"\n{kind}: {options.clips:,} clips")
                    measure(address, kinds, options.repeats)


def measure(address: str, kinds: dict[str, str], repeats: int) -> None:
    """Ask for each kind in turns, and print; the first turn warms the caches up."""
    took_ms: dict[str, list[float]] = {name: [] for name in kinds}
    with httpx.Client(base_url=address, headers={"accept": "text/html"}, timeout=120) as client:
        for turn in range(repeats + 1):
            for name, path in kinds.items():
                began = time.perf_counter()
                answer = client.get(path)
                if turn:
                    took_ms[name].append((time.perf_counter() - began) * 1e3)
                assert answer.status_code in (200, 400), answer.text
    plainest = float(np.median(next(iter(took_ms.values()))))
    every = np.concatenate(list(took_ms.values()))
    print(f"  {'':28}{'p50 ms':>9}{'p95':>9}{'max':>9}{'ratio':>8}")
    for name, ms in [*took_ms.items(), ("all of them", every)]:
        p50, p95 = np.percentile(ms, [50, 95])
        print(f"  {name:28}{p50:9.0f}{p95:9.0f}{max(ms):9.0f}{p50 / plainest:8.1f}", flush=True)


def _fill(url: str, n_clips: int) -> None:
    engine = open_engine(url)
    ensure_schema(engine)
    with engine.connect() as connection:
        is_full = connection.exec_driver_sql("SELECT 1 FROM clips LIMIT 1").first() is not None
    if not is_full:
        fill(engine, prepare(engine), n_clips)
    engine.dispose()


@contextmanager
def _app(home: Path, url: str) -> Iterator[str]:
    line = [sys.executable, "-m", "flows.cli.program", "app", "--port", "0", "--home", str(home)]
    with subprocess.Popen(
        [*line, "--db", url], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        try:
            yield next(line.strip() for line in server.stderr if line.startswith("http"))
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
