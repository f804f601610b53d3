"""A second run: the time and memory that it takes to find that nothing is new.

    .venv/bin/python -m benchmarks.discovery [--files 10000 100000 1000000]

One sound is labelled; its hard links, in folders of a thousand, are then made known to the
database as sources of the same clip. What is timed is ``audioset label FOLDER`` as a person runs
it, start of the process included. Targets: 100,000 files in 10 s, 1,000,000 in 60 s and 500 MB.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from benchmarks.processes import call, must_run

_PER_FOLDER = 1_000
_PER_INODE = 30_000  # a file system may allow no more than 32,000 links


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    print(f"{'known files':>12}{'wall s':>9}{'peak MB':>9}{'us a file':>11}")
    for n_files in options.files:
        with tempfile.TemporaryDirectory(prefix="audioset-known-") as name:
            folder, home = Path(name) / "sounds", Path(name) / "home"
            plant(folder, n_files)
            label = ["-m", "flows.cli.program", "label", "--home", str(home), "--device", "cpu"]
            must_run([*label, str(folder / "0000" / "000.wav")])
            call("benchmarks.discovery:make_known", folder, home)
            outcome = must_run([*label, str(folder)])
            print(
                f"{n_files:12,}{outcome.wall_s:9.1f}{outcome.peak_mb:9.0f}"
                f"{outcome.wall_s / n_files * 1e6:11.1f}",
                flush=True,
            )
            shutil.rmtree(folder)


def plant(folder: Path, n_files: int) -> None:
    """A second of noise, and links to it."""
    import numpy as np
    import soundfile

    samples = np.random.default_rng(0).normal(0, 0.1, 16_000)
    source = folder
    for number in range(n_files):
        path = folder / f"{number // _PER_FOLDER:04}" / f"{number % _PER_FOLDER:03}.wav"
        if number % _PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        if number % _PER_INODE == 0:
            soundfile.write(path, samples, 16_000)
            os.utime(path, ns=(10**18, 10**18))
            source = path
        else:
            os.link(source, path)


def make_known(folder: str, home: str) -> None:
    """Tell the database of every file, as if earlier runs had read it."""
    from sqlalchemy import insert, select

    from db.engine import open_engine, writing
    from db.schema.tables import sources
    from db.types import path_digest

    engine = open_engine(f"sqlite:///{home}/labels.db")
    with engine.connect() as connection:
        first = dict(connection.execute(select(sources)).mappings().one())
    del first["id"]
    with writing(engine) as connection:
        for part in sorted(Path(folder).iterdir()):
            rows = []
            for entry in sorted(part.iterdir()):
                path = os.fsencode(entry)
                if path != first["path"]:
                    rows.append({
                        **first, "path": path, "path_text": str(entry),
                        "path_digest": path_digest(path),
                    })  # fmt: skip
            connection.execute(insert(sources), rows)


if __name__ == "__main__":
    main()
