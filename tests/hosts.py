"""Hosts in one machine: Linux network namespaces with a name and an address each, on one bridge.

A host can be unplugged, or lose its power: from then on no packet leaves the host, not even one
that closes a connection.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Host:
    """A network namespace; ``wire`` is the end of its cable on our side."""

    name: str
    wire: str

    @property
    def before(self) -> list[str]:
        """What stands before a command line, to run the command on this host under its name."""
        named = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name)
        return ["ip", "netns", "exec", self.name, *named]

    def unplug(self) -> None:
        """Pull the cable."""
        _ip("link", "set", self.wire, "down")

    def plug(self) -> None:
        """Put the cable in again."""
        _ip("link", "set", self.wire, "up")

    def power_off(self) -> None:
        """Pull the cable, then end every process: nobody hears that they are gone."""
        self.unplug()
        for pid in _ip("netns", "pids", self.name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Network:
    """``address`` is ours, ``subnet`` everybody's, as PostgreSQL's pg_hba.conf wants it."""

    address: str
    subnet: str
    hosts: Sequence[Host]


def why_no_hosts() -> str | None:
    """What this machine lacks for `running_network`; None where it has all."""
    missing = [name for name in ("ip", "unshare") if shutil.which(name) is None]
    if missing:
        return f"no {' and no '.join(missing)} on this machine"
    tried = subprocess.run(["unshare", "--net", "--uts", "true"], capture_output=True, check=False)
    return "namespaces need the rights of root" if tried.returncode else None


@contextmanager
def running_network(n_hosts: int) -> Iterator[Network]:
    """So many hosts; at the end of the block their processes are killed, and all is removed."""
    own = f"as{os.getpid()}"
    prefix = f"10.213.{os.getpid() % 250}"
    with ExitStack() as stack:
        _ip("link", "add", own, "type", "bridge")
        stack.callback(_ip, "link", "del", own)
        _ip("addr", "add", f"{prefix}.254/24", "dev", own)
        _ip("link", "set", own, "up")
        hosts = []
        for number in range(1, n_hosts + 1):
            host = Host(f"{own}-{number}", f"{own}w{number}")
            _ip("netns", "add", host.name)
            stack.callback(_ip, "netns", "del", host.name)
            stack.callback(host.power_off)
            _ip(
                "link", "add", host.wire, "type", "veth", "peer", "name", "eth0", "netns", host.name
            )
            _ip("link", "set", host.wire, "master", own, "up")
            _ip("-n", host.name, "addr", "add", f"{prefix}.{number}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", host.name, "link", "set", device, "up")
            hosts.append(host)
        yield Network(f"{prefix}.254", f"{prefix}.0/24", hosts)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
