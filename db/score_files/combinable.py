"""Which clips several models have labelled, and one that combines those models has not.

Read in parts: no transaction stays open while score files are read, and of the clips that are still
to come only numbers are held.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, FromClause, and_, func, not_, or_, select

from db.engine import reading
from db.paging import batches
from db.query.current_labelling import has_row, represents_clip
from db.query.paths import at_paths
from db.records import KnownClip, Remark, Variant
from db.reports.clip import remarks_of
from db.schema.tables import clips, labellings, sources
from db.score_files.labelled import ScoredClip, scored_clips

_PAGE = 200


@dataclass(frozen=True, slots=True)
class Combinable:
    """A clip with its labelling by each of the parts; remarks and `is_partial` are theirs."""

    clip: KnownClip
    parts: tuple[ScoredClip, ...]
    remarks: tuple[Remark, ...]
    is_partial: bool


def count_labelled(engine: Engine, model_ids: Sequence[int]) -> tuple[int, list[int]]:
    """How many clips at least one of the models has labelled, and how many each of them has."""
    query = select(func.count(labellings.c.clip_id.distinct())).where(labellings.c.status == "done")
    of_any = labellings.c.model_id.in_(model_ids)
    each = [labellings.c.model_id == model_id for model_id in model_ids]
    with reading(engine) as conn:
        n_any, *n_each = (conn.execute(query.where(w)).scalar_one() for w in (of_any, *each))
    return int(n_any), [int(n) for n in n_each]


def find_combinations(
    engine: Engine, model_ids: Sequence[int], *, with_embeddings: bool = False
) -> dict[tuple[Variant, ...], tuple[ScoredClip, ...]]:
    """With which parameters the models labelled the same clips, each with an example of a part.

    Of several labellings of a clip by one model, the newest counts; the newest with embeddings if
    those are what is needed.
    """
    aliases = [labellings.alias(f"part_{k}") for k in range(len(model_ids))]
    sets = [part.c.parameter_set_id for part in aliases]
    query = (
        select(*sets, *(func.min(part.c.id) for part in aliases))
        .select_from(_joined(aliases))
        .where(
            *(
                represents_clip([model_id], part, with_embeddings=with_embeddings)
                for model_id, part in zip(model_ids, aliases, strict=True)
            )
        )
        .group_by(*sets)
        .order_by(*sets)
    )
    with reading(engine) as conn:
        rows = [tuple(row) for row in conn.execute(query)]
    n = len(model_ids)
    examples = scored_clips(engine, [key for row in rows for key in row[n:]])
    return {
        tuple(map(Variant, model_ids, row[:n])): tuple(examples[key] for key in row[n:])
        for row in rows
    }


def count_uncombined(
    engine: Engine,
    parts: Sequence[Variant],
    whole: Variant,
    *,
    with_embeddings: bool = False,
    paths: Sequence[str] = (),
) -> int:
    """How many clips `iter_uncombined` gives."""
    which = _uncombined(parts, whole, with_embeddings=with_embeddings, paths=paths)
    query = select(func.count()).select_from(labellings).where(which)
    with reading(engine) as conn:
        return int(conn.execute(query).scalar_one())


def iter_uncombined(
    engine: Engine,
    parts: Sequence[Variant],
    whole: Variant,
    *,
    is_repair: bool = False,
    with_embeddings: bool = False,
    paths: Sequence[str] = (),
    page: int = _PAGE,
) -> Iterator[Combinable]:
    """Clips with a labelling by each of the parts, the model's newest, and none by the whole.

    `is_repair`: only clips whose combined labelling a repair has reset, and the parts' labellings
    may have newer ones beside them. `with_embeddings`: the newest that have embeddings. `paths`:
    only clips of these files and folders, all if there are none.

    Raises:
        DatabaseUserError: a path is not a valid pattern.
    """
    which = _uncombined(
        parts, whole, is_repair=is_repair, with_embeddings=with_embeddings, paths=paths
    )
    with reading(engine) as conn:
        found = conn.execute(select(labellings.c.id).where(which).order_by(labellings.c.id))
        # Numbers of 8 bytes: page by page, the database would look for all of them again.
        ids = array("q", found.scalars())
    for some in batches(ids, page):
        yield from _read(engine, parts, some)


def _read(
    engine: Engine, parts: Sequence[Variant], first_ids: Sequence[int]
) -> Iterator[Combinable]:
    """The clips whose labellings by the first part these are."""
    aliases = [labellings.alias(f"part_{k}") for k in range(len(parts))]
    first = aliases[0]
    query = (
        select(
            *(part.c.id for part in aliases),
            or_(*(part.c.is_partial for part in aliases)),
            first.c.clip_id,
            clips.c.sha256,
            func.coalesce(first.c.source_id, 0),
        )
        .select_from(_joined(aliases))
        .join(clips, clips.c.id == first.c.clip_id)
        .where(first.c.id.in_(first_ids))
        .where(*(_is_variant(own, part) for own, part in zip(aliases, parts, strict=True)))
        .order_by(first.c.id)
    )
    n = len(parts)
    with reading(engine) as conn:
        rows = conn.execute(query).all()
        remarks = remarks_of(conn, [key for row in rows for key in row[:n]])
    by_id = scored_clips(engine, [key for row in rows for key in row[:n]])
    for keys, (is_partial, *clip) in ((row[:n], row[n:]) for row in rows):
        if all(key in by_id for key in keys):  # none was reset meanwhile
            told = dict.fromkeys(each for key in keys for each in remarks.get(key, ()))
            scored = tuple(by_id[key] for key in keys)
            yield Combinable(KnownClip(*clip), scored, tuple(told), bool(is_partial))


def part_labellings(engine: Engine, clip_id: int, parts: Sequence[Variant]) -> list[ScoredClip]:
    """The clip's finished labellings by these parts, as far as there are any."""
    wanted = [_is_variant(labellings, part) for part in parts]
    query = select(labellings.c.id).where(labellings.c.clip_id == clip_id, or_(*wanted))
    with reading(engine) as conn:
        ids = list(conn.execute(query).scalars())
    # One for each part: its own, or the one with embeddings, which has the same scores.
    return list({each.model_id: each for each in scored_clips(engine, ids).values()}.values())


def _uncombined(
    parts: Sequence[Variant],
    whole: Variant,
    *,
    is_repair: bool = False,
    with_embeddings: bool,
    paths: Sequence[str],
) -> ColumnElement[bool]:
    """The condition that a row of labellings is the first part's, of a clip to be combined."""

    def of_clip(table: Any, variant: Variant, *conditions: ColumnElement[bool]) -> Any:
        is_of_clip = table.c.clip_id == labellings.c.clip_id
        return has_row(
            select(table.c.id).where(is_of_clip, _is_variant(table, variant), *conditions)
        )

    def by_part(table: Any, part: Variant) -> ColumnElement[bool]:
        newest = represents_clip([part.model_id], table, with_embeddings=with_embeddings)
        is_newest = [] if is_repair else [newest]
        return and_(_is_variant(table, part), table.c.status == "done", *is_newest)

    first, *others = parts
    aliases = [labellings.alias(f"other_{k}") for k in range(len(others))]
    whole_of = labellings.alias("whole")
    is_reset = and_(whole_of.c.status == "claimed", whole_of.c.run_id.is_(None))
    return and_(
        by_part(labellings, first),
        *(of_clip(a, p, by_part(a, p)) for a, p in zip(aliases, others, strict=True)),
        *([_is_at(paths)] if paths else []),
        of_clip(whole_of, whole, is_reset)
        if is_repair
        else not_(of_clip(whole_of, whole, whole_of.c.status == "done")),
    )


def _is_at(paths: Sequence[str]) -> ColumnElement[bool]:
    own = select(sources.c.id).where(sources.c.clip_id == labellings.c.clip_id, at_paths(paths))
    return has_row(own)


def _joined(aliases: Sequence[Any]) -> FromClause:
    """The labellings of one clip by each of the parts, side by side."""
    first, *others = aliases
    joined = first
    for part in others:
        joined = joined.join(part, part.c.clip_id == first.c.clip_id)
    found: FromClause = joined
    return found


def _is_variant(table: Any, variant: Variant) -> ColumnElement[bool]:
    sets = [key for key in (variant.parameter_set_id, variant.fuller_set_id) if key is not None]
    return and_(table.c.model_id == variant.model_id, table.c.parameter_set_id.in_(sets))
