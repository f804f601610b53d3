"""Labels in other tools' formats: pure functions from plain rows to text, a module a format.

The rows come from `db.reports`; where files go is decided in `flows.cli`.
"""

PUBLIC = (
    "camtrap_dp",
    "camtrap_metadata",
    "file_names",
    "label_studio",
    "parquet",
    "registry",
    "rows",
    "sed_scores",
    "seed_json",
    "taxa",
    "text",
)
"""What other rooms may import."""
