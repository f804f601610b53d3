"""Verdicts as they are given, one by one, where no file is imported."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Engine, insert, select

from db.engine import repeatable, writing
from db.errors import DatabaseUserError
from db.judging.verdicts import Verdict, VerdictFile, lock_file
from db.schema.tables import clips, nodes
from db.schema.verdict_tables import verdicts

APP = VerdictFile(hashlib.sha256(b"audioset app").hexdigest(), "audioset app", "app")
"""What stands in place of a file for the verdicts that were given in the app."""
_SLACK_MS = 100
"""A span may end so much after its clip: what was rounded is cut."""


@repeatable
def give_verdict(engine: Engine, said: Verdict, now: datetime) -> bool:
    """Store what a person said in the app; False if it is stored already.

    It is recognised by its `place`, a name that whoever sends it has chosen: so it may be sent
    again when no answer came.

    Raises:
        DatabaseUserError: no such clip, no such class, or no such span in the clip.
    """
    with writing(engine) as conn:
        clip = select(clips.c.id, clips.c.duration_s).where(clips.c.sha256 == said.clip)
        found = conn.execute(clip).one_or_none()
        if found is None:
            raise DatabaseUserError(f"there is no clip {said.clip[:12]} here")
        node = select(nodes.c.id).where(nodes.c.mid == said.mid)
        node_id = conn.execute(node).scalar_one_or_none()
        if node_id is None:
            raise DatabaseUserError(f"there is no class {said.mid!r} here")
        said = replace(said, span_ms=_inside(said.span_ms, found.duration_s))
        file_id = lock_file(conn, APP, now)
        same = select(verdicts.c.id).where(
            verdicts.c.clip_id == found.id, verdicts.c.node_id == node_id,
            verdicts.c.verdict_file_id == file_id, verdicts.c.place == said.place,
        )  # fmt: skip
        if conn.execute(same).first() is not None:
            return False
        start_ms, end_ms = said.span_ms or (None, None)
        row = {
            "clip_id": found.id, "node_id": node_id, "start_ms": start_ms, "end_ms": end_ms,
            "verdict": said.verdict, "judged_by": said.judged_by,
            "judged_at": min(now, said.judged_at),
            "verdict_file_id": file_id, "place": said.place,
        }  # fmt: skip
        conn.execute(insert(verdicts).values(row))
    return True


def _inside(span_ms: tuple[int, int] | None, duration_s: float) -> tuple[int, int] | None:
    if span_ms is None:
        return None
    start_ms, end_ms = span_ms
    length_ms = round(duration_s * 1000)
    if not (0 <= start_ms < end_ms <= length_ms + _SLACK_MS) or start_ms >= length_ms:
        raise DatabaseUserError(
            f"{start_ms / 1000:g} s to {end_ms / 1000:g} s is no span of this recording, which "
            f"ends at {duration_s:g} s"
        )
    return start_ms, min(end_ms, length_ms)
