"""What a recorder wrote into its file: when the recording began, and where."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_COLUMNS = {
    "told_start": sa.Text(), "told_by": sa.Text(), "latitude_deg": sa.Double(),
    "longitude_deg": sa.Double(),
}  # fmt: skip


def upgrade() -> None:
    for name, kind in _COLUMNS.items():
        op.add_column("clips", sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("clips") as batch:
        for name in _COLUMNS:
            batch.drop_column(name)
