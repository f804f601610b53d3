"""Taught models, whose labellings count beside the current ones; also where they are there already.

Their version is the beginning of their weights' digest, and they have no embeddings of their own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_COLUMNS = ("is_taught", "is_retired")


def upgrade() -> None:
    for name in _COLUMNS:
        op.add_column(
            "models", sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false())
        )
    models = sa.table(
        "models", *map(sa.column, ("version", "weights_sha256", "embedding_dim", "is_taught"))
    )
    digest = sa.func.substr(models.c.weights_sha256, 1, 12)
    is_taught = sa.and_(models.c.embedding_dim.is_(None), models.c.version == digest)
    op.execute(models.update().where(is_taught).values(is_taught=sa.true()))


def downgrade() -> None:
    with op.batch_alter_table("models") as batch:
        for name in _COLUMNS:
            batch.drop_column(name)
