"""A long run in one process: does anything grow that should not?

    .venv/bin/python -m benchmarks.soak                     (20,000 clips of 0.5 s)
    .venv/bin/python -m benchmarks.soak --clips 2000

The flow `label-audio` labels generated clips, each of another content, reporting to a Prefect
server beside it. Memory, descriptors and threads are looked at every half second, a shard's clips
when they are in the database. What a run needs at its start is no growth: the first quarter is
left out. The table goes to ``benchmarks/results/`` as JSON as well.

Measured on 2 cores, beside other work, 20,000 clips of 0.5 s with YAMNet (17 shards):

- Before memory was given back after each shard: 575 MB in the second quarter, 604 in the last, a
  slope of +4.0 MB in 1,000 clips, peak 633. What malloc had in use, in a run of its own, was 86 to
  147 MB without a trend, and as many Python objects: the rest were holes in glibc's heaps.
- With it: 452 and 365 MB, a slope of -6.1 MB, peak 492.
- Descriptors 35 and 34, threads 22 and 22, 1,370 bytes of SQLite and 1,170 of scores a clip.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.processes import call

if TYPE_CHECKING:
    from tasks.labelling.shards import Receipt
    from tasks.labelling.worklist import Discovery

RATE_HZ = 16_000
WARM_UP = 0.25
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Look:
    """What the process held at a moment."""

    at_s: float
    rss_mb: float
    n_descriptors: int
    n_threads: int


@dataclass(frozen=True, slots=True)
class Growth:
    """What became of a run; "early" is its second quarter, "late" its last.

    ``mb_per_1000_clips`` is the slope of the line through the memory after the warm-up.
    """

    n_clips: int
    wall_s: float
    rss_early_mb: float
    rss_late_mb: float
    rss_peak_mb: float
    mb_per_1000_clips: float
    descriptors_early: int
    descriptors_late: int
    threads_early: int
    threads_late: int
    early_s_per_1000_clips: float
    late_s_per_1000_clips: float
    rss_mb: tuple[float, ...]
    """Medians of each twentieth of the clips."""


@dataclass(slots=True)
class Watcher:
    """Listens to the flow, and looks at this process meanwhile."""

    looks: list[Look] = field(default_factory=list)
    stored: list[tuple[float, int]] = field(default_factory=list)
    """(when, clips in the database by then), from the first shard's begin on."""

    def begin(self, found: Discovery) -> None:
        """The work list is known."""
        del found
        self.stored.append((time.monotonic(), 0))

    def advance(self, receipt: Receipt) -> None:
        """A shard is in the database."""
        self.stored.append((time.monotonic(), self.stored[-1][1] + receipt.counts.n_labelled))

    @contextmanager
    def watching(self) -> Iterator[Watcher]:
        """Look at the process inside the block."""
        over = threading.Event()

        def look_on() -> None:
            while not over.wait(_LOOK_EVERY_S):
                self.looks.append(look())

        thread = threading.Thread(target=look_on, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join()


def look() -> Look:
    """This process's memory, descriptors and threads, from /proc."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return Look(
        at_s=time.monotonic(),
        rss_mb=int(status["VmRSS"].split()[0]) / 1024,
        n_descriptors=len(os.listdir("/proc/self/fd")),  # noqa: PTH208 (a number is all)
        n_threads=int(status["Threads"]),
    )


def growth(looks: Sequence[Look], stored: Sequence[tuple[float, int]]) -> Growth:
    """The figures of a run; clips between two shards are spread evenly over the time."""
    times_s, counts = np.array(stored, dtype=float).T
    n_clips = int(counts[-1])
    within = [x for x in looks if times_s[0] <= x.at_s <= times_s[-1]]
    done = np.interp([x.at_s for x in within], times_s, counts) / n_clips
    rss_mb = np.array([x.rss_mb for x in within])
    warm = done >= WARM_UP
    early = warm & (done < 2 * WARM_UP)
    late = done >= 1 - WARM_UP
    descriptors = np.array([x.n_descriptors for x in within])
    threads = np.array([x.n_threads for x in within])
    slope, _ = np.polyfit(done[warm] * n_clips / 1000, rss_mb[warm], 1)
    marks_s = np.interp(np.array([0.25, 0.5, 0.75, 1.0]) * n_clips, counts, times_s)
    return Growth(
        n_clips=n_clips,
        wall_s=float(times_s[-1] - times_s[0]),
        rss_early_mb=float(np.median(rss_mb[early])),
        rss_late_mb=float(np.median(rss_mb[late])),
        rss_peak_mb=float(rss_mb.max()),
        mb_per_1000_clips=float(slope),
        descriptors_early=int(descriptors[early].max()),
        descriptors_late=int(descriptors[late].max()),
        threads_early=int(threads[early].max()),
        threads_late=int(threads[late].max()),
        early_s_per_1000_clips=float(marks_s[1] - marks_s[0]) / n_clips * 4000,
        late_s_per_1000_clips=float(marks_s[3] - marks_s[2]) / n_clips * 4000,
        rss_mb=tuple(
            round(float(np.median(rss_mb[part])), 1)
            for part in (np.floor(done * 20) == number for number in range(20))
            if part.any()
        ),
    )


def make_clips(folder: Path | str, n_clips: int, length_s: float) -> None:
    """Noise in 16-bit WAV, a thousand files a folder; every file another."""
    import soundfile

    rng = np.random.default_rng(0)
    n_samples = round(length_s * RATE_HZ)
    noise = rng.integers(-8_000, 8_000, n_samples + n_clips, dtype=np.int16)
    for number in range(n_clips):
        path = Path(folder) / f"{number // 1000:03}" / f"{number:06}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise[number : number + n_samples], RATE_HZ)


def soak(corpus: Path, home: Path, weights: Path | None) -> tuple[Growth, dict[str, float]]:
    """Label the corpus into a fresh home; what grew, and bytes stored by the clip."""
    from benchmarks.orchestration import size_of
    from flows.label_audio import label_audio
    from flows.run_report.progress import listening
    from tasks.labelling.options import LabelOptions

    watcher = Watcher()
    with watcher.watching(), listening(watcher):
        summary = label_audio(paths=[str(corpus)], home=home, options=LabelOptions(weights=weights))
    scores_bytes = sum(path.stat().st_size for path in (home / "scores").rglob("*.npy"))
    return growth(watcher.looks, watcher.stored), {
        "database_bytes_per_clip": size_of(home / "labels.db") / summary.n_labelled,
        "scores_bytes_per_clip": scores_bytes / summary.n_labelled,
    }


def show(found: Growth, sizes: dict[str, float]) -> None:
    """Print the table."""
    rows = {
        "memory, MB": (found.rss_early_mb, found.rss_late_mb, ".0f"),
        "descriptors": (found.descriptors_early, found.descriptors_late, "d"),
        "threads": (found.threads_early, found.threads_late, "d"),
        "seconds for 1,000 clips": (
            found.early_s_per_1000_clips, found.late_s_per_1000_clips, ".2f"
        ),
    }  # fmt: skip
    print(f"{found.n_clips:,} clips in {found.wall_s:.0f} s; peak {found.rss_peak_mb:.0f} MB")
    print(f"{'':26}{'second quarter':>16}{'last quarter':>14}")
    for what, (early, late, style) in rows.items():
        print(f"{what:26}{early:16{style}}{late:14{style}}")
    print(f"memory grows by {found.mb_per_1000_clips:+.2f} MB in 1,000 clips")
    print(", ".join(f"{name.replace('_', ' ')} {size:,.0f}" for name, size in sizes.items()))


def main() -> None:
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"  # before Prefect is imported
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--length", type=float, default=0.5, help="seconds of a clip")
    parser.add_argument("--weights", type=Path, help="instead of YAMNet's official ones")
    parser.add_argument("--no-results", action="store_true", help="keep no JSON")
    options = parser.parse_args()

    from benchmarks.__main__ import RESULTS, machine
    from benchmarks.orchestration import prefect_server

    with tempfile.TemporaryDirectory() as name:
        corpus = Path(name) / "corpus"
        call("benchmarks.soak:make_clips", corpus, options.clips, options.length)
        with prefect_server(Path(name)):
            found, sizes = soak(corpus, Path(name) / "home", options.weights)
    show(found, sizes)
    if not options.no_results:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"soak-{time.strftime('%Y-%m-%d-%H%M')}.json"
        result: dict[str, Any] = {"machine": machine(), "length_s": options.length}
        path.write_text(json.dumps(result | {"soak": asdict(found)} | sizes, indent=1) + "\n")
        print(path.name)


if __name__ == "__main__":
    main()
