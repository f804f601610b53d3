"""Embeddings beside scores, and the model that speaks first."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("labellings", sa.Column("embeddings_path", sa.Text(), nullable=True))
    op.add_column("labellings", sa.Column("embeddings_sha256", sa.String(length=64), nullable=True))
    op.add_column(
        "models", sa.Column("is_promoted", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.create_index(
        "uq_models_promoted",
        "models",
        ["is_promoted"],
        unique=True,
        sqlite_where=sa.text("is_promoted = 1"),
        postgresql_where=sa.text("is_promoted"),
    )


def downgrade() -> None:
    op.drop_index("uq_models_promoted", "models")
    with op.batch_alter_table("models") as batch:
        batch.drop_column("is_promoted")
    with op.batch_alter_table("labellings") as batch:
        batch.drop_column("embeddings_sha256")
        batch.drop_column("embeddings_path")
