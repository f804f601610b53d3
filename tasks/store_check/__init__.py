"""`audioset verify`: the check of tables against files, and its report. No Prefect.

Statements are in `db.integrity`.
"""

PUBLIC = ("check", "report")
"""What other rooms may import."""
