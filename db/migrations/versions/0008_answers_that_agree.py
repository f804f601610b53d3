"""Views: one rule for the end of a sound, for paths that are gone, and for who speaks in a set."""

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The views are made anew after every migration (`db.query.views`)."""


def downgrade() -> None:
    """As above."""
