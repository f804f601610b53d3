"""A server of object storage."""

from tests.objects import object_server, objects

__all__ = ["object_server", "objects"]
