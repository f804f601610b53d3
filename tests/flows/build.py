"""What the flow tests are made of: a placeholder network, generated clips, the results."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from pydantic import SecretStr
from sqlalchemy import Engine, text

from audioset_core.models.registry import YAMNET
from audioset_core.scores.pooling import pool
from audioset_core.storage.atomic_files import TEMP_SUFFIX
from audioset_core.storage.score_files import read_scores
from flows.label_audio import label_audio
from flows.run_report.summary import Summary
from tasks.labelling.job import DETECTION_THRESHOLD, SCORE_FLOOR, engine_for
from tasks.labelling.options import LabelOptions
from tasks.store_check.check import check_store
from tasks.store_check.report import Damage

REPOSITORY = Path(__file__).parents[2]


def write_placeholder(path: Path, seed: int = 0) -> Path:
    """A YAMNet of random weights whose scores spread over (0, 1), as converted weights."""
    import torch
    from safetensors.torch import save_file

    from audioset_core.models.yamnet import YAMNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = YAMNet().train()
        # Patches with slopes and swells of all kinds stand for sounds.
        time, mel = torch.linspace(-1, 1, 96).view(1, 96, 1), torch.linspace(-1, 1, 64)
        a, b, c, d = torch.randn(4, 96, 1, 1)
        patches = -3 + 2 * a + 2 * b * mel + c * time + d * torch.randn(96, 96, 64)
        norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            _, embeddings = model(patches)
            spread, centre = embeddings.std(), embeddings.mean(dim=0)
            weight = torch.randn(521, 1024) * (4 / (spread * 1024**0.5))
            model.classifier.weight.copy_(weight)
            model.classifier.bias.copy_(-3 - weight @ centre)
    metadata = {"model": "yamnet", "version": f"placeholder-{seed}", "source_sha256": "0" * 64}
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path, metadata=metadata)
    return path


def sound(seed: int, duration_s: float = 2.0, rate_hz: int = 16_000, channels: int = 1) -> Any:
    """A tone that swells over noise, different for every seed. Shape: [n_samples, channels]."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    tone = np.sin(2 * np.pi * rng.uniform(100, 4000) * time_s) * np.sin(
        rng.uniform(0.5, 6) * time_s
    )
    mono = 0.4 * tone + rng.uniform(0.001, 0.2) * rng.standard_normal(len(time_s))
    return mono[:, np.newaxis] * rng.uniform(0.5, 1, channels)


def write_headless_vggish(path: Path) -> Path:
    """Random VGGish weights without a classifier head, as `audioset convert` would write them."""
    import torch
    from safetensors.torch import save_file

    from audioset_core.models.vggish import VGGish

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = VGGish(has_head=False).state_dict()
    metadata = {"model": "vggish", "version": "placeholder", "source_sha256": "1" * 64}
    save_file(state, path, metadata={**metadata, "has_scores": "false"})
    return path


def write_clip(
    path: Path | bytes,
    seed: int,
    duration_s: float = 2.0,
    rate_hz: int = 16_000,
    channels: int = 1,
    **settings: str,
) -> None:
    """A recording; the name's ending is its format unless `format` says otherwise."""
    name = Path(os.fsdecode(path))
    kind = settings.pop("format", None) or name.suffix[1:].upper()
    name.parent.mkdir(parents=True, exist_ok=True)
    with name.open("wb") as file:
        samples = np.clip(sound(seed, duration_s, rate_hz, channels), -1, 1)
        soundfile.write(file, samples, rate_hz, format=kind, **settings)


@dataclass(slots=True)
class Lab:
    """A home, a database and a placeholder network."""

    home: Path
    url: str
    weights: Path

    @property
    def engine(self) -> Engine:
        return engine_for(self.url)

    def label(self, *paths: Path | str, manifest: Path | None = None, **options: Any) -> Summary:
        """Run the flow."""
        return label_audio(
            paths=[str(path) for path in paths],
            manifest=manifest,
            home=self.home,
            options=LabelOptions(**{"weights": self.weights, **options}),
            database=SecretStr(self.url),
        )

    def rows(self, query: str, **values: Any) -> list[Any]:
        with self.engine.connect() as conn:
            return list(conn.execute(text(query), values).all())

    def count(self, table: str, where: str = "1 = 1") -> int:
        return int(self.rows(f"SELECT count(*) FROM {table} WHERE {where}")[0][0])

    def sources(self) -> dict[str, tuple[str, str | None]]:
        """Status and reason by file name."""
        found = self.rows("SELECT path, status, reason FROM sources")
        return {Path(os.fsdecode(r[0])).name: (r[1], r[2]) for r in found}

    def results(self) -> dict[str, Any]:
        """What was found, by clip: everything but ids and times."""
        shots: dict[str, Any] = {}
        for labelling_id, clip, scores, n_patches, duration in self.rows(
            "SELECT l.id, c.sha256, l.scores_sha256, l.n_patches, c.duration_s FROM labellings l "
            "JOIN clips c ON c.id = l.clip_id WHERE l.status = 'done' AND l.is_current"
        ):
            key = {"id": labelling_id}
            classes = self.rows(
                "SELECT n.mid, s.peak, s.mean FROM clip_scores s JOIN nodes n ON n.id = s.node_id "
                "WHERE s.labelling_id = :id ORDER BY n.mid", **key,
            )  # fmt: skip
            intervals = self.rows(
                "SELECT n.mid, d.start_patch, d.end_patch, d.peak, d.mean, d.peak_patch "
                "FROM detections d JOIN nodes n ON n.id = d.node_id "
                "WHERE d.labelling_id = :id ORDER BY n.mid, d.start_patch", **key,
            )  # fmt: skip
            shots[clip] = (
                scores, n_patches, duration,
                [tuple(r) for r in classes], [tuple(r) for r in intervals],
            )  # fmt: skip
        return shots

    def check_after_a_kill(self) -> None:
        """As `check`; a process that was killed while writing may leave temporary files.

        Once they are old, `verify --repair` deletes them and finds nothing else.
        """
        left = list((self.home / "scores").rglob(f"*{TEMP_SUFFIX}"))
        for temporary in left:
            os.utime(temporary, (0, 0))
        report = check_store(self.engine, self.home, is_deep=False, is_repair=True)
        assert report.found_kinds() == ([Damage.TEMPORARY] if left else []), report.rows()
        self.check()

    def check(self) -> None:
        """Tables and files agree, and no run left anything behind."""
        assert self.count("labellings", "status <> 'done'") == 0
        assert self.count("run_items") == 0
        done = self.rows(
            "SELECT l.scores_path, l.scores_sha256, l.score_dtype, l.n_patches, c.sha256, "
            "l.parameter_set_id, l.model_id FROM labellings l JOIN clips c ON c.id = l.clip_id"
        )
        assert len({(r[4], r[5], r[6]) for r in done}) == len(done)
        for path, digest, dtype, n_patches, clip, *_ in done:
            data = (self.home / path).read_bytes()
            assert hashlib.sha256(data).hexdigest() == digest
            assert Path(path).name == f"{clip}-{digest[:16]}.npy"
            logits = read_scores(self.home / path)
            assert (logits.shape, str(logits.dtype)) == ((n_patches, 521), dtype)
        written = {p for p in (self.home / "scores").rglob("*") if p.is_file()}
        assert not [p for p in written if p.name.endswith(TEMP_SUFFIX)]
        assert written >= {self.home / r[0] for r in done}
        self._check_rows()

    def _check_rows(self) -> None:
        """Class scores and detections are what the stored file pools to."""
        mids = [category.mid for category in YAMNET.categories]
        paths = {
            r[0]: r[1]
            for r in self.rows(
                "SELECT c.sha256, l.scores_path FROM labellings l JOIN clips c ON c.id = l.clip_id "
                "WHERE l.is_current"
            )
        }
        for clip, (*_, classes, intervals) in self.results().items():
            logits = read_scores(self.home / paths[clip])
            pooled = pool(logits, floor=SCORE_FLOOR, threshold=DETECTION_THRESHOLD)
            assert classes == sorted(
                (mids[s.category_index], _step(s.peak), _step(s.mean)) for s in pooled.class_scores
            )
            assert intervals == sorted(
                (mids[d.category_index], d.start_patch, d.end_patch, _step(d.peak), _step(d.mean),
                 d.peak_patch)
                for d in pooled.detections
            )  # fmt: skip


def _step(score: float) -> int:
    """As `db.types.ScoreType` stores a score."""
    return round(score * 10_000)


@contextmanager
def processes(
    environment: Mapping[str, str], folder: Path
) -> Iterator[Callable[[list[str | bytes]], subprocess.Popen[bytes]]]:
    """Starts command lines in sessions of their own; what still lives at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def run(line: list[str | bytes]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            line, env=dict(environment), cwd=folder, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def command(*arguments: str | bytes | Path, setup: str = "") -> list[str | bytes]:
    """A command line that runs `audioset` in its own process; `setup` is run before."""
    program = f"import sys\n{setup}\nfrom flows.cli.program import main\nmain()"
    return [sys.executable, "-W", "default", "-c", program, *_texts(arguments)]


def run_command(
    *arguments: str | bytes | Path, env: Mapping[str, str], cwd: Path, setup: str = ""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(*arguments, setup=setup), env=dict(env), cwd=cwd, capture_output=True, timeout=180,
        check=False,
    )  # fmt: skip


def _texts(arguments: tuple[str | bytes | Path, ...]) -> list[str | bytes]:
    return [str(a) if isinstance(a, Path) else a for a in arguments]
