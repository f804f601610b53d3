"""When recordings began, and how their files tell it."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_NEW: dict[str, sa.types.TypeEngine[Any]] = {
    "recorded_unix_ms": sa.BigInteger(),
    "recorded_utc_offset_s": sa.Integer(),
    "recorded_by": sa.Text(),
}


def upgrade() -> None:
    for name, kind in _NEW.items():
        op.add_column("sources", sa.Column(name, kind, nullable=True))
    op.create_index(
        op.f("ix_sources_recorded_unix_ms_clip_id"), "sources", ["recorded_unix_ms", "clip_id"]
    )
    untimed = sa.text("recorded_by IS NULL")
    op.create_index(
        "ix_sources_untimed",
        "sources",
        ["id"],
        sqlite_where=untimed,
        postgresql_where=untimed,
    )
    op.create_table(
        "time_rules",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("pattern", sa.Text(), nullable=True),
        sa.Column("timezone", sa.Text(), nullable=True),
        sa.Column("stated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_time_rules")),
    )


def downgrade() -> None:
    op.drop_table("time_rules")
    op.drop_index("ix_sources_untimed", table_name="sources")
    op.drop_index(op.f("ix_sources_recorded_unix_ms_clip_id"), table_name="sources")
    with op.batch_alter_table("sources") as batch:
        for name in _NEW:
            batch.drop_column(name)
