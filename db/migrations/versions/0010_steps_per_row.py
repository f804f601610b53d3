"""Score files whose rows are coarser than detections: models that score steps of 40 ms."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column("steps_per_row", sa.Integer(), nullable=False, server_default="1")
    op.add_column("parameter_sets", column)


def downgrade() -> None:
    with op.batch_alter_table("parameter_sets") as batch:
        batch.drop_column("steps_per_row")
