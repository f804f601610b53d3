"""Counts that are kept: at or below each node, how many clips reach which score, and how long.

Every transaction that changes labels, or which labelling is current, changes the counts too.
Questions that they answer are in `db.query.totals`.
"""

PUBLIC = ("keeping", "recount")
"""What other rooms may import."""
