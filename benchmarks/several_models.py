"""Models end to end on the same FLAC recordings: a run of each, and all of them in one run.

    python -m benchmarks.several_models [--files 4] [--rounds 3] [MODEL MODEL ...]

Without Prefect, whose cost does not depend on the number of models: claims, hash, decoding, front
ends, networks, score files and rows, on all cores, with the shards of a long run. The ways take
turns in one process, each time in an empty home; the least time of the rounds counts. Networks are
loaded before the clock starts, with the weights at hand or random ones. "of YAMNet": how fast a
model is against it. "of the sum": the run with all models against its models' own runs together;
below 1 they are cheaper together.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from audioset_core.inputs.walk import read_inputs
from audioset_core.models.registry import find_bundle
from audioset_core.weights.locate import environment_name
from benchmarks.corpora import CORPORA, default_folder, files_of
from benchmarks.models import weights
from db.catalog.sources import iter_items
from flows.run.live_runs import recorded_run
from flows.run.preparation import prepare_run
from tasks.label_shard import PART_S, label_whole_shard
from tasks.labelling.job import Job, scorer_for
from tasks.labelling.options import LabelOptions
from tasks.labelling.shards import SHARDS_IN_FLIGHT, cut_shards, whole_shards
from tasks.labelling.worklist import discover
from tasks.load_ontology import load_ontology

_LOGGER = logging.getLogger("benchmark")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", default=["yamnet", "mn04", "mn10"])
    parser.add_argument("--files", type=int, default=4, help="of 5 minutes each")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    paths = files_of(CORPORA["flac"], options.files, default_folder())
    audio_s = options.files * CORPORA["flac"].length_s
    ways = [*((name,) for name in options.models), tuple(options.models)]
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:  # so that every home finds the same weights
            bundle = find_bundle(name)
            os.environ[environment_name(bundle)] = str(weights(bundle, Path(folder)).path)
        taken_s: dict[tuple[str, ...], list[float]] = {way: [] for way in ways}
        for number in range(options.rounds):
            for at, way in enumerate(ways):
                taken_s[way].append(label(way, paths, Path(folder) / f"{number}-{at}"))
    least_s = {way: min(times) for way, times in taken_s.items()}
    print(f"{'models':<40}{'s per hour of audio':>20}{'of YAMNet':>11}{'of the sum':>12}")
    yamnet_s = least_s.get(("yamnet",), math.nan)
    for way in ways:
        share = least_s[way] / sum(least_s[(name,)] for name in way)
        shown = f"{share:.2f}" if len(way) > 1 else ""
        speed = "" if math.isnan(yamnet_s) else f"{yamnet_s / least_s[way]:.2f}x"
        each_s = least_s[way] * 3600 / audio_s
        print(f"{' and '.join(way):<40}{each_s:>20.1f}{speed:>11}{shown:>12}")


def label(models: Sequence[str], paths: list[Path], home: Path) -> float:
    """Seconds to label the recordings with these models."""
    prepared = prepare_run(LabelOptions(model=tuple(models), device="cpu"), home, None)
    engine = prepared.engine
    with recorded_run(engine, home, {}) as run:
        jobs: list[Job] = []
        for model in prepared.models:
            ready = weights(model.bundle, home)
            variant = load_ontology.fn(prepared.database_url, ready, model.parameters)
            jobs.append(prepared.job(run.run_id, model, ready, variant))
            scorer_for(ready, jobs[-1].options.compute)
        inputs = read_inputs([str(path) for path in paths])
        found = discover(engine, run.run_id, [job.variant for job in jobs], inputs)
        shard_s = found.estimated_s / found.n_items
        shards = list(whole_shards(cut_shards(iter_items(engine, run.run_id), shard_s)))
        for shard in shards:
            shard.budget_s = PART_S
        began = time.perf_counter()
        with ThreadPoolExecutor(SHARDS_IN_FLIGHT) as pool:
            receipts = list(pool.map(lambda s: label_whole_shard(tuple(jobs), s, _LOGGER), shards))
        taken_s = time.perf_counter() - began
        for receipt in receipts:
            run.summary.add(receipt)
    assert run.summary.n_labelled == len(paths), run.summary.failures
    engine.dispose()
    return taken_s


if __name__ == "__main__":
    main()
