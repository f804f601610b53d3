"""Models, their categories and sets of parameters: registered once, never altered."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, insert, select

from db.catalog.ontology import node_ids
from db.engine import reading, upsert, writing
from db.errors import DatabaseUserError
from db.records import Model, Parameters, Variant
from db.schema.tables import categories, models, nodes, parameter_sets


def register_model(engine: Engine, model: Model, now: datetime | None = None) -> int:
    """The id of the model; the same model again gives the same id.

    A version names the weights' values, which may come from several published files;
    `weights_sha256` is the first one's.

    Raises:
        DatabaseUserError: the name and version are taken by other weights or categories, or the
            ontology lacks a category's node.
    """
    with reading(engine) as conn:
        found = _registered(conn, model)
    if found is not None:
        return found
    with writing(engine) as conn:
        found = _registered(conn, model)
        return _insert_model(conn, model, now) if found is None else found


def register_parameters(engine: Engine, parameters: Parameters) -> int:
    """The id of the set of parameters; equal ones share one row."""
    wanted = select(parameter_sets.c.id).where(parameter_sets.c.digest == parameters.digest)
    with reading(engine) as conn:
        found = conn.execute(wanted).scalar()
    if found is None:
        with writing(engine) as conn:
            row = {
                **parameters.as_json(),
                "digest": parameters.digest,
                "parameters": parameters.as_json(),
            }
            del row["extra"]
            conn.execute(upsert(conn, parameter_sets).values(row).on_conflict_do_nothing())
            found = conn.execute(wanted).scalar_one()
    return int(found)


def find_variant(
    engine: Engine, model_name: str, model_version: str, parameters: Parameters
) -> Variant | None:
    """The variant if both halves are registered, with its twin; writes nothing."""
    model = select(models.c.id).where(
        models.c.name == model_name, models.c.version == model_version
    )
    digests = [parameters.digest, parameters.twin.digest]
    sets = select(parameter_sets.c.digest, parameter_sets.c.id)
    with reading(engine) as conn:
        model_id = conn.execute(model).scalar()
        found = conn.execute(sets.where(parameter_sets.c.digest.in_(digests)))
        set_id, twin_id = map({row.digest: row.id for row in found}.get, digests)
    if model_id is None or set_id is None:
        return None
    if parameters.has_embeddings:
        return Variant(model_id, set_id, barer_set_id=twin_id)
    return Variant(model_id, set_id, fuller_set_id=twin_id)


def _registered(conn: Connection, model: Model) -> int | None:
    row = conn.execute(
        select(models).where(models.c.name == model.name, models.c.version == model.version)
    ).one_or_none()
    if row is None:
        return None
    title = f"model {model.name!r} version {model.version!r}"
    advice = "give this one another version"
    stored = conn.execute(
        select(categories.c.idx, nodes.c.mid)
        .join(nodes, nodes.c.id == categories.c.node_id)
        .where(categories.c.model_id == row.id)
        .order_by(categories.c.idx)
    )
    if [tuple(pair) for pair in stored] != sorted((idx, mid) for idx, mid, _ in model.categories):
        raise DatabaseUserError(f"{title} is registered with other categories; {advice}")
    return int(row.id)


def _insert_model(conn: Connection, model: Model, now: datetime | None) -> int:
    ids = node_ids(conn)
    if missing := sorted({mid for _, mid, _ in model.categories} - ids.keys()):
        message = f"the ontology in the database lacks {len(missing)} categories of {model.name!r}"
        raise DatabaseUserError(f"{message}: {', '.join(missing[:5])}; load the full ontology")
    row = {
        **{field.name: getattr(model, field.name) for field in fields(model)},
        "n_classes": len(model.categories),
        "registered_at": datetime.now(UTC) if now is None else now,
    }
    del row["categories"]
    statement = upsert(conn, models).values(row).on_conflict_do_nothing()
    model_id = conn.execute(statement.returning(models.c.id)).scalar()
    if model_id is None:  # another process registered it meanwhile (PostgreSQL)
        found = _registered(conn, model)
        assert found is not None  # noqa: S101 (for mypy: the conflict says that it is there)
        return found
    if model.categories:
        conn.execute(
            insert(categories),
            [
                {"model_id": model_id, "idx": idx, "node_id": ids[mid], "name": name}
                for idx, mid, name in model.categories
            ],
        )
    return int(model_id)
