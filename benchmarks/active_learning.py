"""How soon the Teach page shows a new list after answers: as ratios to one pass over the patches.

    python -m benchmarks.active_learning
    python -m benchmarks.active_learning --patches 200_000

A home is made with embeddings by chance, in clusters, of recordings of ten patches each, and with
verdicts on some of them. A round is what the page does after answers: the examples are gathered
from SQL and files, the head is fitted, every patch is scored and the list is put in order. Medians
of five rounds, each after new verdicts. A pass is the product of all patches and one vector.
Seconds are those of all cores together, which other programs on the machine do not lengthen.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
from sqlalchemy import Engine, insert

from audioset_core.storage.atomic_files import write_many
from audioset_core.storage.score_files import new_file
from audioset_core.teaching.choice import ORDERS
from benchmarks.similar_scale import Clusters
from db.engine import writing
from db.judging.verdicts import Verdict, VerdictFile, find_verdicts, store_verdicts
from db.schema.tables import clips, labellings
from db.score_files.teachable import embedded_models
from tasks.teaching.learning import Teacher, ask, still_open
from tasks.teaching.patches import read_patches
from tests.flows.embedded import SAW
from tests.flows.looking import NOW, Collection

DIM = 1024
PATCHES_EACH = 10
ROUNDS = 5
SHOWN = 24
_FILES_AT_ONCE = 200
_SAID = VerdictFile("b" * 64, "benchmark", "csv")


def make_home(home: Path, n_patches: int) -> Engine:
    """A database and files of embeddings; the rows are written at once, without a run."""
    from db.catalog.model_registry import register_model, register_parameters
    from db.catalog.own_classes import OwnClass, add_own_class
    from db.records import Model, Parameters

    engine = Collection(home).engine
    add_own_class(engine, OwnClass(SAW, "Wood saw", ("/m/0_ksk",)))
    categories = ((0, "/m/09x0r", "Speech"),)
    model = Model("yamnet", "bench", "e" * 64, 16_000, 0.96, DIM, categories)
    parameters = Parameters(0.48, 0.1, 0.1, extra={"embeddings": True})
    made_by = {
        "model_id": register_model(engine, model, NOW),
        "parameter_set_id": register_parameters(engine, parameters),
    }
    clusters, n_clips = Clusters(DIM), n_patches // PATCHES_EACH
    duration_s = 0.96 + 0.48 * (PATCHES_EACH - 1)
    for first in range(0, n_clips, _FILES_AT_ONCE):
        numbers = range(first, min(n_clips, first + _FILES_AT_ONCE))
        rows = clusters.drawn(len(numbers) * PATCHES_EACH, first + 1).astype(np.float16)
        files = [
            new_file(part, "yamnet", f"{number:064x}", "embeddings")
            for number, part in zip(numbers, np.split(rows, len(numbers)), strict=True)
        ]
        write_many([(home / file.path, file.blocks) for file in files])
        with writing(engine) as conn:
            conn.execute(
                insert(clips),
                [
                    {"id": number + 1, "sha256": f"{number:064x}", "size_bytes": 9,
                     "duration_s": duration_s, "sample_rate_hz": 16_000, "n_channels": 1,
                     "n_samples": round(duration_s * 16_000), "format": "wav",
                     "first_seen_at": NOW}
                    for number in numbers
                ],
            )  # fmt: skip
            conn.execute(
                insert(labellings),
                [
                    {"clip_id": number + 1, **made_by,
                     "status": "done", "token": 1, "n_patches": PATCHES_EACH,
                     "labelled_at": NOW, "is_current": True, "score_dtype": "float16",
                     "embeddings_path": file.path, "embeddings_sha256": file.sha256}
                    for number, file in zip(numbers, files, strict=True)
                ],
            )  # fmt: skip
    return engine


def rounds(engine: Engine, home: Path) -> Iterator[dict[str, float]]:
    """Seconds of each part of a round, after some verdicts more."""
    (base,) = embedded_models(engine)
    began = time.perf_counter()
    patches = read_patches(engine, home, base)
    print(f"read into memory in {time.perf_counter() - began:.1f} s")
    teacher, rng = Teacher(engine, home), np.random.default_rng(1)
    direction = patches.rows[0]
    likely = np.argsort(-(patches.rows @ direction))
    likely = likely[np.unique(patches.places.recordings[likely], return_index=True)[1]]
    likely = likely[np.argsort(-(patches.rows[likely] @ direction))]
    for at in range(ROUNDS + 1):
        said = [
            Verdict(patches.clip_of(number).clip_sha256, SAW, _ms(patches.span_s(number)), verdict,
                    "ann", NOW + timedelta(seconds=at), f"{at} {number}")
            for verdict, some in (("present", likely[10 * at : 10 * at + 10]),
                                  ("absent", rng.choice(likely[2000:] if len(likely) > 4000
                                                        else likely[500:], 10)))
            for number in some.tolist()
        ]  # fmt: skip
        store_verdicts(engine, _SAID, said, NOW)
        begun = time.process_time()
        learned = teacher.learned(base, SAW, "Wood saw")
        fitted = time.process_time()
        verdicts = find_verdicts(engine, under=SAW)
        open_ones = still_open(patches, verdicts)
        found = dict.fromkeys(ORDERS, 0.0)
        sought = time.process_time()
        for order in ORDERS:
            start = time.process_time()
            assert len(ask(learned, patches, order, open_ones, SHOWN).numbers) == SHOWN
            found[order] = time.process_time() - start
        start = time.process_time()
        _ = patches.rows @ direction
        found["pass"] = time.process_time() - start
        found["learn"] = fitted - begun
        found["verdicts"] = sought - fitted
        found["round"] = found["learn"] + found["verdicts"] + max(found[o] for o in ORDERS)
        start = time.process_time()
        teacher.figures(SAW, learned)
        found["figures"] = time.process_time() - start
        if at:  # the first one imports scikit-learn
            yield found


def _ms(span_s: tuple[float, float]) -> tuple[int, int]:
    return round(span_s[0] * 1000), round(span_s[1] * 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, nargs="*", default=[10_000, 100_000])
    for n_patches in parser.parse_args().patches:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            engine = make_home(home, n_patches)
            every = list(rounds(engine, home))
            engine.dispose()
        spent = {name: statistics.median(each[name] for each in every) for name in every[0]}
        print(f"{n_patches:,} patches of {DIM}; one pass {spent['pass'] * 1e3:.1f} ms")
        for name, what in (
            ("learn", "examples gathered, head fitted"), ("verdicts", "what is still open"),
            *((order, f"scored and ordered: {order}") for order in ORDERS),
            ("round", "from answers to a new list"), ("figures", "AP with interval, afterwards"),
        ):  # fmt: skip
            print(f"  {what:34}{spent[name]:8.3f} s {spent[name] / spent['pass']:8.1f} passes")


if __name__ == "__main__":
    main()
