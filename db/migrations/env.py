"""Alembic's entry: runs on the connection and in the transaction that `db.migrate` hands over.

There foreign keys are off on SQLite and checked at the end, since batch mode rebuilds tables.
"""

from alembic import context

from db.migrate import VERSION_TABLE
from db.query.views import create_views, drop_views
from db.schema.complete import schema

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=schema,
    render_as_batch=True,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    drop_views(connection)
    context.run_migrations()
    create_views(connection)
