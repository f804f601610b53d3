"""Which files a question means, and which of a clip's files stands for it.

What a person writes for a file means the same in every question:

- an absolute path, or one from ``./``, ``../`` or ``~`` on, means that file, or all files below
  that folder;
- any other path fits from any folder on: ``site-3`` is every folder of that name with all below it;
- ``*`` is any text (also ``/``), ``?`` any character, ``[abc]`` one of them, ``[!abc]`` none of
  them; the name of a file that exists is taken as it is, whatever is in it.

A clip may lie in several files. One of them stands for it: one that is there before one that is
missing, then the one that was seen first. A missing file is not asked when its clip was
recorded while another one is there: its name may have been wrong.
"""

from __future__ import annotations

import glob as globs
import os.path
import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, or_, select

from db.errors import DatabaseUserError
from db.schema.tables import sources
from db.types import path_text

_WILDCARDS = {"*": ".*", "?": "."}
_WILDCARD = re.compile(r"(\*|\?|\[!?[^\]/]+\])")


def at_paths(paths: Sequence[str], of: Any = sources) -> ColumnElement[bool]:
    """The condition that a source's path is meant by any of what a person wrote.

    Raises:
        DatabaseUserError: a path is empty, or not a valid pattern.
    """
    return or_(*(_fits(as_glob(path), of) for path in paths))


def _fits(glob: str, of: Any) -> ColumnElement[bool]:
    """The condition of one glob: its longest plain part first, which is looked for much faster."""
    plain = max(_WILDCARD.split(glob.rstrip("/"))[::2], key=len)
    fits: ColumnElement[bool] = of.c.path_text.regexp_match(glob_regex(glob))
    return and_(of.c.path_text.contains(plain, autoescape=True), fits) if plain else fits


def as_glob(path: str) -> str:
    """What a person wrote, as a glob over readable paths.

    Raises:
        DatabaseUserError: it is empty.
    """
    if not path:
        raise DatabaseUserError("an empty path means no file; name a file, a folder or a glob")
    first, _, rest = path.partition("/")
    given = globs.escape(path) if os.path.lexists(path) else path
    if first in (".", ".."):
        given = os.path.join(globs.escape(os.getcwd()), given)  # noqa: PTH109, PTH118 (globs)
    elif first.startswith("~") and (home := os.path.expanduser(first)) != first:  # noqa: PTH111
        given = os.path.join(globs.escape(home), rest)  # noqa: PTH118
        given = globs.escape(f"{home}/{rest}") if os.path.lexists(f"{home}/{rest}") else given
    return path_text(os.fsencode(os.path.normpath(given)))


def glob_regex(glob: str) -> str:
    """A glob as a regular expression that Python and PostgreSQL understand alike.

    >>> glob_regex("site-[0-9]/*")
    '(^|/)site\\\\-[0-9]/.*(/.*)?$'

    Raises:
        DatabaseUserError: it is not a valid pattern.
    """
    # Every second part is a wildcard.
    parts = _WILDCARD.split(glob.rstrip("/"))
    text = "".join(_wildcard(p) if n % 2 else re.escape(p) for n, p in enumerate(parts))
    expression = f"{'^' if glob.startswith('/') else '(^|/)'}{text}(/.*)?$"
    try:
        re.compile(expression)
    except re.error as error:
        raise DatabaseUserError(f"{glob!r} is not a valid pattern for paths: {error}") from None
    return expression


def is_there(of: Any = sources) -> ColumnElement[bool]:
    """The condition that a source was there when it was last looked for."""
    return of.c.status != "missing"  # type: ignore[no-any-return]


def is_trusted(of: Any = sources) -> ColumnElement[bool]:
    """The condition that a file is asked about its clip: it is there, or no other file is."""
    other = sources.alias("there")
    elsewhere = select(other.c.id).where(other.c.clip_id == of.c.clip_id, is_there(other))
    return or_(is_there(of), ~elsewhere.correlate(of).exists())


def there_first(of: Any = sources) -> ColumnElement[int]:
    """Orders the sources of a clip, with their ids: the first one stands for it."""
    return case((is_there(of), 0), else_=1)


def first_source(
    clip_id: ColumnElement[Any], *conditions: ColumnElement[bool], of: Any = sources
) -> Select[Any]:
    """The id of the source that stands for a clip, of those for which the conditions hold.

    `of` is the table of sources, where a statement needs it by another name.
    """
    its = select(of.c.id).where(of.c.clip_id == clip_id, *conditions)
    return its.order_by(there_first(of), of.c.id).limit(1)


def _wildcard(part: str) -> str:
    if part in _WILDCARDS:
        return _WILDCARDS[part]
    is_negated = part.startswith("[!")
    inner = re.sub(r"([^\w-])", r"\\\1", part[2 if is_negated else 1 : -1].replace("--", "-"))
    return f"[{'^' if is_negated else ''}{inner}]"
