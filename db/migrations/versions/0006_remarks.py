"""Remarks on recordings that are not as their files say; what failed for that is tried again."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Reasons that refused whole recordings for a part that is missing, or a format that is read now.
_TRIED_AGAIN = ("truncated", "damaged", "unsupported format", "not audio", "empty")


def upgrade() -> None:
    op.add_column(
        "labellings",
        sa.Column("is_partial", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.create_table(
        "labelling_remarks",
        sa.Column("labelling_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("start_s", sa.Double(), nullable=True),
        sa.Column("end_s", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("labelling_id", "position", name=op.f("pk_labelling_remarks")),
        sa.ForeignKeyConstraint(
            ["labelling_id"],
            ["labellings.id"],
            name=op.f("fk_labelling_remarks_labelling_id_labellings"),
            ondelete="CASCADE",
        ),
        sqlite_with_rowid=False,
    )
    sources = sa.table(
        "sources", sa.column("status"), sa.column("reason"), sa.column("reason_detail")
    )
    failed = (sources.c.status == "failed") & sources.c.reason.in_(_TRIED_AGAIN)
    op.execute(
        sa.update(sources).where(failed).values(status="pending", reason=None, reason_detail=None)
    )


def downgrade() -> None:
    op.drop_table("labelling_remarks")
    with op.batch_alter_table("labellings") as batch:
        batch.drop_column("is_partial")
