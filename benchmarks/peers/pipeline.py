"""Our pipeline end to end: ``audioset label``, as a person runs it, into a fresh home.

Prefect, discovery, hashing, claims, fsynced result files and SQL rows are in the time of the work;
the start of the process and of Prefect's server is in the wall time only.
"""

from __future__ import annotations

import argparse
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from benchmarks.peers import protocol


def main() -> None:
    arguments = protocol.parser(__doc__)
    arguments.add_argument("--precision", default="float32")
    options: argparse.Namespace = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "flows.cli.program", "label", *map(str, options.files)]
        settings = ["--home", name, "--device", "cpu", "--patch-hop", str(options.hop)]
        settings += ["--precision", options.precision]
        quiet = {key: value for key, value in os.environ.items() if key != "AUDIOSET_DB"}
        done = subprocess.run(
            command + settings, capture_output=True, text=True, check=False, env=quiet
        )
        said = re.search(r"([\d.]+) s in all", done.stdout)
        if done.returncode or not said:
            sys.exit(f"audioset label ended with {done.returncode}: {done.stderr or done.stdout}")
        with closing(sqlite3.connect(Path(name) / "labels.db")) as labels:
            query = "SELECT count(*), sum(n_patches) FROM labellings WHERE status = 'done'"
            n_clips, n_patches = labels.execute(query).fetchone()
    if n_clips != len(options.files):
        sys.exit(f"{n_clips} of {len(options.files)} files were labelled")
    protocol.report(work_s=float(said[1]), n_patches=n_patches)


if __name__ == "__main__":
    main()
