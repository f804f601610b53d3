"""What people judged, and the samples they were asked about."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def _reference(
    table: str, column: str, target: str, ondelete: str | None = None
) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{column}_{target}")
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=name, ondelete=ondelete)


def _id(table: str) -> tuple[sa.Column[int], sa.PrimaryKeyConstraint]:
    key = sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}"))
    return sa.Column("id", sa.Integer(), nullable=False), key


def upgrade() -> None:
    op.create_table(
        "verdict_files",
        *_id("verdict_files"),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("imported_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("sha256", name=op.f("uq_verdict_files_sha256")),
    )
    op.create_table(
        "verdicts",
        *_id("verdicts"),
        sa.Column("clip_id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("start_ms", sa.BigInteger(), nullable=True),
        sa.Column("end_ms", sa.BigInteger(), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("judged_by", sa.Text(), nullable=False),
        sa.Column("judged_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("verdict_file_id", sa.Integer(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "verdict IN ('present', 'absent', 'unsure')", name=op.f("ck_verdicts_verdict")
        ),
        _reference("verdicts", "clip_id", "clips", ondelete="CASCADE"),
        _reference("verdicts", "node_id", "nodes"),
        _reference("verdicts", "verdict_file_id", "verdict_files"),
    )
    op.create_index(op.f("ix_verdicts_clip_id_node_id"), "verdicts", ["clip_id", "node_id"])
    op.create_index(op.f("ix_verdicts_verdict_file_id"), "verdicts", ["verdict_file_id"])
    op.create_table(
        "reviews",
        *_id("reviews"),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("question", sa.JSON(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("drawn_at", sa.DateTime(timezone=True), nullable=False),
        _reference("reviews", "node_id", "nodes"),
    )
    op.create_index(op.f("ix_reviews_node_id"), "reviews", ["node_id"])
    op.create_table(
        "review_strata",
        sa.Column("review_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=True),
        sa.Column("low", sa.SmallInteger(), nullable=False),
        sa.Column("n_clips", sa.Integer(), nullable=False),
        sa.Column("heard_s", sa.Double(), nullable=False),
        sa.Column("heard_s2", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("review_id", "position", name=op.f("pk_review_strata")),
        _reference("review_strata", "review_id", "reviews", ondelete="CASCADE"),
        _reference("review_strata", "node_id", "nodes"),
    )
    op.create_table(
        "review_items",
        sa.Column("review_id", sa.Integer(), nullable=False),
        sa.Column("clip_id", sa.Integer(), nullable=False),
        sa.Column("stratum", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("score", sa.SmallInteger(), nullable=False),
        sa.Column("peak_ms", sa.BigInteger(), nullable=True),
        sa.Column("heard_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("review_id", "clip_id", name=op.f("pk_review_items")),
        _reference("review_items", "review_id", "reviews", ondelete="CASCADE"),
        _reference("review_items", "clip_id", "clips", ondelete="CASCADE"),
        _reference("review_items", "node_id", "nodes"),
    )


def downgrade() -> None:
    for table in ("review_items", "review_strata", "reviews", "verdicts", "verdict_files"):
        op.drop_table(table)
