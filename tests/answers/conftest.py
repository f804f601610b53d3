"""Databases, the command line, and a corpus in which answers could differ."""

from __future__ import annotations

from tests.db.conftest import backend, fresh_db, fresh_url, postgres_server, postgres_template
from tests.db.conftest import sqlite_template as sqlite_template
from tests.flows.conftest import audioset

__all__ = [
    "audioset",
    "backend",
    "fresh_db",
    "fresh_url",
    "postgres_server",
    "postgres_template",
    "sqlite_template",
]
