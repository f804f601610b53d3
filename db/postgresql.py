"""Engines of PostgreSQL, and how the end of a connection is noticed on either side.

A host without power, or behind a cable that is pulled, says no goodbye. By the default of TCP a
server would keep the locks of that host's open transaction for two hours, and a client would wait
as long for a server that is gone. Both notice within two minutes.

Sources: https://www.postgresql.org/docs/current/runtime-config-connection.html and
https://www.postgresql.org/docs/current/libpq-connect.html (``tcp_user_timeout``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event

from db.errors import DatabaseUserError

CLIENT_SETTINGS: Mapping[str, int] = {
    "connect_timeout": 10,
    "keepalives_idle": 60,
    "keepalives_interval": 10,
    "keepalives_count": 6,
    "tcp_user_timeout": 120_000,
}
"""Of libpq, in seconds but for the last: 120,000 ms. A URL may say otherwise."""

SESSION_SETTINGS: Mapping[str, str] = {
    # Without statistics of small tables, a query for two rows was compiled for 0.2 s.
    "jit": "off",
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
    "tcp_user_timeout": "120000",
}
"""Of the server, for each of our connections."""


def postgresql_engine(url: URL) -> Engine:
    """An engine whose connections have the settings above.

    Raises:
        DatabaseUserError: psycopg is not installed, or cannot load libpq.
    """
    options = {name: value for name, value in CLIENT_SETTINGS.items() if name not in url.query}
    try:
        engine = create_engine(
            url, pool_pre_ping=True, connect_args={"client_encoding": "utf8", **options}
        )
    except ImportError as error:
        message = f"PostgreSQL needs psycopg, which does not load here: {error}"
        raise DatabaseUserError(f"{message}; pip install 'psycopg[binary]'") from None
    event.listen(engine, "connect", _configure)
    return engine


def _configure(connection: Any, _record: object) -> None:
    """Set what this server has of the settings; not every version has all of them."""
    connection.execute(
        "SELECT set_config(name, value, false) FROM pg_settings "
        "JOIN unnest(%s::text[], %s::text[]) AS chosen (name, value) USING (name)",
        [list(SESSION_SETTINGS), list(SESSION_SETTINGS.values())],
    )
    connection.commit()
