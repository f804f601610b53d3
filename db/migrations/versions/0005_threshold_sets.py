"""Named sets of thresholds, and the intervals that follow from them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _reference(
    table: str, column: str, target: str, ondelete: str | None = None
) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{column}_{target}")
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=name, ondelete=ondelete)


def upgrade() -> None:
    op.create_table(
        "threshold_sets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("default_high", sa.SmallInteger(), nullable=True),
        sa.Column("default_low", sa.SmallInteger(), nullable=True),
        sa.Column("min_duration_s", sa.Double(), nullable=False),
        sa.Column("merge_gap_s", sa.Double(), nullable=False),
        sa.Column("how", sa.JSON(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_threshold_sets")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_threshold_sets_name_version")),
    )
    op.create_table(
        "thresholds",
        sa.Column("threshold_set_id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("high", sa.SmallInteger(), nullable=False),
        sa.Column("low", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("threshold_set_id", "node_id", name=op.f("pk_thresholds")),
        _reference("thresholds", "threshold_set_id", "threshold_sets", ondelete="CASCADE"),
        _reference("thresholds", "node_id", "nodes"),
    )
    op.create_table(
        "derivations",
        sa.Column("labelling_id", sa.Integer(), nullable=False),
        sa.Column("threshold_set_id", sa.Integer(), nullable=False),
        sa.Column("scores_sha256", sa.String(length=64), nullable=True),
        sa.Column("n_intervals", sa.Integer(), nullable=False),
        sa.Column("derived_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("labelling_id", "threshold_set_id", name=op.f("pk_derivations")),
        _reference("derivations", "labelling_id", "labellings", ondelete="CASCADE"),
        _reference("derivations", "threshold_set_id", "threshold_sets", ondelete="CASCADE"),
    )
    op.create_index(
        op.f("ix_derivations_threshold_set_id"), "derivations", ["threshold_set_id"], unique=False
    )
    op.create_table(
        "intervals",
        sa.Column("labelling_id", sa.Integer(), nullable=False),
        sa.Column("threshold_set_id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("start_patch", sa.Integer(), nullable=False),
        sa.Column("end_patch", sa.Integer(), nullable=False),
        sa.Column("peak", sa.SmallInteger(), nullable=False),
        sa.Column("mean", sa.SmallInteger(), nullable=False),
        sa.Column("peak_patch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(
            "labelling_id", "threshold_set_id", "node_id", "start_patch", name=op.f("pk_intervals")
        ),
        _reference("intervals", "labelling_id", "labellings", ondelete="CASCADE"),
        _reference("intervals", "threshold_set_id", "threshold_sets", ondelete="CASCADE"),
        _reference("intervals", "node_id", "nodes"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_intervals_threshold_set_id_node_id_peak_labelling_id"),
        "intervals",
        ["threshold_set_id", "node_id", "peak", "labelling_id"],
        unique=False,
    )


def downgrade() -> None:
    for table in ("intervals", "derivations", "thresholds", "threshold_sets"):
        op.drop_table(table)
