"""Small ontologies, models and labellings for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import Engine

from audioset_core.records import ClassScore, Detection, Node
from db.answer_records import Hit
from db.catalog.model_registry import register_model, register_parameters
from db.catalog.ontology import load_ontology
from db.catalog.sources import add_to_work_list, iter_items
from db.ledger.claims import claim_clip, commit_labellings
from db.ledger.runs import start_run
from db.query.find import find_clips
from db.query.question import Question
from db.records import (
    Claim,
    Clip,
    Labelling,
    Lease,
    Model,
    Parameters,
    SeenSource,
    Variant,
    WorkItem,
)

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
RUN = "00000000-0000-0000-0000-000000000001"
LEASE_S = 60.0

# /a over /b and /c; /d is below both; /e stands alone.
MIDS = ("/a", "/b", "/c", "/d", "/e")
EDGES = (("/a", "/b"), ("/a", "/c"), ("/b", "/d"), ("/c", "/d"))
PARAMETERS = Parameters(patch_hop_s=0.48, score_floor=0.05, detection_threshold=0.2)
MODEL = Model(
    name="tiny",
    version="1",
    weights_sha256="a" * 64,
    sample_rate_hz=16_000,
    window_s=0.96,
    embedding_dim=None,
    categories=tuple((idx, mid, f"name {mid}") for idx, mid in enumerate(MIDS[1:])),
)
INDEX = {mid: idx for idx, mid, _ in MODEL.categories}


@dataclass(frozen=True)
class World:
    engine: Engine
    variant: Variant


def closure_of(mids: Iterable[str], edges: Sequence[tuple[str, str]]) -> list[tuple[str, str, int]]:
    """(ancestor, descendant, shortest depth), by breadth first from every node."""
    rows = []
    for root in mids:
        depths = {root: 0}
        frontier = [root]
        while frontier:
            reached = [(p, c) for p, c in edges if p in frontier and c not in depths]
            depths.update((child, depths[parent] + 1) for parent, child in reached)
            frontier = list(dict.fromkeys(child for _, child in reached))
        rows += [(root, mid, depth) for mid, depth in depths.items()]
    return rows


def nodes_of(mids: Iterable[str]) -> list[Node]:
    return [Node(mid, f"name {mid}") for mid in mids]


def load(engine: Engine, mids: Sequence[str] = MIDS, edges: Sequence[tuple[str, str]] = EDGES):
    return load_ontology(engine, nodes_of(mids), edges, closure_of(mids, edges))


def make_world(
    engine: Engine,
    mids: Sequence[str] = MIDS,
    edges: Sequence[tuple[str, str]] = EDGES,
    model: Model = MODEL,
    parameters: Parameters = PARAMETERS,
) -> World:
    load(engine, mids, edges)
    variant = Variant(register_model(engine, model, NOW), register_parameters(engine, parameters))
    start_run(engine, RUN, "host", 1, {}, NOW)
    return World(engine, variant)


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def seen(path: str | bytes, size: int = 1_000, mtime: int = 7, **annotations: object) -> SeenSource:
    raw = path.encode() if isinstance(path, str) else path
    return SeenSource(raw, size, mtime, **annotations)  # type: ignore[arg-type]


def clip(name: str, duration_s: float = 10.0) -> Clip:
    return Clip(sha(name), 1_000, duration_s, 16_000, 1, int(duration_s * 16_000), "wav")


def enrolled(world: World, *files: SeenSource, run_id: str = RUN) -> list[WorkItem]:
    start = len(list(iter_items(world.engine, run_id)))
    add_to_work_list(world.engine, run_id, [(f, 1.0) for f in files], start=start, now=NOW)
    return list(iter_items(world.engine, run_id))[start:]


def claimed(world: World, name: str, path: str | None = None, now: datetime = NOW) -> Claim:
    """List a file that holds the clip called `name`, and claim it."""
    (item,) = enrolled(world, seen(path or f"/audio/{name}.wav"))
    claim = claim_clip(
        world.engine, item.source_id, clip(name), world.variant, Lease(RUN, LEASE_S, now)
    )
    assert isinstance(claim, Claim)
    return claim


def labelling(
    claim: Claim,
    name: str,
    peaks: Mapping[str, float] | None = None,
    detections: Sequence[Detection] = (),
    duration_s: float = 10.0,
    index: Mapping[str, int] = INDEX,
) -> Labelling:
    return Labelling(
        claim=claim,
        clip=clip(name, duration_s),
        n_patches=20,
        scores_path=f"tiny/{claim.sha256[:2]}/{claim.sha256}.npy",
        scores_sha256=sha("scores" + name),
        score_dtype="float16",
        class_scores=tuple(ClassScore(index[m], p, p / 2) for m, p in (peaks or {}).items()),
        detections=tuple(detections),
    )


def labelled(
    world: World,
    name: str,
    peaks: Mapping[str, float],
    detections: Sequence[Detection] = (),
    now: datetime = NOW,
    **kwargs: object,
) -> Claim:
    claim = claimed(world, name)
    row = labelling(claim, name, peaks, detections, **kwargs)  # type: ignore[arg-type]
    assert commit_labellings(world.engine, world.variant, [row], RUN, now) == [True]
    return claim


def other_variant(world: World, model: Model | None = None) -> Variant:
    """Another version of the model (or the model given), with the same parameters."""
    wanted = model or replace(MODEL, version="2", weights_sha256="b" * 64)
    return replace(world.variant, model_id=register_model(world.engine, wanted, NOW))


def top_clips(
    engine: Engine, under: str, not_under: Sequence[str] = (), **conditions: object
) -> list[Hit]:
    """The best clips in the subtree of a MID, best first."""
    question = Question(under=(under,), not_under=tuple(not_under), **conditions)  # type: ignore[arg-type]
    return find_clips(engine, question)
