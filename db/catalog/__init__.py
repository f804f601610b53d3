"""What is known of files, clips, models, the ontology, start times and sites.

Who labels what is in `db.ledger`; questions are in `db.query`.
"""

PUBLIC = (
    "clips",
    "copies",
    "model_registry",
    "ontology",
    "own_classes",
    "sites",
    "sources",
    "start_times",
    "vanished_files",
)
"""What other rooms may import."""
