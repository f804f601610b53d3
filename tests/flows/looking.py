"""A collection made by hand: files, score matrices and rows, without a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import soundfile
from sqlalchemy import Engine

from audioset_core.features.config import FrontendConfig
from audioset_core.models.registry import YAMNET, ModelBundle
from audioset_core.ontology.graph import load_default
from audioset_core.scores.pooling import pool
from audioset_core.storage.score_files import npy_bytes
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
    Remark,
    SeenSource,
    Variant,
)
from tasks.load_ontology import store_ontology

RATE_HZ = 16_000
RUN = "00000000-0000-0000-0000-000000000001"
NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
INDEX = {category.mid: category.index for category in YAMNET.categories}
SIREN, SPEECH, ANIMAL = "/m/03kmc9", "/m/09x0r", "/m/0jbk"


@dataclass
class Collection:
    """A home with an empty database that knows AudioSet and one model."""

    home: Path
    bundle: ModelBundle = YAMNET
    engine: Engine = field(init=False)
    variant: Variant = field(init=False)

    def __post_init__(self) -> None:
        self.engine = open_engine(f"sqlite:///{self.home / 'labels.db'}")
        ensure_schema(self.engine)
        store_ontology(self.engine, load_default())
        model = Model(
            name=self.bundle.name, version="1", weights_sha256="a" * 64,
            sample_rate_hz=self._frontend.sample_rate_hz, window_s=self._frontend.patch_window_s,
            embedding_dim=None,
            categories=tuple((c.index, c.mid, c.name) for c in self.bundle.categories),
        )  # fmt: skip
        parameters = Parameters(
            patch_hop_s=self._frontend.patch_hop_s, score_floor=0.1, detection_threshold=0.1
        )
        self.variant = Variant(
            register_model(self.engine, model, NOW), register_parameters(self.engine, parameters)
        )
        start_run(self.engine, RUN, "host", 1, {}, NOW)

    @property
    def _frontend(self) -> FrontendConfig:
        return self.bundle.frontend

    def add(
        self, path: Path, duration_s: float, heard: Mapping[str, tuple[int, int, float]]
    ) -> str:
        """A recording of noise in which classes have a score from one patch to another."""
        path.parent.mkdir(parents=True, exist_ok=True)
        n_samples = round(duration_s * RATE_HZ)
        seed = int.from_bytes(hashlib.sha256(str(path.name).encode()).digest()[:4])
        noise = np.random.default_rng(seed).uniform(-0.3, 0.3, n_samples)
        soundfile.write(path, noise, RATE_HZ, format="WAV")
        return self.add_file(path, heard)

    def add_file(
        self,
        path: Path,
        heard: Mapping[str, tuple[int, int, float]],
        remarks: Sequence[Remark] = (),
    ) -> str:
        """A sound file that is there, in which classes have a score from one patch to another."""
        content, facts = path.read_bytes(), soundfile.info(path)
        sha = hashlib.sha256(content).hexdigest()
        duration_s = facts.frames / facts.samplerate
        n_patches = self._frontend.n_patches(round(duration_s * self._frontend.sample_rate_hz))
        logits = np.full((n_patches, len(self.bundle.categories)), -6, np.float32)
        index = {category.mid: category.index for category in self.bundle.categories}
        for mid, (first, last, score) in heard.items():
            logits[first : last + 1, index[mid]] = np.log(score / (1 - score))
        data = npy_bytes(logits)
        place = self.home / "scores" / f"{sha}.npy"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(data)
        pooled = pool(logits, floor=0.1, threshold=0.1)
        seen = path.stat()
        start = len(list(iter_items(self.engine, RUN)))
        source = SeenSource(str(path).encode(), seen.st_size, seen.st_mtime_ns)
        add_to_work_list(self.engine, RUN, [(source, 1.0)], start=start, now=NOW)
        (item,) = list(iter_items(self.engine, RUN))[start:]
        clip = Clip(
            sha, len(content), duration_s, facts.samplerate, facts.channels, facts.frames,
            f"{facts.format}/{facts.subtype}",
        )  # fmt: skip
        claim = claim_clip(self.engine, item.source_id, clip, self.variant, Lease(RUN, 60.0, NOW))
        assert isinstance(claim, Claim)
        row = Labelling(
            claim=claim, clip=clip, n_patches=n_patches, scores_path=f"scores/{sha}.npy",
            scores_sha256=hashlib.sha256(data).hexdigest(), score_dtype="float32",
            class_scores=pooled.class_scores,
            detections=pooled.detections,
            remarks=tuple(remarks), is_partial=bool(remarks),
        )  # fmt: skip
        assert commit_labellings(self.engine, self.variant, [row], RUN, NOW) == [True]
        return sha
