"""A collection with hand-made scores: rows and score files as a run leaves them, without one."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, text

from audioset_core.models.registry import YAMNET
from audioset_core.ontology.graph import load_default
from audioset_core.scores.pooling import pool
from audioset_core.storage.score_files import npy_bytes, scores_path
from db.catalog.model_registry import register_model, register_parameters
from db.catalog.sources import add_to_work_list, iter_items
from db.engine import open_engine
from db.ledger.claims import claim_clip, commit_labellings
from db.ledger.runs import start_run
from db.migrate import ensure_schema
from db.records import (
    Claim,
    Clip,
    Labelling,
    Lease,
    Model,
    Parameters,
    SeenSource,
    Variant,
)
from tasks.load_ontology import store_ontology

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
RUN = "00000000-0000-0000-0000-00000000000a"
INDEX = {category.name: category.index for category in YAMNET.categories}


@dataclass(slots=True)
class Collection:
    """YAMNet's classes, patches of 0.96 s every 0.48 s; scores as the test wants them."""

    home: Path
    template: Path | None = None
    """The database of a new collection, to begin with a copy of it."""
    engine: Engine = field(init=False)
    variant: Variant = field(init=False)
    files: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        if self.template is not None:
            shutil.copy(self.template, self.home / "labels.db")
        self.engine = open_engine(f"sqlite:///{self.home / 'labels.db'}")
        if self.template is None:
            ensure_schema(self.engine)
            store_ontology(self.engine, load_default())
            start_run(self.engine, RUN, "host", 1, {}, NOW)
        categories = tuple((c.index, c.mid, c.name) for c in YAMNET.categories)
        model = Model("yamnet", "hand", "c" * 64, 16_000, 0.96, 1024, categories)
        parameters = Parameters(0.48, 0.1, 0.1)
        self.variant = Variant(
            register_model(self.engine, model, NOW), register_parameters(self.engine, parameters)
        )

    def add(
        self, path: str, scores: Mapping[str, Sequence[float]], user_id: str | None = None
    ) -> str:
        """A recording with these scores of each patch; its clip id."""
        n_patches = max((len(own) for own in scores.values()), default=0)
        logits = np.full((n_patches, len(INDEX)), -12.0, dtype=np.float32)
        for name, own in scores.items():
            values = np.array(own, dtype=np.float64)
            logits[:, INDEX[name]] = np.log(values / (1 - values))
        clip_sha256 = hashlib.sha256(path.encode()).hexdigest()
        data = npy_bytes(logits)
        digest = hashlib.sha256(data).hexdigest()
        relative = str(scores_path("yamnet", clip_sha256, digest))
        if n_patches:
            self.files[path] = self.home / relative
            self.files[path].parent.mkdir(parents=True, exist_ok=True)
            self.files[path].write_bytes(data)
        duration_s = 0.96 + 0.48 * max(0, n_patches - 1)
        clip = Clip(clip_sha256, 9, duration_s, 16_000, 1, round(duration_s * 16_000), "wav")
        start = len(list(iter_items(self.engine, RUN)))
        seen = SeenSource(path.encode(), 9, 9, user_id)
        add_to_work_list(self.engine, RUN, [(seen, 1.0)], start=start, now=NOW)
        item = list(iter_items(self.engine, RUN))[-1]
        claim = claim_clip(self.engine, item.source_id, clip, self.variant, Lease(RUN, 60.0, NOW))
        assert isinstance(claim, Claim)
        pooled = pool(logits, floor=0.1, threshold=0.1)
        labelling = Labelling(
            claim,
            clip,
            n_patches,
            scores_path=relative if n_patches else None,
            scores_sha256=digest if n_patches else None,
            score_dtype="float32" if n_patches else None,
            class_scores=pooled.class_scores,
            detections=pooled.detections,
        )
        assert commit_labellings(self.engine, self.variant, [labelling], RUN, NOW) == [True]
        return clip_sha256

    def rows(self, query: str) -> list[Any]:
        with self.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(text(query))]
