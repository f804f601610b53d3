"""The state of each recording as it was decoded: clipping, dropouts, levels, dead channels."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_NEEDED = ("measured_s", "clipped_share", "dropout_s", "dc_offset", "silent_share")
_LEVELS = ("peak_dbfs", "rms_dbfs")


def upgrade() -> None:
    op.create_table(
        "clip_health",
        sa.Column("clip_id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Double(), nullable=False) for name in (*_NEEDED, *_LEVELS)),
        sa.Column("n_dropouts", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Double()) for name in ("channel_gap_db", "loudness_lufs")),
        sa.Column("weakest_channel", sa.Integer()),
        sa.PrimaryKeyConstraint("clip_id", name=op.f("pk_clip_health")),
        sa.ForeignKeyConstraint(
            ["clip_id"], ["clips.id"], ondelete="CASCADE", name=op.f("fk_clip_health_clip_id_clips")
        ),
    )


def downgrade() -> None:
    op.drop_table("clip_health")
