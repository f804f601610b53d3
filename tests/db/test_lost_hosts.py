"""A host that loses its power, or its cable, in the middle of a transaction on PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, make_url, text

from db import postgresql
from db.engine import open_engine, reading, writing
from db.migrate import ensure_schema
from tests.hosts import Host, running_network, why_no_hosts
from tests.postgres import find_binaries, running_cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

NOTICED_S = 40
"""Far more than the settings below ask for, and far less than the two hours of TCP's default."""
SOON = {"keepalives_idle": 1, "keepalives_interval": 1, "keepalives_count": 2}
_HOST = f"""
import sys
from sqlalchemy import text
from db import postgresql
postgresql.CLIENT_SETTINGS |= {SOON | {"tcp_user_timeout": 3000}}
postgresql.SESSION_SETTINGS |= {
    {f"tcp_{name}": str(value) for name, value in SOON.items()} | {"tcp_user_timeout": "3000"}
}
from db.engine import open_engine
with open_engine(sys.argv[1]).begin() as conn:
    conn.execute(text("INSERT INTO audioset_lock VALUES (1)"))
    print("holding", flush=True)
    conn.execute(text(sys.argv[2]))
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Host, Engine, str]]:
    """A host, our engine, and the address of the database as the host has it."""
    missing = why_no_hosts()
    binaries = find_binaries()
    if missing or binaries is None:
        pytest.skip(missing or "no PostgreSQL server binaries (initdb, pg_ctl) on this machine")
    with running_network(1) as network, running_cluster(binaries, subnet=network.subnet) as cluster:
        engine = open_engine(cluster.url)
        ensure_schema(engine)
        with writing(engine) as conn:
            conn.execute(text("CREATE TABLE audioset_lock (id int PRIMARY KEY)"))
        url = make_url(cluster.url).set(host=network.address)
        yield network.hosts[0], engine, str(url)
        engine.dispose()


def _holding(host: Host, url: str, then: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [*host.before, sys.executable, "-c", _HOST, url, then],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"holding\n"
    return process


def test_the_server_frees_the_locks_of_a_host_without_power(
    place: tuple[Host, Engine, str],
) -> None:
    host, engine, url = place
    process = _holding(host, url, "SELECT 1")
    host.power_off()
    process.communicate(timeout=10)
    with writing(engine) as conn:  # waits for the other's end: is the row there or not?
        conn.execute(text(f"SET LOCAL lock_timeout = '{NOTICED_S}s'"))
        conn.execute(text("INSERT INTO audioset_lock VALUES (1)"))
        conn.execute(text("DELETE FROM audioset_lock"))
    host.plug()


def test_a_host_notices_that_the_server_is_gone(place: tuple[Host, Engine, str]) -> None:
    host, _, url = place
    process = _holding(host, url, "SELECT pg_sleep(600)")
    host.unplug()
    began = time.monotonic()
    _, said = process.communicate(timeout=NOTICED_S)
    assert process.returncode == 1
    assert time.monotonic() - began < NOTICED_S
    assert b"OperationalError" in said
    host.plug()


def test_every_connection_has_the_settings(place: tuple[Host, Engine, str]) -> None:
    _, engine, _ = place
    with reading(engine) as conn:
        for name, value in postgresql.SESSION_SETTINGS.items():
            shown = str(conn.execute(text(f"SHOW {name}")).scalar_one())
            assert shown in (value, "2min"), name
