"""The speed of labelling, compared with other ways and with the bound of this machine.

    make bench                                  (about 10 minutes on 2 cores)
    .venv/bin/python -m benchmarks --full       (the sizes that the project's targets name; hours)

Every way labels the same generated files, on the CPU, in a process of its own. The ways take
turns, and medians are compared, because machines are noisy. "Work" does not include the start of a
process, which "start" shows. The results are also written as JSON to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from audioset_core.system import n_cores
from benchmarks.corpora import CORPORA, Corpus, default_folder, files_of
from benchmarks.processes import ROOT, Outcome, must_run, run_python
from benchmarks.ways import PIPELINE, WAYS, Way

RESULTS = ROOT / "benchmarks" / "results"
HOPS_S = (0.48, 0.96)
_QUICK_FILES = {"short": 120, "long": 0}
_QUICK_FILES_OF_OTHERS = 2
_STAGE_FILES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--repeats", type=int, default=1, help="medians of so many rounds")
    parser.add_argument("--corpora", nargs="*", choices=CORPORA, default=list(CORPORA))
    parser.add_argument("--files", type=int, help="of every corpus, instead of the usual number")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--hops", nargs="*", type=float, choices=HOPS_S, default=list(HOPS_S))
    parser.add_argument("--folder", type=Path, default=default_folder())
    parser.add_argument("--no-results", action="store_true", help="keep no JSON")
    options = parser.parse_args()
    tables = []
    for name in options.corpora:
        corpus = CORPORA[name]
        n_files = options.files or _n_files(corpus, full=options.full)
        if not n_files:
            continue
        files = files_of(corpus, n_files, options.folder)
        for hop_s in options.hops:
            ways = [WAYS[way] for way in options.ways if hop_s in WAYS[way].hops_s]
            tables.append(compare(corpus, files, hop_s, ways, options.repeats))
            show(tables[-1])
    if not options.no_results:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{time.strftime('%Y-%m-%d-%H%M')}.json"
        path.write_text(json.dumps({"machine": machine(), "tables": tables}, indent=1) + "\n")
        print(f"\n{path.relative_to(ROOT)}")


def _n_files(corpus: Corpus, *, full: bool) -> int:
    return corpus.n_files if full else _QUICK_FILES.get(corpus.name, _QUICK_FILES_OF_OTHERS)


def compare(
    corpus: Corpus, files: list[Path], hop_s: float, ways: list[Way], repeats: int
) -> dict[str, Any]:
    """Everything about one corpus at one hop."""
    audio_s = len(files) * corpus.length_s
    names = list(map(str, files))
    n_of = {way.name: max(1, int(min(audio_s, way.enough_s) / corpus.length_s)) for way in ways}
    hop = ["--hop", str(hop_s)]
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    stages: list[dict[str, Any]] = []
    for _ in range(repeats):
        some = names[: max(_STAGE_FILES, round(_STAGE_FILES * 300 / corpus.length_s))]
        stages.append(must_run(["-m", "benchmarks.stages", *hop, *some]).said)
        for way in ways:
            arguments = ["-m", way.module, *hop, *way.arguments, *names[: n_of[way.name]]]
            outcomes[way.name].append(run_python(arguments, environment=way.environment))
    rows = {way.name: _row(outcomes[way.name], n_of[way.name] * corpus.length_s) for way in ways}
    return {
        "corpus": corpus.name,
        "title": f"{len(files):,} x {corpus.title}, 44.1 kHz stereo",
        "hop_s": hop_s,
        "audio_s": audio_s,
        "rows": rows,
        "bound": statistics.median(stage["bound"] for stage in stages),
        "gflops": statistics.median(stage["gflops"] for stage in stages),
        "stages": {
            stage: statistics.median(measured["per_hour"].get(stage, 0.0) for measured in stages)
            for stage in stages[0]["per_hour"]
        },
    }


def _row(outcomes: list[Outcome], audio_s: float) -> dict[str, Any]:
    problem = next((outcome.error for outcome in outcomes if outcome.error), "")
    missing = next((o.said["missing"] for o in outcomes if "missing" in o.said), "")
    if problem or missing:
        return {"problem": problem or f"{missing} is not installed"}
    work_s = statistics.median(outcome.said["work_s"] for outcome in outcomes)
    return {
        "work_s": work_s,
        "start_s": statistics.median(o.wall_s - o.said["work_s"] for o in outcomes),
        "times_real": audio_s / work_s,
        "peak_mb": max(outcome.peak_mb for outcome in outcomes),
        "n_patches": outcomes[0].said["n_patches"],
    }


def show(table: dict[str, Any]) -> None:
    """Print one corpus at one hop."""
    rows, bound = table["rows"], table["bound"]
    print(f"\n{table['title']}; a score every {table['hop_s']} s")
    print(f"{'':40}{'x real time':>12}{'of bound':>10}{'ours is':>10}{'start s':>9}{'peak MB':>9}")
    ours = rows.get(PIPELINE, {}).get("times_real")
    for name, row in rows.items():
        title = WAYS[name].title
        if "problem" in row:
            print(f"{title:40}  left out: {row['problem'].splitlines()[-1][:80]}")
            continue
        ratio = f"{ours / row['times_real']:.2f} x" if ours and name != PIPELINE else ""
        print(
            f"{title:40}{row['times_real']:12.0f}{row['times_real'] / bound:10.0%}{ratio:>10}"
            f"{row['start_s']:9.1f}{row['peak_mb']:9.0f}"
        )
    print(f"{'this machine (bound)':40}{bound:12.0f}      {table['gflops']:.0f} GFLOP/s")
    costs = ", ".join(f"{stage} {cost:.2f}" for stage, cost in table["stages"].items())
    print(f"seconds of one core per hour: {costs}", flush=True)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = named[0].partition(":")[2].strip() if named else ""
    return {
        "cpu": model,
        "cores": n_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "day": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    main()
