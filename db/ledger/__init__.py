"""Who labels what: runs, claims with leases, the commit, which labelling is current.

A run's files are in `db.catalog`.
"""

PUBLIC = ("claims", "label_rows", "labels_by_branch", "runs")
"""What other rooms may import."""
