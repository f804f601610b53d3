"""Databases, and the command line."""

from __future__ import annotations

from functools import cache

import pytest
import typer.main

from tests.db.conftest import (
    backend,
    fresh_db,
    fresh_url,
    postgres_server,
    postgres_template,
    sqlite_template,
)
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

_command_tree = cache(typer.main.get_command)


@pytest.fixture(autouse=True)
def _command_tree_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes twice as long as an answer from this corpus."""
    monkeypatch.setattr("typer.main.get_command", _command_tree)
