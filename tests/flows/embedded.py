"""A collection with hand-made embeddings: rows and files as a run with embeddings leaves them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import text

from audioset_core.models.registry import YAMNET
from audioset_core.scores.pooling import pool
from audioset_core.storage.score_files import NewFile, new_file, read_scores
from db.catalog.model_registry import register_model, register_parameters
from db.catalog.sources import add_to_work_list, iter_items
from db.ledger.claims import claim_clip, commit_labellings
from db.records import Claim, Clip, Labelling, Lease, Model, Parameters, SeenSource, Variant
from tests.flows.scored import NOW, RUN, Collection

DIM = 8
SAW = "x:wood-saw"
KINDS = {"saw": 0, "dog": 1, "rain": 2, "wind": 3}
"""Sounds, and the number of an embedding in which each stands out."""


@dataclass(slots=True)
class Embedded:
    """YAMNet's classes and embeddings of eight numbers; and `x:wood-saw`, a power tool."""

    collection: Collection
    variant: Variant = field(init=False)

    def __post_init__(self) -> None:
        engine = self.collection.engine
        categories = tuple((c.index, c.mid, c.name) for c in YAMNET.categories)
        model = Model("yamnet", "emb", "e" * 64, 16_000, 0.96, DIM, categories)
        parameters = Parameters(0.48, 0.1, 0.1, extra={"embeddings": True})
        self.variant = Variant(
            register_model(engine, model, NOW), register_parameters(engine, parameters)
        )
        with engine.begin() as conn:
            tool = conn.execute(text("SELECT id FROM nodes WHERE name = 'Power tool'")).scalar_one()
            conn.execute(
                text(
                    "INSERT INTO nodes (id, mid, name, position, is_abstract, is_blacklisted) "
                    f"VALUES (9000, '{SAW}', 'Wood saw', 9000, false, false)"
                )
            )
            conn.execute(text(f"INSERT INTO edges VALUES ({tool}, 9000, 9)"))
            conn.execute(
                text(
                    "INSERT INTO closure (ancestor_id, descendant_id, depth) SELECT ancestor_id, "
                    f"9000, depth + 1 FROM closure WHERE descendant_id = {tool} "
                    "UNION ALL SELECT 9000, 9000, 0"
                )
            )

    def add(self, path: str, kind: str, n_patches: int = 4) -> str:
        """A recording of one kind of sound; its clip id."""
        sha256 = hashlib.sha256(path.encode()).hexdigest()
        rng = np.random.default_rng(int(sha256[:8], 16))
        embeddings = rng.standard_normal((n_patches, DIM)).astype(np.float16)
        embeddings[:, KINDS[kind]] += 8
        logits = np.full((n_patches, len(YAMNET.categories)), -12.0, dtype=np.float16)
        files = {
            "embeddings": new_file(embeddings, "yamnet", sha256, "embeddings"),
            "scores": new_file(logits, "yamnet", sha256),
        }
        for kind_of_file, file in files.items():
            self.write(file)
            self.collection.files[f"{kind_of_file} {path}"] = self.collection.home / file.path
        self.commit(path, sha256, n_patches, files if n_patches else {})
        return sha256

    def write(self, file: NewFile) -> None:
        path = self.collection.home / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(file.blocks))

    def commit(self, path: str, sha256: str, n_patches: int, files: dict[str, NewFile]) -> None:
        engine = self.collection.engine
        duration_s = 0.96 + 0.48 * max(0, n_patches - 1)
        clip = Clip(sha256, 9, duration_s, 16_000, 1, round(duration_s * 16_000), "wav")
        start = len(list(iter_items(engine, RUN)))
        seen = SeenSource(path.encode(), 9, 9)
        add_to_work_list(engine, RUN, [(seen, 1.0)], start=start, now=NOW)
        item = list(iter_items(engine, RUN))[-1]
        claim = claim_clip(engine, item.source_id, clip, self.variant, Lease(RUN, 60.0, NOW))
        assert isinstance(claim, Claim)
        scores, embeddings = files.get("scores"), files.get("embeddings")
        row = Labelling(
            claim, clip, n_patches,
            scores.path if scores else None, scores.sha256 if scores else None,
            "float16" if files else None,
            embeddings.path if embeddings else None, embeddings.sha256 if embeddings else None,
        )  # fmt: skip
        assert commit_labellings(engine, self.variant, [row], RUN, NOW) == [True]

    def rows(self, query: str) -> list[Any]:
        return self.collection.rows(query)

    def taught(self, name: str = "my-sounds") -> list[Any]:
        """What the taught model says, by clip: everything but ids and times."""
        return self.rows(
            "SELECT c.sha256, l.scores_path, l.scores_sha256, l.n_patches, l.is_current, "
            "(SELECT sum(s.peak) FROM clip_scores s WHERE s.labelling_id = l.id), "
            "(SELECT count(*) FROM detections d WHERE d.labelling_id = l.id) "
            "FROM labellings l JOIN clips c ON c.id = l.clip_id JOIN models m ON m.id = l.model_id "
            f"WHERE m.name = '{name}' AND l.status = 'done' ORDER BY 1"
        )

    def check_rows(self) -> None:
        """What SQL has of taught labellings is what their files pool to."""
        for sha256, path, _, n_patches, _, peaks, n_detections in self.taught():
            if path is None:
                assert (n_patches, peaks, n_detections) == (0, None, 0), sha256
                continue
            pooled = pool(read_scores(self.collection.home / path), floor=0.1, threshold=0.1)
            assert n_detections == len(pooled.detections)
            assert (peaks or 0) >= 0
