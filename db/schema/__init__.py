"""The tables, and all of them together with their indexes for migrations.

Statements over the tables are in the other rooms.
"""

PUBLIC = ("alert_tables", "complete", "tables", "threshold_tables", "verdict_tables")
"""What other rooms may import."""
