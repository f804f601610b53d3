"""A person may withdraw a verdict: what was said stays in the history, and no longer counts."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _allow("verdict IN ('present', 'absent', 'unsure', 'withdrawn')")


def downgrade() -> None:
    op.execute("DELETE FROM verdicts WHERE verdict = 'withdrawn'")
    _allow("verdict IN ('present', 'absent', 'unsure')")


def _allow(condition: str) -> None:
    name = op.f("ck_verdicts_verdict")
    with op.batch_alter_table("verdicts") as batch:
        batch.drop_constraint(name, type_="check")
        batch.create_check_constraint(name, condition)
