"""A home with a hand-made collection under AudioSet's own ontology, without a run of any flow."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from audioset_core.ontology.graph import load_default
from audioset_core.scores.pooling import pool
from audioset_core.storage.atomic_files import write_atomically
from audioset_core.storage.score_files import npy_bytes
from db.catalog.model_registry import register_model, register_parameters
from db.catalog.own_classes import OwnClass, add_own_class
from db.engine import open_engine, sqlite_url
from db.ledger.claims import claim_clip, commit_labellings
from db.ledger.runs import start_run
from db.migrate import ensure_schema
from db.records import Claim, Labelling, Lease, Model, Parameters, Variant
from tasks.load_ontology import store_ontology
from tests.db.build import LEASE_S, NOW, RUN, World, clip, enrolled, seen, sha

CLASSES = ("Dog", "Meow", "Siren", "Car")
DURATION_S = 10.56
N_PATCHES = 21


@dataclass(frozen=True, slots=True)
class Collection:
    """The home, and the logits and embeddings of each recording by name."""

    home: Path
    engine: Engine
    logits: dict[str, np.ndarray]
    embeddings: dict[str, np.ndarray]


def make_collection(
    home: Path,
    names: tuple[str, ...],
    seed: int = 5,
    url: str | None = None,
    own: tuple[OwnClass, ...] = (),
) -> Collection:
    """Recordings of those names (paths below /audio) with scores and embeddings by chance.

    The model predicts CLASSES, and after them the classes of one's own.
    """
    home.mkdir(parents=True)
    engine = open_engine(url or sqlite_url(home / "labels.db"))
    ensure_schema(engine)
    ontology = load_default()
    store_ontology(engine, ontology)
    predicted = [(ontology.find(name).mid, name) for name in CLASSES]
    for each in own:
        assert add_own_class(engine, each)
        predicted.append((each.mid, each.name))
    categories = tuple((i, mid, name) for i, (mid, name) in enumerate(predicted))
    model = Model("yamnet", "1", "a" * 64, 16_000, 0.96, 3, categories)
    variant = Variant(
        register_model(engine, model, NOW), register_parameters(engine, Parameters(0.48, 0.1, 0.1))
    )
    start_run(engine, RUN, "host", 1, {}, NOW)
    rng = np.random.default_rng(seed)
    made = Collection(home, engine, {}, {})
    for name in names:
        logits = rng.normal(-1.5, 2, (N_PATCHES, len(categories))).astype(np.float16)
        made.logits[name] = logits
        made.embeddings[name] = rng.normal(0, 1, (N_PATCHES, 3)).astype(np.float16)
        _store(made, World(engine, variant), name)
    return made


def _store(made: Collection, world: World, name: str) -> None:
    (item,) = enrolled(world, seen(f"/audio/{name}"))
    described = clip(name, DURATION_S)
    claim = claim_clip(
        world.engine, item.source_id, described, world.variant, Lease(RUN, LEASE_S, NOW)
    )
    assert isinstance(claim, Claim)
    digests = {}
    for kind, array in (("scores", made.logits[name]), ("embeddings", made.embeddings[name])):
        content = npy_bytes(array)
        digests[kind] = hashlib.sha256(content).hexdigest()
        write_atomically(made.home / kind / f"{sha(name)}.npy", content)
    pooled = pool(made.logits[name], floor=0.1, threshold=0.1)
    row = Labelling(
        claim=claim,
        clip=described,
        n_patches=N_PATCHES,
        scores_path=f"scores/{sha(name)}.npy",
        scores_sha256=digests["scores"],
        score_dtype="float16",
        embeddings_path=f"embeddings/{sha(name)}.npy",
        embeddings_sha256=digests["embeddings"],
        class_scores=pooled.class_scores,
        detections=pooled.detections,
    )
    assert commit_labellings(world.engine, world.variant, [row], RUN, NOW) == [True]
