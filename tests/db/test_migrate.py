from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from db.engine import open_engine, reading, writing
from db.errors import DatabaseUserError
from db.migrate import VERSION_TABLE, ensure_schema, revisions
from db.query.views import VIEWS
from db.schema.complete import schema


def test_migrations_give_exactly_the_metadata(fresh_db: Engine) -> None:
    with fresh_db.connect() as conn:
        options = {"compare_type": True, "version_table": VERSION_TABLE}
        context = MigrationContext.configure(conn, opts=options)
        assert compare_metadata(context, schema) == []


def _texts(options: dict[str, object]) -> str:
    return str({name: str(value) for name, value in options.items()})


def _details(engine: Engine) -> dict[str, object]:
    """What compare_metadata leaves out: checks, partial indexes, table options."""
    inspector = inspect(engine)
    found: dict[str, object] = {}
    for name in sorted(schema.tables):
        checks = inspector.get_check_constraints(name)
        found[f"{name} checks"] = sorted((c["name"] or "", c["sqltext"]) for c in checks)
        indexes = inspector.get_indexes(name)
        found[f"{name} indexes"] = sorted(
            (
                i["name"] or "",
                str(i["column_names"]),
                _texts(i["dialect_options"]),
                bool(i["unique"]),
            )
            for i in indexes
        )
        keys = inspector.get_foreign_keys(name)
        found[f"{name} keys"] = sorted((k["name"] or "", str(k["options"])) for k in keys)
    if engine.dialect.name == "sqlite":
        for name in schema.tables:
            found[f"{name} options"] = inspector.get_table_options(name)
        query = text("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'")
        with engine.connect() as conn:
            found["autoincrement"] = list(conn.execute(query).scalars())
    return found


def test_migrations_give_the_checks_and_options_of_the_metadata(
    fresh_db: Engine, empty_url: str
) -> None:
    created = open_engine(empty_url)
    with writing(created) as conn:
        schema.create_all(conn)
    details = _details(created)
    created.dispose()
    assert _details(fresh_db) == details


def test_files_are_named_by_their_revisions() -> None:
    config = Config()
    config.set_main_option("script_location", "db:migrations")
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == revisions()[-1:]
    assert [r.revision for r in script.walk_revisions()][::-1] == revisions()


def test_ensure_schema_twice_changes_nothing(fresh_db: Engine) -> None:
    ensure_schema(fresh_db)
    with reading(fresh_db) as conn:
        assert set(inspect(conn).get_view_names()) == set(VIEWS)


def test_foreign_keys_are_on_after_a_migration(empty_url: str) -> None:
    engine = open_engine(empty_url)
    ensure_schema(engine)
    if engine.dialect.name == "sqlite":
        with reading(engine) as conn:
            assert conn.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    engine.dispose()


def test_a_newer_database_is_refused(fresh_db: Engine) -> None:
    with writing(fresh_db) as conn:
        conn.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(DatabaseUserError, match=r"schema '9999'.*upgrade audioset-flows"):
        ensure_schema(fresh_db)


def _at_once(work: Callable[[], None], n_threads: int) -> list[Exception]:
    """Run in several threads that start together; what they raised."""
    barrier = threading.Barrier(n_threads)
    errors: list[Exception] = []

    def one() -> None:
        barrier.wait()
        try:
            work()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_several_migrations_at_once(empty_url: str) -> None:
    def work() -> None:
        engine = open_engine(empty_url)
        try:
            ensure_schema(engine)
        finally:
            engine.dispose()

    assert _at_once(work, 4) == []


@pytest.mark.slow
def test_a_migration_waits_for_what_another_process_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.engine.BUSY_TIMEOUT_S", 0.01)
    path = tmp_path / "new.db"
    engine = open_engine(f"sqlite:///{path}")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr("db.migrate._LOGGER.warning", lambda _: other.rollback())
    ensure_schema(engine)
    assert not other.in_transaction
    with reading(engine) as conn:
        assert set(inspect(conn).get_view_names()) == set(VIEWS)
    other.close()
    engine.dispose()


def test_opening_a_new_file_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    assert _at_once(lambda: open_engine(url).dispose(), 8) == []


def test_engine_and_queries_import_without_alembic() -> None:
    program = (
        "import sys, db.engine, db.reports.model_coverage, db.migrate\n"
        "print('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"False"]


def test_models_that_were_taught_before_count_as_taught(fresh_db: Engine) -> None:
    columns = "name, version, weights_sha256, sample_rate_hz, window_s, n_classes, embedding_dim"
    rows = {
        "mine": ("abcdefabcdef", "abcdef" * 10 + "abcd", "NULL"),
        "yamnet": ("1-abcdefabcd", "abcdef" * 10 + "abcd", "1024"),
        "both": ("012345012345", "f" * 64, "NULL"),
    }
    with writing(fresh_db) as conn:
        for name in VIEWS:
            conn.exec_driver_sql(f"DROP VIEW {name}")
        for name in ("is_taught", "is_retired"):
            conn.exec_driver_sql(f"ALTER TABLE models DROP COLUMN {name}")
        for name, (version, digest, dim) in rows.items():
            values = f"'{name}', '{version}', '{digest}', 16000, 0.96, 1, {dim}"
            conn.exec_driver_sql(
                f"INSERT INTO models ({columns}, registered_at) "
                f"VALUES ({values}, '2024-05-18 00:00:00+00:00')"
            )
        with Operations.context(MigrationContext.configure(conn)):
            import_module("db.migrations.versions.0011_taught_models").upgrade()
    with reading(fresh_db) as conn:
        found = conn.execute(text("SELECT name FROM models WHERE is_taught AND NOT is_retired"))
        assert found.scalars().all() == ["mine"]


@pytest.mark.slow
@pytest.mark.past_ledger
def test_postgresql_knows_how_few_reach_a_high_score(fresh_db: Engine) -> None:
    if fresh_db.dialect.name != "postgresql":
        pytest.skip("SQLite keeps no such statistics")
    n_rows, n_best = 100_000, 40
    with writing(fresh_db) as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))  # no foreign keys
        # Most scores are low, as a network's are.
        conn.execute(
            text(
                "INSERT INTO clip_scores (labelling_id, node_id, peak, mean) SELECT i, 1, "
                "10000 - 9000 * power(1.0 - (i - 0.5) / :n_rows, 0.4), 0 "
                "FROM generate_series(1, :n_rows) AS i"
            ).bindparams(n_rows=n_rows)
        )
        conn.execute(text("ANALYZE clip_scores"))
        least = conn.scalar(
            text(f"SELECT peak FROM clip_scores WHERE labelling_id = {n_rows - n_best}")
        )
        explain = f"EXPLAIN (FORMAT JSON) SELECT 1 FROM clip_scores WHERE peak >= {least}"
        (plan,) = conn.execute(text(explain)).scalar_one()
    # A tenth of a percent of the rows is one step of the statistics.
    assert plan["Plan"]["Plan Rows"] <= n_best + n_rows / 1_000
