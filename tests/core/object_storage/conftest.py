"""A server of object storage, to which the environment leads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from audioset_core.object_storage import credentials, stores
from tests.objects import Objects, running_objects


@pytest.fixture(scope="session")
def object_server() -> Iterator[Objects]:
    with running_objects() as objects:
        yield objects


@pytest.fixture
def objects(object_server: Objects, monkeypatch: pytest.MonkeyPatch) -> Objects:
    """Without faults and counts of an earlier test; its objects are still there."""
    for name, value in object_server.environment.items():
        monkeypatch.setenv(name, value)
    # Not in a cloud, whose machines have credentials.
    monkeypatch.setattr(credentials, "_OF_MACHINE", ("127.0.0.1", 9))
    stores._store.cache_clear()
    object_server.forget()
    return object_server
