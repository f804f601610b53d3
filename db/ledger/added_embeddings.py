"""Labels that only lack embeddings: those are added, and what was labelled stays as it is.

Two sets of parameters that differ in nothing but embeddings give the same labels. A labelling with
embeddings therefore is one without them as well; and when a clip that has one without is labelled
with them, the labelling that is there passes over to the set with embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, select, update

from db.records import Labelling, Variant
from db.schema.tables import labellings


def is_labelled_with_more(conn: Connection, clip_id: int, variant: Variant) -> bool:
    """Whether the clip has a labelling with embeddings, and none at all under the variant itself.

    The variant's own, if a repair has reset it, is made again.
    """
    if variant.fuller_set_id is None:
        return False
    query = select(labellings.c.parameter_set_id, labellings.c.status).where(
        labellings.c.clip_id == clip_id,
        labellings.c.model_id == variant.model_id,
        labellings.c.parameter_set_id.in_([variant.parameter_set_id, variant.fuller_set_id]),
    )
    found = {row.parameter_set_id: row.status for row in conn.execute(query)}
    return variant.parameter_set_id not in found and found.get(variant.fuller_set_id) == "done"


def add_embeddings(
    conn: Connection, variant: Variant, done: Sequence[Labelling], run_id: str
) -> set[int]:
    """Add embeddings to labellings of the same clips that have none, in place of the new ones.

    `done` are labellings that were marked as done in this transaction, which holds their clips'
    locks. Returns the ids of those that the older ones, with their scores, have replaced.
    """
    if variant.barer_set_id is None:
        return set()
    query = select(labellings.c.id, labellings.c.clip_id, labellings.c.n_patches).where(
        labellings.c.clip_id.in_([each.claim.clip_id for each in done]),
        labellings.c.model_id == variant.model_id,
        labellings.c.parameter_set_id == variant.barer_set_id,
        labellings.c.status == "done",
    )
    before = {row.clip_id: row for row in conn.execute(query)}
    # Other patches (another decoder's version) would not be those of the stored scores.
    fitting = [
        (before[each.claim.clip_id].id, each)
        for each in done
        if each.claim.clip_id in before and before[each.claim.clip_id].n_patches == each.n_patches
    ]
    if fitting:
        new = [{"key": each.claim.labelling_id} for _, each in fitting]
        conn.execute(delete(labellings).where(labellings.c.id == bindparam("key")), new)
        conn.execute(
            update(labellings)
            .where(labellings.c.id == bindparam("key"))
            .values(
                parameter_set_id=variant.parameter_set_id,
                token=labellings.c.token + 1,  # a check that has read the old row sees it
                run_id=run_id,
            ),
            [
                {
                    "key": key,
                    "source_id": each.claim.source_id,
                    "embeddings_path": each.embeddings_path,
                    "embeddings_sha256": each.embeddings_sha256,
                }
                for key, each in fitting
            ],
        )
    return {each.claim.labelling_id for _, each in fitting}
