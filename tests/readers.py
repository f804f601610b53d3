"""Somebody who may read everything and write nothing: another user, or a read-only disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_NOBODY = ("--reuid=65534", "--regid=65534", "--clear-groups")
# What root's own folders hold, such as this interpreter, stays readable.
_MAY_READ = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are for one user."""
    with tempfile.TemporaryDirectory(prefix="audioset-public-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def locked(folder: Path) -> Iterator[list[str]]:
    """Nobody may write to what is in the folder; what to put before a reader's command.

    Permissions do not bind root, who therefore asks as somebody else.
    """
    every = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in every}
    for path in every:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        if os.geteuid() != 0:
            yield []
        elif setpriv := shutil.which("setpriv"):
            yield [setpriv, *_NOBODY, *_MAY_READ]
        else:
            pytest.skip("root needs setpriv to ask as somebody else")
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def on_read_only_disk(folder: Path) -> list[str]:
    """What to put before a command for which the folder lies on a read-only disk."""
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    before = ["unshare", "--mount", "sh", "-c", script, str(folder)]
    if not shutil.which("unshare") or subprocess.run([*before, "true"], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    return before
