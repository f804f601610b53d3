"""Ten hosts, one PostgreSQL, one folder of results: throughput, fairness, and what breaks.

    .venv/bin/python -m benchmarks.machines [--hosts 10] [--hours 10] [--trouble none power ...]

Hosts are network namespaces with a name, an address and a Prefect worker each, on the cores of one
machine: together they are no faster than one process, and the difference is the cost of many.
Each kind of trouble comes when a third of the files is labelled, and labels must be complete after
all. Root's rights are needed, and for "slow disk" strace.

The last two columns are for the curve on paper: what PostgreSQL computes for a file, and Prefect's
server for a partition, is what limits a hundred hosts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, make_url, text

from benchmarks.corpora import default_folder
from benchmarks.database_load import cpu_of_server
from benchmarks.processes import ROOT, call
from db.engine import open_engine, reading
from db.migrate import ensure_schema
from tests.db.conftest import new_database
from tests.flows.servers import Server, prefect, running_server, running_worker, wait_until
from tests.hosts import Host, running_network, why_no_hosts
from tests.postgres import Cluster, find_binaries, running_cluster

POOL = "audioset"
_UNPLUGGED_S, _AWAY_S, _FSYNC_US = 60, 5, 100_000
_SLOW = ("strace", "--follow-forks", "--seccomp-bpf", "--quiet=all", "-o", "/dev/null")
_SLOW_DISK = (*_SLOW, "-e", "trace=fsync,fdatasync", "-e", f"inject=all:delay_exit={_FSYNC_US}")
_PARENT = """
import sys
from pathlib import Path
from flows.label_audio import label_audio
from flows.run_options import ExecutionOptions
execution = ExecutionOptions(partitions=int(sys.argv[2]))
label_audio(paths=[sys.argv[1]], home=Path(sys.argv[3]), execution=execution)
"""


@dataclass(frozen=True, slots=True)
class Place:
    """What a run needs."""

    cluster: Cluster
    hosts: list[Host]
    corpus: Path
    n_files: int
    n_partitions: int


@dataclass(frozen=True, slots=True)
class Database:
    """A run's labels."""

    engine: Engine
    home: Path

    def n_done(self) -> int:
        """Files that are labelled."""
        with reading(self.engine) as conn:
            query = text("SELECT count(*) FROM labellings WHERE status = 'done'")
            return int(conn.execute(query).scalar_one())

    def by_host(self) -> dict[str, int]:
        """How many files the partitions of each host labelled."""
        with reading(self.engine) as conn:
            query = text(
                "SELECT host, sum(n_labelled) FROM runs WHERE parent_id IS NOT NULL GROUP BY host"
            )
            return {host: int(n_files or 0) for host, n_files in conn.execute(query)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--hours", type=float, default=10)
    parser.add_argument("--length-s", type=float, default=300)
    parser.add_argument("--trouble", nargs="*", choices=list(TROUBLES), default=["none"])
    parser.add_argument("--folder", type=Path, default=default_folder())
    options = parser.parse_args()
    if missing := why_no_hosts():
        sys.exit(missing)
    binaries = find_binaries()
    if binaries is None:
        sys.exit("no PostgreSQL server binaries (initdb, pg_ctl) on this machine")
    n_files = round(options.hours * 3600 / options.length_s)
    corpus = options.folder / "scale" / f"{options.length_s:g}-s-{n_files}"
    call("benchmarks.scale:make", corpus, options.length_s, n_files)
    print(f"{'':14}{'x real time':>12}{'s':>7}{'files by host':>18}{'database':>12}{'Prefect':>12}")
    with (
        running_network(options.hosts) as network,
        running_cluster(binaries, subnet=network.subnet) as cluster,
    ):
        place = Place(cluster, list(network.hosts), corpus, n_files, 2 * options.hosts)
        audio_s = n_files * options.length_s
        alone_s = one_process(place)
        print(f"{'one process':14}{audio_s / alone_s:12.0f}{alone_s:7.0f}", flush=True)
        for name in options.trouble:
            many(place, network.address, name, audio_s)


def one_process(place: Place) -> float:
    """Seconds of `audioset label` over the corpus, the start of its processes included."""
    with fresh(place) as database:
        environment = {**os.environ, "AUDIOSET_DB": _url(database.engine)}
        line = ("label", place.corpus, "--home", database.home)
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "flows.cli.program", *map(str, line)],
            env=environment, check=True, capture_output=True, cwd=ROOT,
        )  # fmt: skip
        return time.perf_counter() - began


def many(place: Place, address: str, trouble: str, audio_s: float) -> None:
    """Label the corpus on all hosts, and print a line."""
    with ExitStack() as stack:
        database = stack.enter_context(fresh(place))
        server = stack.enter_context(prefect_server(place, database, address))
        for number, host in enumerate(place.hosts):
            is_slow = trouble == "slow disk" and number == 0
            before = [*host.before, *(_SLOW_DISK if is_slow else ())]
            folder = database.home / host.name
            folder.mkdir()
            stack.enter_context(
                running_worker(server, folder, POOL, host.name, limit=1, before=before)
            )
        database_s, prefect_s = cpu_of_server(), server_cpu(server)
        trouble_maker = threading.Thread(target=_make, args=(place, database, TROUBLES[trouble]))
        trouble_maker.start()
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _PARENT, place.corpus, str(place.n_partitions), database.home],
            env=dict(server.environment), capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        took_s = time.perf_counter() - began
        trouble_maker.join()
        if done.returncode or database.n_done() != place.n_files:
            sys.exit(f"{trouble}: {database.n_done()} of {place.n_files} files: {done.stderr}")
        by_host = sorted(database.by_host().values())
        print(
            f"{trouble:14}{audio_s / took_s:12.0f}{took_s:7.0f}"
            f"{f'{by_host[0]} to {by_host[-1]}':>18}"
            f"{(cpu_of_server() - database_s) / place.n_files * 1e3:9.1f} ms"
            f"{(server_cpu(server) - prefect_s) / place.n_partitions:10.2f} s",
            flush=True,
        )
        for host in place.hosts:
            host.plug()


def _make(place: Place, database: Database, trouble: Callable[[Place], None]) -> None:
    wait_until(lambda: database.n_done() >= place.n_files / 3, 3_600, 0.5)
    trouble(place)


def _power(place: Place) -> None:
    place.hosts[0].power_off()


def _unplugged(place: Place) -> None:
    place.hosts[0].unplug()
    time.sleep(_UNPLUGGED_S)
    place.hosts[0].plug()


def _restart(place: Place) -> None:
    place.cluster.stop()
    time.sleep(_AWAY_S)
    place.cluster.start()


TROUBLES: dict[str, Callable[[Place], None]] = {
    "none": lambda _: None,
    "power": _power,
    "unplugged": _unplugged,
    "restart": _restart,
    "slow disk": lambda _: None,
}
"""A host loses its power; is unplugged for a minute; the database crashes and comes back; each sync
of one host's takes 0.1 s more."""


@contextmanager
def fresh(place: Place) -> Iterator[Database]:
    """An empty database, and a folder of results."""
    with tempfile.TemporaryDirectory() as name:
        engine = open_engine(new_database(place.cluster.url, "template0"))
        ensure_schema(engine)
        yield Database(engine, Path(name))
        engine.dispose()


@contextmanager
def prefect_server(place: Place, database: Database, address: str) -> Iterator[Server]:
    """A Prefect server on PostgreSQL with the deployments of deployments/prefect.yaml."""
    own = make_url(new_database(place.cluster.url, "template0"))
    url = own.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
    settings = {
        "AUDIOSET_DB": str(make_url(_url(database.engine)).set(host=address)),
        "AUDIOSET_HOME": str(database.home),
        "AUDIOSET_ROOT": str(place.corpus),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
    }
    with running_server(database.home / "server", url, address, **settings) as server:
        server.post("/work_pools/", name=POOL, type="process")
        prefect("deploy", "--all", server=server, cwd=ROOT / "deployments").check_returncode()
        server.post("/automations/", **_heartbeat())
        yield server


def _heartbeat() -> dict[str, Any]:
    from flows.prefect_server.serve import HEARTBEAT_AUTOMATION

    return HEARTBEAT_AUTOMATION


def server_cpu(server: Server) -> float:
    """Seconds of CPU that the Prefect server has used."""
    stat = Path(f"/proc/{server.process.popen.pid}/stat").read_text().rsplit(")", 1)[1]
    return sum(map(int, stat.split()[11:13])) / os.sysconf("SC_CLK_TCK")


def _url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


if __name__ == "__main__":
    main()
