"""Watched folders, child runs, and the file that a claim was taken for."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NEW = {
    "sources": ("missing_at", "waiting_since"),
    "runs": ("seen_at", "stop_asked_at"),
}


def upgrade() -> None:
    for table, columns in _NEW.items():
        for name in columns:
            op.add_column(table, sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.add_column("labellings", sa.Column("source_id", sa.Integer(), nullable=True))
    op.add_column("runs", sa.Column("flow_run_id", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("parent_id", sa.Text(), nullable=True))
    with op.batch_alter_table("runs") as batch:
        batch.create_foreign_key(op.f("fk_runs_parent_id_runs"), "runs", ["parent_id"], ["id"])


def downgrade() -> None:
    with op.batch_alter_table("labellings") as batch:
        batch.drop_column("source_id")
    with op.batch_alter_table("runs") as batch:
        batch.drop_constraint(op.f("fk_runs_parent_id_runs"), type_="foreignkey")
        for name in ("parent_id", "flow_run_id", *_NEW["runs"]):
            batch.drop_column(name)
    with op.batch_alter_table("sources") as batch:
        for name in _NEW["sources"]:
            batch.drop_column(name)
