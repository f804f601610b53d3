"""What a command and all that it starts connect to and write, by strace.

Needs strace and the right to trace; without them a test is skipped, and fails where CI is set.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

# A question mark: the call is not on every processor.
_CALLS = (
    *("openat", "?openat2", "?open", "?creat", "mkdirat", "?mkdir", "renameat", "?renameat2"),
    *("?rename", "unlinkat", "?unlink", "?rmdir", "linkat", "?link", "symlinkat", "?symlink"),
    *("mknodat", "?mknod", "truncate", "fchmodat", "?chmod", "fchownat", "?chown"),
    *("connect", "sendto", "sendmsg", "sendmmsg"),
)
_OPENS = re.compile(r"^(?:openat2?|open|creat)\((?P<rest>.*)\) = \d+<(?P<path>.*)>")
_FOR_WRITING = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")
_CHANGES = re.compile(r"^(?:mkdir|rename|unlink|rmdir|link|symlink|mknod|truncate|chmod|chown|fch)")
_NAMED = re.compile(r'(?:AT_FDCWD<(?P<cwd>[^>]*)>, |\d+<(?P<folder>[^>]*)>, )?"(?P<name>[^"]*)"')
_ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')


def strace() -> str:
    """The program; skips the test where it cannot trace."""
    program = shutil.which("strace")
    works = program and subprocess.run(
        [program, "-f", "-o", os.devnull, "true"], capture_output=True, check=False
    )
    if program and works and works.returncode == 0:
        return program
    message = "strace is not installed (Debian's strace), or may not trace here"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def watched(line: Sequence[str | bytes | Path], folder: Path) -> list[str | bytes | Path]:
    """The command line that runs another, with its calls written to files in the folder.

    The process that is started is the command itself, so that it gets the signals.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-D", "-ff", "--seccomp-bpf", "-qq", "-y", "-s", "4096"]
    return [strace(), *options, "-e", f"trace={','.join(_CALLS)}", "-e", "signal=none",
            "-o", folder / "calls", *line]  # fmt: skip


def asked(folder: Path) -> set[str]:
    """Addresses of other machines that anything was sent to, or connected with."""
    found = (
        address
        for call in _calls(folder)
        if call.startswith(("connect(", "send"))
        for pair in _ADDRESS.findall(call)
        for address in pair
        if address
    )
    return {address for address in found if not ipaddress.ip_address(address).is_loopback}


def changed(folder: Path, cwd: Path, allowed: Iterable[Path]) -> set[str]:
    """Paths that were opened for writing, made, renamed or removed, except below some."""
    below = tuple(allowed)
    paths = {Path(os.path.normpath(cwd / path)) for call in _calls(folder) for path in _of(call)}
    return {str(path) for path in paths if not any(path.is_relative_to(free) for free in below)}


def _of(call: str) -> list[str]:
    opened = _OPENS.match(call)
    if opened:
        return [opened["path"]] if _FOR_WRITING.search(opened["rest"]) else []
    if not _CHANGES.match(call) or " = -1 " in call:
        return []
    found = _NAMED.finditer(call)
    return [str(Path(one["cwd"] or one["folder"] or "", one["name"])) for one in found]


def _calls(folder: Path) -> Iterable[str]:
    for file in folder.glob("calls.*"):
        yield from file.read_text(errors="replace").splitlines()
