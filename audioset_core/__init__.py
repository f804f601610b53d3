"""AudioSet labelling without a workflow engine or a database: audio, models, ontology.

Importing this package loads nothing heavy; import the module that you need.
"""
