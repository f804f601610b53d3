"""Alerts: the rules, asking them about new labellings, and what was heard by them.

Who is told, and how, is not known here.
"""

PUBLIC = ("asked", "raised", "rules")
"""What other rooms may import."""
