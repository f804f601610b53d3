"""What a person is told of clips that cannot be taught with, or scored, as they lack embeddings."""

from __future__ import annotations

import os
import shlex

from sqlalchemy import Engine

from db.score_files.teachable import clips_without_embeddings


def without_embeddings(engine: Engine, model: str) -> str | None:
    """How many clips of NAME@VERSION have no embeddings, and what adds them; None: all have.

    Raises:
        DatabaseUserError: no model has that name.
    """
    found = clips_without_embeddings(engine, model)
    if not found.n_clips:
        return None
    said = f"{found.n_clips:,} clips without embeddings of {model}"
    if found.n_clips == found.n_vanished:
        return f"{said}, whose files have vanished"
    place = shlex.quote(os.fsdecode(found.place))
    command = f"audioset label --model {model.partition('@')[0]} --embeddings {place}"
    vanished = f" ({found.n_vanished:,} files have vanished)" if found.n_vanished else ""
    return f"{said}{vanished}: {command} adds them"
