"""A real PostgreSQL for tests: its own cluster in a temporary folder, on a free loopback port."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_FAST = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=100"
# A commit that returned outlives the server's processes, as it does by default.
_KEEPING = _FAST.replace("synchronous_commit=off", "synchronous_commit=on")


def find_binaries() -> Path | None:
    """The folder of initdb and pg_ctl: on the PATH, else the newest that Debian installs."""
    found = shutil.which("initdb")
    if found and shutil.which("pg_ctl"):
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = sorted(versions, key=lambda path: float(path.parent.parent.name))
    return newest[-1].parent if newest else None


@dataclass(frozen=True, slots=True)
class Cluster:
    """A server that can be stopped and started again; `url` is its maintenance database's."""

    binaries: Path
    folder: Path
    port: int
    user: str | None
    settings: str
    subnet: str | None = None
    """Whose hosts may connect, besides this machine: "10.1.2.0/24"."""

    @property
    def url(self) -> str:
        """As SQLAlchemy wants it."""
        return f"postgresql+psycopg://audioset@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        addresses = "127.0.0.1" if self.subnet is None else "*"
        options = (
            f"-c listen_addresses='{addresses}' -p {self.port} -c unix_socket_directories='' "
            f"{self.settings}"
        )
        self._control("-w", "-t", "60", "-l", self.folder / "log", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: "immediate" is a crash, "fast" breaks every transaction off."""
        self._control("-w", "-m", mode, "stop")

    def _control(self, *arguments: str | Path) -> None:
        program = self.binaries / "pg_ctl"
        _call(program, "-D", self.folder / "data", *arguments, user=self.user, cwd=self.folder)


@contextmanager
def running_postgres(binaries: Path) -> Iterator[str]:
    """Start a server, give the URL of its maintenance database, stop it at the end."""
    with running_cluster(binaries, _FAST, _memory()) as cluster:
        yield cluster.url


@contextmanager
def running_cluster(
    binaries: Path,
    settings: str = _KEEPING,
    below: Path | None = None,
    subnet: str | None = None,
) -> Iterator[Cluster]:
    """Start a server, and stop it at the end; inside the block it may be stopped and started."""
    user = _unprivileged_user()
    folder = Path(tempfile.mkdtemp(prefix="audioset-pg-", dir=below))
    data = folder / "data"
    try:
        if user is not None:
            shutil.chown(folder, user)
        init = ("--auth=trust", "--username=audioset", "--encoding=UTF8", "--no-locale", "-N")
        _call(binaries / "initdb", "-D", data, *init, user=user, cwd=folder)
        if subnet is not None:
            with (data / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {subnet} trust\n")
        cluster = Cluster(binaries, folder, _free_port(), user, settings, subnet)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _memory() -> Path | None:
    """A file system in memory, where one has room: a database is a thousand small files."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30 else None


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root, so root hands over to someone else."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _call(program: Path, *arguments: str | Path, user: str | None, cwd: Path) -> None:
    # Output to a file: the server inherits it, and a pipe would never reach its end.
    with tempfile.TemporaryFile() as output:
        command = [str(program), *map(str, arguments)]
        done = subprocess.run(
            command, stdout=output, stderr=output, user=user, cwd=cwd, check=False, timeout=120
        )
        if done.returncode:
            output.seek(0)
            raise RuntimeError(f"{program.name} failed: {output.read().decode(errors='replace')}")
