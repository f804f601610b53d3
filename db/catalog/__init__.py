"""What is known of files, clips, models, the ontology and start times.

Who labels what is in `db.ledger`; questions are in `db.query`.
"""

PUBLIC = (
    "clips",
    "copies",
    "health",
    "model_registry",
    "ontology",
    "own_classes",
    "sources",
    "start_times",
    "vanished_files",
)
"""What other rooms may import."""
