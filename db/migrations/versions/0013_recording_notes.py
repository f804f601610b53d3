"""What a recording's file says of it beside the sound: everything, and which device recorded it."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_COLUMNS = ("device", "serial")


def upgrade() -> None:
    for name in _COLUMNS:
        op.add_column("clips", sa.Column(name, sa.Text(), nullable=True))
    op.create_table(
        "recording_notes",
        sa.Column("clip_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("source", "key", "value")),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("start", "doubt")),
        sa.PrimaryKeyConstraint("clip_id", "position", name=op.f("pk_recording_notes")),
        sa.ForeignKeyConstraint(
            ["clip_id"], ["clips.id"], ondelete="CASCADE",
            name=op.f("fk_recording_notes_clip_id_clips"),
        ),
        sqlite_with_rowid=False,
    )  # fmt: skip


def downgrade() -> None:
    op.drop_table("recording_notes")
    with op.batch_alter_table("clips") as batch:
        for name in _COLUMNS:
            batch.drop_column(name)
