"""The index of ``audioset similar`` at scale: recall of ten neighbours, time of a question.

    python -m benchmarks.similar_scale --width 1024
    python -m benchmarks.similar_scale --vectors 10_000_000 --width 128 --folder /mnt/large

Vectors by chance, in clusters of which some are large; questions are vectors of the same kind that
are not in the index. Recall is the share of the ten exact neighbours (float32) among what `similar
--top 10` has the index propose; those it compares with SQL and with the stored files, which is not
measured here. The index is opened from disk, memory-mapped: first when its files were put out of
memory (where the system does so), then when most of them are in memory. At last vectors are added
to it. An index that is in the folder is not built again, and one that is not finished is continued.

`--graphs` asks copies of the first graph as well: the time that a question takes in so many times
as many vectors, without building them.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from audioset_core.storage.index_files import (
    About,
    described,
    graph_part,
    read_stored,
    write_stored,
)
from audioset_core.storage.vector_index import NOTHING, IndexWriter, VectorIndex, open_index

TOP = 10
ABOUT = About("by-chance@1", "none", "embeddings", "moments")
_SAVED_EVERY = 500_000
_N_ADDED = 10_000
_BLOCK = 20_000
_N_CLUSTERS = 2_000


class Clusters:
    """Vectors around centres; the k-th centre has a share of about 1/k, and a spread of its own."""

    def __init__(self, width: int, seed: int = 19) -> None:
        rng = np.random.default_rng(seed)
        self.width = width
        # As embeddings are: of far fewer directions than values.
        self.basis = rng.normal(0, 1, (64, width)).astype(np.float32) / 8
        self.centres = rng.normal(0, 1, (_N_CLUSTERS, 64)).astype(np.float32)
        self.spreads = rng.uniform(0.2, 0.8, _N_CLUSTERS).astype(np.float32)
        share = 1 / np.arange(1, _N_CLUSTERS + 1)
        self.shares = share / share.sum()

    def drawn(self, n: int, seed: int) -> np.ndarray:
        """[n, width] float32"""
        rng = np.random.default_rng((19, seed))
        of = rng.choice(_N_CLUSTERS, n, p=self.shares)
        inner = rng.normal(0, 1, (n, 64)).astype(np.float32) * self.spreads[of, None]
        noise = rng.normal(0, 0.05, (n, self.width)).astype(np.float32)
        return (self.centres[of] + inner) @ self.basis + noise

    def blocks(self, n: int, begin: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """(number of the first, vectors) until there are n."""
        for first in range(begin, n, _BLOCK):
            yield first, self.drawn(min(_BLOCK, n - first), first + 1)


def build(clusters: Clusters, n: int, folder: Path) -> None:
    """Make the index, and print what that costs without the drawing."""
    writer = IndexWriter.continuing(folder, ABOUT) or IndexWriter(folder, ABOUT, clusters.width)
    n_before = writer.n_vectors
    spent_s = cores_s = 0.0
    for first, vectors in clusters.blocks(n, n_before):
        began, began_cores = time.perf_counter(), time.process_time()
        writer.add(first, first, [(0, vectors)])
        if not (first + len(vectors)) % _SAVED_EVERY or first + len(vectors) == n:
            stored = writer.save(NOTHING, datetime.now(UTC))
        spent_s += time.perf_counter() - began
        cores_s += time.process_time() - began_cores
        print(f"\r{first + len(vectors):,} vectors, {spent_s:,.0f} s", end="", flush=True)
    print(
        f"\rbuilt in {spent_s:,.0f} s: {(n - n_before) / cores_s:,.0f} vectors a second, a core; "
        f"{stored.size_bytes / 1e9:.2f} GB on disk in {len(stored.graphs)} graphs; at most "
        f"{_peak_gb():.1f} GB of memory"
    )


def add(clusters: Clusters, folder: Path) -> None:
    """Add a few vectors to the index, and print what that takes."""
    began = time.perf_counter()
    writer = IndexWriter.continuing(folder, ABOUT)
    assert writer is not None
    number = len(writer.members)
    writer.add(number, number, [(0, clusters.drawn(_N_ADDED, 2**40))])
    writer.save(NOTHING, datetime.now(UTC))
    print(f"{_N_ADDED:,} more are added in {time.perf_counter() - began:.1f} s")


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def exact(clusters: Clusters, n: int, queries: np.ndarray) -> tuple[np.ndarray, float]:
    """The numbers of the nearest [n_queries, TOP], and seconds of a question to all vectors."""
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    best = np.full((len(queries), TOP), -np.inf, np.float32)
    which = np.zeros((len(queries), TOP), np.int64)
    spent_s = 0.0
    for first, vectors in clusters.blocks(n):
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        began = time.perf_counter()
        _ = vectors @ unit[0]
        spent_s += time.perf_counter() - began
        cosines = np.concatenate([best, unit @ vectors.T], axis=1)
        numbers = np.broadcast_to(np.arange(first, first + len(vectors)), (len(unit), len(vectors)))
        numbers = np.concatenate([which, numbers], axis=1)
        kept = np.argpartition(-cosines, TOP - 1, axis=1)[:, :TOP]
        best, which = (np.take_along_axis(x, kept, axis=1) for x in (cosines, numbers))
    return which, spent_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=1024, help="1024: YAMNet; 128: VGGish")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--graphs", type=int, default=1, help="Ask so many copies of the graph.")
    parser.add_argument("--folder", type=Path, help="Where the index is kept.")
    asked = parser.parse_args()
    clusters = Clusters(asked.width)
    queries = clusters.drawn(asked.questions, 0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        stored = read_stored(folder, ABOUT)
        if stored is None or stored.n_vectors < asked.vectors:
            build(clusters, asked.vectors, folder)
        wanted, exact_s = None, 0.0
        if asked.graphs > 1:
            copy_graph(folder, asked.graphs)
        else:
            wanted, exact_s = exact(clusters, asked.vectors, queries)
        _out_of_memory(folder)
        began = time.perf_counter()
        index = open_index(folder, ABOUT, asked.width)
        assert index is not None
        print(f"opened in {(time.perf_counter() - began) * 1e3:.1f} ms")
        ask(index, queries[:1], None, "the first question")
        ask(index, queries, wanted, "all questions, for the first time")
        median_s = ask(index, queries, wanted, "all questions again")
        if wanted is not None:
            print(f"by reading all vectors in memory: {exact_s / median_s:,.0f} times as fast")
            add(clusters, folder)


def copy_graph(folder: Path, n_graphs: int) -> None:
    """Make the index one of copies of its first graph."""
    stored = read_stored(folder, ABOUT)
    assert stored is not None
    path, files = stored.path(folder, graph_part(0)), dict(stored.files)
    for number in range(len(stored.graphs), n_graphs):
        copy = path.with_name(f"{ABOUT.stem}-copy{number}.graph")
        shutil.copyfile(path, copy)
        files[graph_part(number)] = described(copy)
    write_stored(folder, replace(stored, files=files))


def ask(index: VectorIndex, queries: np.ndarray, wanted: np.ndarray | None, what: str) -> float:
    """Print times, and recall where it is known what is wanted; returns the median in seconds."""
    spent, found, cores_s = [], [], 0.0
    for query in queries:
        began, began_cores = time.perf_counter(), time.process_time()
        # As `similar --top 10` asks: the cosines of these are computed again from files.
        found.append(index.search(query.astype(np.float64), 2 * TOP + 32))
        spent.append(time.perf_counter() - began)
        cores_s += time.process_time() - began_cores
    median_s, p95_s = np.quantile(spent, [0.5, 0.95])
    print(
        f"{what}: median {median_s * 1e3:.2f} ms, 95 % below {p95_s * 1e3:.2f} ms; "
        f"{cores_s / len(queries) * 1e3:.2f} ms of a core"
    )
    if wanted is not None:
        first_of = index.members["labelling"]
        hits = sum(
            len({int(first_of[each.member]) + each.patch for each in some} & set(right.tolist()))
            for some, right in zip(found, wanted, strict=True)
        )
        print(f"recall of {TOP}: {hits / (TOP * len(queries)):.4f}")
    return float(median_s)


def _out_of_memory(folder: Path) -> None:
    """Have the system forget what it holds of the files, where it takes that advice."""
    os.sync()
    for path in folder.iterdir() if hasattr(os, "posix_fadvise") else ():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
