"""Recordings in object storage: addresses, listings, and copies in a spool while they are read.

An address takes the place of a path: ``s3://bucket/key``, ``gs://``, ``az://container/key``, and
``https://host/file``. Credentials come from the environment; no address has any.
"""

PUBLIC = ("addresses", "spool", "stores")
"""What other rooms may import."""
