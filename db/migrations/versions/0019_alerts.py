"""Alerts: rules, what was heard by them, and labellings that they were not asked about yet."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_STATES = "('waiting', 'told', 'summed', 'quiet', 'old', 'judged')"


def upgrade() -> None:
    def column(name: str, kind: Any, *, nullable: bool = False) -> Any:
        return sa.Column(name, kind, nullable=nullable)

    op.create_table(
        "alert_rules",
        column("id", sa.Integer()),
        column("name", sa.Text()),
        column("question", sa.JSON()),
        column("first_in", sa.Text(), nullable=True),
        column("one_per_s", sa.Double(), nullable=True),
        column("recorded_within_s", sa.Double(), nullable=True),
        column("notify", sa.Text(), nullable=True),
        column("stated_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_rules")),
        sa.UniqueConstraint("name", name=op.f("uq_alert_rules_name")),
    )
    op.create_table(
        "alerts",
        *(column(name, sa.Integer()) for name in ("id", "rule_id", "clip_id", "node_id")),
        *(column(name, sa.BigInteger()) for name in ("start_ms", "end_ms")),
        column("score", sa.SmallInteger()),
        column("heard_at", sa.DateTime(timezone=True)),
        column("utc_offset_s", sa.Integer()),
        column("is_timed", sa.Boolean()),
        column("path", sa.Text(), nullable=True),
        column("site_id", sa.Integer(), nullable=True),
        column("state", sa.Text()),
        column("raised_at", sa.DateTime(timezone=True)),
        column("event_id", sa.String(36)),
        column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
        *(
            sa.ForeignKeyConstraint(
                [name], [f"{table}.id"], ondelete=gone, name=op.f(f"fk_alerts_{name}_{table}")
            )
            for name, table, gone in (
                ("rule_id", "alert_rules", "CASCADE"),
                ("clip_id", "clips", "CASCADE"),
                ("node_id", "nodes", None),
            )
        ),
        sa.UniqueConstraint(
            "rule_id", "clip_id", "start_ms", name=op.f("uq_alerts_rule_id_clip_id_start_ms")
        ),
        sa.CheckConstraint(f"state IN {_STATES}", name=op.f("ck_alerts_state")),
    )
    for names in (["clip_id"], ["node_id"], ["rule_id", "state", "heard_at"]):
        op.create_index(op.f(f"ix_alerts_{'_'.join(names)}"), "alerts", names)
    op.create_table(
        "unasked_labellings",
        column("labelling_id", sa.Integer()),
        sa.PrimaryKeyConstraint("labelling_id", name=op.f("pk_unasked_labellings")),
        sa.ForeignKeyConstraint(
            ["labelling_id"], ["labellings.id"], ondelete="CASCADE",
            name=op.f("fk_unasked_labellings_labelling_id_labellings"),
        ),
    )  # fmt: skip


def downgrade() -> None:
    for name in ("unasked_labellings", "alerts", "alert_rules"):
        op.drop_table(name)
