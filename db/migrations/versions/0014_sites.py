"""Sites: where recordings were made."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sites",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        *(sa.Column(f"{of}_deg", sa.Double(), nullable=False) for of in ("latitude", "longitude")),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("timezone", "notes")),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sites")),
        sa.UniqueConstraint("name", name=op.f("uq_sites_name")),
    )
    op.create_table(
        "site_rules",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("site_id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("kind", "value")),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("first_day", "last_day")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_site_rules")),
        sa.ForeignKeyConstraint(
            ["site_id"], ["sites.id"], ondelete="CASCADE",
            name=op.f("fk_site_rules_site_id_sites"),
        ),
        sa.CheckConstraint("kind IN ('folder', 'serial')", name=op.f("ck_site_rules_kind")),
    )  # fmt: skip
    op.create_index(op.f("ix_site_rules_site_id"), "site_rules", ["site_id"])
    op.add_column("sources", sa.Column("site_id", sa.Integer(), nullable=True))
    op.add_column("sources", sa.Column("site_by", sa.Text(), nullable=True))
    op.create_index(op.f("ix_sources_site_id_clip_id"), "sources", ["site_id", "clip_id"])
    placed = sa.text("latitude_deg IS NOT NULL")
    op.create_index(
        "ix_clips_placed", "clips", ["latitude_deg"], sqlite_where=placed, postgresql_where=placed
    )


def downgrade() -> None:
    op.drop_index("ix_clips_placed", table_name="clips")
    op.drop_index(op.f("ix_sources_site_id_clip_id"), table_name="sources")
    with op.batch_alter_table("sources") as batch:
        for name in ("site_id", "site_by"):
            batch.drop_column(name)
    op.drop_table("site_rules")
    op.drop_table("sites")
