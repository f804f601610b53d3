"""Day, dawn, dusk and night where something was recorded."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    place = ("latitude_cdeg", "longitude_cdeg")
    times = ("starts_unix_ms", "ends_unix_ms")
    op.create_table(
        "sun_periods",
        *(sa.Column(name, sa.Integer(), nullable=False) for name in place),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in times),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(*place, "starts_unix_ms", name=op.f("pk_sun_periods")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("sun_periods")
