"""Prometheus metrics of `audioset serve`: what its runs did, read from the ledger when asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from audioset_core.errors import UserError
from db.engine import open_engine
from db.errors import DatabaseError
from db.ledger.runs import Totals, totals
from db.records import RunStatus

_COUNTERS = {
    "recordings_labelled": ("Recordings that runs have labelled", "n_labelled"),
    "audio_seconds_labelled": ("Seconds of audio that runs have labelled", "audio_s"),
    "files_failed": ("Files that runs could not read, each time", "n_failed"),
}


@contextmanager
def served_metrics(database_url: str, port: int | None) -> Iterator[None]:
    """``http://127.0.0.1:PORT/metrics`` inside the block; no port, no metrics.

    Raises:
        UserError: the port is taken.
    """
    if port is None:
        yield
        return
    engine = open_engine(database_url)
    registry = CollectorRegistry()
    registry.register(Ledger(engine))
    try:
        server, _ = start_http_server(port, "127.0.0.1", registry)
    except OSError as error:
        engine.dispose()
        raise UserError(f"--metrics {port}: {error.strerror}; choose another port") from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        engine.dispose()


class Ledger(Collector):
    """The ledger's totals as metrics; without a database only ``audioset_database_up 0``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        try:
            now = totals(self._engine)
        except DatabaseError:
            now = None
        yield _gauge("database_up", "Whether the ledger answers", float(now is not None))
        if now is not None:
            yield from _metrics(now)


def _metrics(now: Totals) -> Iterator[Metric]:
    for name, (text, field) in _COUNTERS.items():
        yield CounterMetricFamily(f"audioset_{name}", text, getattr(now.counts, field))
    runs = GaugeMetricFamily("audioset_runs", "Runs, by status", labels=["status"])
    for status in RunStatus:
        runs.add_metric([status.value], now.n_by_status.get(status.value, 0))
    yield runs
    yield _gauge("files_waiting", "Files that running runs have still to do", now.n_waiting)
    if now.last_success_at is not None:
        text = "When a run last ended well, in seconds since 1970"
        yield _gauge("last_success_timestamp_seconds", text, now.last_success_at.timestamp())
    if now.last_speed is not None:
        text = "Seconds of audio a second, of the last run that labelled anything"
        yield _gauge("last_run_speed", text, now.last_speed)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"audioset_{name}", text, value)
