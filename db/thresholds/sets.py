"""Named, versioned sets of thresholds: stored once, never altered; a name means its newest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select

from audioset_core.records import Threshold, ThresholdSet
from db.catalog.ontology import node_ids
from db.engine import reading, writing
from db.errors import DatabaseUserError
from db.record_columns import columns_for
from db.schema.tables import nodes
from db.schema.threshold_tables import derivations, threshold_sets, thresholds
from db.types import SCORE_SCALE

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class StoredSet:
    """A set as it lies in the database; `by_node` is `by_mid` by node id."""

    set_id: int
    name: str
    version: int
    made_at: datetime
    values: ThresholdSet
    by_node: Mapping[int, Threshold]
    names: Mapping[str, str]
    """Names of the classes that are listed, by MID."""

    @property
    def title(self) -> str:
        """As a person names it: NAME@VERSION."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class SetSummary:
    """A set in a list."""

    name: str
    version: int
    model: str | None
    n_classes: int
    n_derived: int
    n_intervals: int
    made_at: datetime
    how: Mapping[str, Any]


def store_set(engine: Engine, name: str, wanted: ThresholdSet, now: datetime) -> StoredSet:
    """Store a set as the name's next version; the same values as the newest one's: that one.

    Raises:
        DatabaseUserError: the name is not valid, or a class is not in the ontology of the database.
    """
    if not _NAME.fullmatch(name):
        raise DatabaseUserError(
            f"{name!r} is not a valid name for a set of thresholds: use "
            "letters, digits, '.', '_' and '-', at most 64"
        )
    with writing(engine) as conn:
        ids = node_ids(conn)
        unknown = [mid for mid in wanted.by_mid if mid not in ids]
        if unknown:
            raise DatabaseUserError(
                f"the ontology in the database has no node {', '.join(map(repr, unknown[:5]))}"
            )
        newest = _newest(conn, name)
        if newest is not None:
            stored = _stored(conn, newest)
            if _values(stored.values) == _values(wanted):
                return stored
        row = {
            "name": name,
            "version": 1 if newest is None else newest.version + 1,
            "model": wanted.model,
            "default_high": wanted.default.high if wanted.default else None,
            "default_low": wanted.default.low if wanted.default else None,
            "min_duration_s": wanted.min_duration_s,
            "merge_gap_s": wanted.merge_gap_s,
            "how": dict(wanted.how),
            "made_at": now,
        }
        added = insert(threshold_sets).values(row).returning(threshold_sets.c.id)
        set_id = conn.execute(added).scalar_one()
        rows = [
            {"threshold_set_id": set_id, "node_id": ids[mid], "high": each.high, "low": each.low}
            for mid, each in wanted.by_mid.items()
        ]
        if rows:
            conn.execute(insert(thresholds), rows)
        own = select(threshold_sets).where(threshold_sets.c.id == set_id)
        return _stored(conn, conn.execute(own).one())


def find_set(engine: Engine, text: str) -> StoredSet:
    """The newest set of that name, or NAME@VERSION.

    Raises:
        DatabaseUserError: there is none; the message lists those that there are.
    """
    with reading(engine) as conn:
        return _stored(conn, _found(conn, text))


def titles_of_sets(engine: Engine) -> list[str]:
    """NAME@VERSION of every set, by name, the newest first."""
    query = select(threshold_sets.c.name, threshold_sets.c.version).order_by(
        threshold_sets.c.name, threshold_sets.c.version.desc()
    )
    with reading(engine) as conn:
        return [f"{row.name}@{row.version}" for row in conn.execute(query)]


def list_sets(engine: Engine) -> list[SetSummary]:
    """Every version of every set, by name, the newest first."""
    listed = (
        select(thresholds.c.threshold_set_id, func.count().label("n"))
        .group_by(thresholds.c.threshold_set_id)
        .subquery()
    )
    derived = (
        select(
            derivations.c.threshold_set_id,
            func.count().label("n"),
            func.sum(derivations.c.n_intervals).label("total"),
        )
        .group_by(derivations.c.threshold_set_id)
        .subquery()
    )
    columns = columns_for(
        SetSummary,
        threshold_sets,
        n_classes=func.coalesce(listed.c.n, 0),
        n_derived=func.coalesce(derived.c.n, 0),
        n_intervals=func.coalesce(derived.c.total, 0),
    )
    query = (
        select(*columns)
        .outerjoin(listed, listed.c.threshold_set_id == threshold_sets.c.id)
        .outerjoin(derived, derived.c.threshold_set_id == threshold_sets.c.id)
        .order_by(threshold_sets.c.name, threshold_sets.c.version.desc())
    )
    with reading(engine) as conn:
        return [SetSummary(*row) for row in conn.execute(query)]


def remove_set(engine: Engine, text: str) -> str:
    """Delete one version and its intervals; returns its title.

    Raises:
        DatabaseUserError: there is none.
    """
    with writing(engine) as conn:
        row = _found(conn, text)
        conn.execute(delete(threshold_sets).where(threshold_sets.c.id == row.id))
        return f"{row.name}@{row.version}"


def _newest(conn: Connection, name: str, version: int | None = None) -> Row[Any] | None:
    query = select(threshold_sets).where(threshold_sets.c.name == name)
    if version is not None:
        query = query.where(threshold_sets.c.version == version)
    return conn.execute(query.order_by(threshold_sets.c.version.desc()).limit(1)).one_or_none()


def _found(conn: Connection, text: str) -> Row[Any]:
    name, _, version = text.partition("@")
    # No version has a negative number.
    number = int(version) if version.isdecimal() and len(version) < 10 else -1
    found = _newest(conn, name, number if version else None)
    if found is None:
        every = select(threshold_sets.c.name, threshold_sets.c.version)
        rows = conn.execute(every.order_by(threshold_sets.c.name, threshold_sets.c.version))
        known = ", ".join(f"{row.name}@{row.version}" for row in rows)
        advice = known or "none yet: audioset thresholds fit, or import"
        raise DatabaseUserError(f"no set of thresholds is called {text!r}; known sets: {advice}")
    return found


def _stored(conn: Connection, row: Row[Any]) -> StoredSet:
    query = (
        select(nodes.c.id, nodes.c.mid, nodes.c.name, thresholds.c.high, thresholds.c.low)
        .join(nodes, nodes.c.id == thresholds.c.node_id)
        .where(thresholds.c.threshold_set_id == row.id)
        .order_by(nodes.c.position, nodes.c.id)
    )
    listed: Sequence[Row[Any]] = conn.execute(query).all()
    values = ThresholdSet(
        row.model,
        None if row.default_high is None else Threshold(row.default_high, row.default_low),
        {each.mid: Threshold(each.high, each.low) for each in listed},
        row.min_duration_s,
        row.merge_gap_s,
        row.how,
    )
    by_node = {each.id: values.by_mid[each.mid] for each in listed}
    names = {each.mid: each.name for each in listed}
    return StoredSet(row.id, row.name, row.version, row.made_at, values, by_node, names)


def _values(of: ThresholdSet) -> tuple[Any, ...]:
    """What decides about intervals, in the steps that are stored."""
    return (
        of.model,
        None if of.default is None else _steps(of.default),
        {mid: _steps(each) for mid, each in of.by_mid.items()},
        float(of.min_duration_s),
        float(of.merge_gap_s),
    )


def _steps(threshold: Threshold) -> tuple[int, int]:
    return round(threshold.high * SCORE_SCALE), round(threshold.low * SCORE_SCALE)
