"""How many clips reach which score at or below each node, and for how long."""

import logging

import sqlalchemy as sa
from alembic import op

from db.totals.keeping import add_totals
from db.totals.recount import missing_totals

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_LOGGER = logging.getLogger(__name__)
_MANY, _A_MINUTE = 50_000, 140_000
"""Labellings worth a word, and those counted in a minute."""
_KEY = ("node_id", "model_id", "parameter_set_id", "is_current", "percent", "part")


def _belongs_to(table: str, name: str) -> sa.Column[int]:
    key = sa.ForeignKey(f"{table}.id", name=f"fk_node_totals_{name}_{table}", ondelete="CASCADE")
    return sa.Column(name, sa.Integer(), key, nullable=False)


def upgrade() -> None:
    op.create_table(
        "node_totals",
        _belongs_to("nodes", "node_id"),
        _belongs_to("models", "model_id"),
        _belongs_to("parameter_sets", "parameter_set_id"),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("n_clips", sa.BigInteger(), nullable=False),
        sa.Column("n_heard", sa.BigInteger(), nullable=False),
        sa.Column("heard_us", sa.BigInteger(), nullable=False),
        sa.Column("n_heard_own", sa.BigInteger(), nullable=False),
        sa.Column("heard_own_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(*_KEY, name="pk_node_totals"),
        sqlite_with_rowid=False,
    )
    connection = op.get_bind()
    n_labellings = connection.scalar(sa.text("SELECT COUNT(*) FROM labellings"))
    if n_labellings >= _MANY:
        # Whoever waits for the first answer of this version should know why.
        _LOGGER.warning(
            "counting what %s recordings are labelled with, once: about %d min",
            f"{n_labellings:,}", -(-n_labellings // _A_MINUTE),
        )  # fmt: skip
    add_totals(connection, missing_totals(connection))


def downgrade() -> None:
    op.drop_table("node_totals")
