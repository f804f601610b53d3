"""Every error this package raises on purpose.

DatabaseError
├── DatabaseUserError          the person's input is wrong: one clear line, exit code 2
├── DatabaseUnavailableError   lost, locked or full: the same call may work later
│   └── ConnectionLostError    broken off in the middle
└── InvalidValueError          a value that one of the two databases would not store faithfully
"""

from __future__ import annotations

from sqlalchemy.exc import DontWrapMixin


class DatabaseError(Exception):
    """Root of the tree."""


class DatabaseUserError(DatabaseError):
    """The person's input is wrong; the message says what is allowed and what to do next."""


class DatabaseUnavailableError(DatabaseError):
    """The database did not answer, or could not write; nothing of the transaction was committed."""


class ConnectionLostError(DatabaseUnavailableError):
    """The connection broke in a transaction; if that was at its end, it may have been committed."""


class InvalidValueError(DatabaseError, ValueError, DontWrapMixin):
    """A value out of range, naive, not finite, or with a NUL; SQLAlchemy lets it pass unwrapped."""
