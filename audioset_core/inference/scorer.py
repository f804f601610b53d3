"""Log-mel patches to logits and embeddings, in batches of one fixed size filled across clips.

The fixed size, the model bundle's, matters twice: it is the fastest on a CPU (YAMNet's 16
patches stay in cache), and since every batch has the same shape, a clip's results do not depend
on its neighbours. On a CPU every core takes batches of its own, each computed by one thread: sums
are then split the same way on any number of cores, and results are equal to the bit. On a GPU,
which computes log-mel too, they are equal but for roundings.

Two things are spared, neither of which changes a bit: a patch that equals an earlier one has its
results (`repeats`), and a batch of consecutive patches of one clip may share layers (`Network`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from audioset_core.arrays import F32
from audioset_core.errors import UserError
from audioset_core.features.config import FrontendConfig
from audioset_core.features.log_mel import patches
from audioset_core.features.patch_reader import LogMelPiece, Piece
from audioset_core.inference.engines import open_network
from audioset_core.inference.interface import AUTO, ComputeOptions, Forward
from audioset_core.inference.repeats import Repeats
from audioset_core.models.registry import ModelBundle, find_bundle
from audioset_core.weights.locate import ReadyWeights


class Cancelled(Exception):  # noqa: N818 (not an error: somebody asked to stop)
    """Scoring stopped because the caller asked for it."""


@dataclass(frozen=True, slots=True)
class Output:
    """What the network computes for one piece.

    Shape:
        logits ``[n_steps, n_classes]``, before the sigmoid; None without a classifier head.
        embeddings ``[n_steps, embedding_dim]``; None unless asked for. Both float32. A step is
        a patch, unless the network scores parts of it (`FrontendConfig.steps_per_patch`).
    """

    logits: F32 | None
    embeddings: F32 | None

    def take(self, patch: int, outputs: Output, span: slice) -> None:
        """Copy a batch's outputs of some patches to here, but for steps beyond the clip's end."""
        for mine, batch in ((self.logits, outputs.logits), (self.embeddings, outputs.embeddings)):
            if mine is not None and batch is not None:
                steps = batch[span].reshape(-1, mine.shape[1])
                room = mine[patch * len(steps) // (span.stop - span.start) :]
                room[: len(steps)] = steps[: len(room)]

    def repeat(self, patch: int, other: Output, first: int, n_steps: int) -> None:
        """Copy the result of an equal patch, ``first`` of the other piece, to here."""
        for mine, theirs in ((self.logits, other.logits), (self.embeddings, other.embeddings)):
            if mine is not None and theirs is not None:
                room = mine[patch * n_steps : (patch + 1) * n_steps]
                room[:] = theirs[first * n_steps :][: len(room)]


Span = tuple[Output, int, slice]
"""A result, its first patch, and the patches of the batch that belong there."""
Batch = tuple[Forward, Any, list[Span]]
"""What computes it, its input, and where the results belong."""
Place = tuple[Output, int]
"""A result, and a patch of it."""


class Scorer:
    """A loaded network on a device; callers in several threads take turns.

    All work is done in threads of its own: the C library keeps the memory that a thread has
    used, and a dozen threads that each ran the network once would keep it a dozen times.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        weights: ReadyWeights,
        compute: ComputeOptions = AUTO,
        *,
        n_lanes: int | None = None,
    ) -> None:
        """Load the weights; the arguments are those of `inference.engines.open_network`.

        Raises:
            UserError: no such device, engine or precision here.
            WeightsError: the file is damaged.
        """
        bundle = bundle if weights.has_scores else find_bundle(bundle.name, has_scores=False)
        self.bundle = bundle
        self.n_classes = len(bundle.categories)
        self.network = open_network(bundle, weights, compute, n_lanes=n_lanes)
        self._thread = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="scorer", initializer=self.network.enter_lane
        )
        self._batches = ThreadPoolExecutor(
            max_workers=self.network.n_lanes,
            thread_name_prefix="batch",
            initializer=self.network.enter_lane,
        )

    def score(self, pieces: Sequence[Piece], config: FrontendConfig) -> list[F32]:
        """Logits of every piece, as `run`.

        Raises:
            UserError: the weights have no classifier head.
        """
        if not self.bundle.has_scores:
            raise UserError(
                f"these {self.bundle.name} weights have no classifier head: they give embeddings "
                f"only. For scores, get {self.bundle.weights_hint}"
            )
        outputs = self.run(pieces, config)
        return [output.logits for output in outputs if output.logits is not None]

    def run(
        self,
        pieces: Iterable[Piece],
        config: FrontendConfig,
        *,
        should_stop: Callable[[], bool] = bool,
        embeddings: bool = False,
    ) -> list[Output]:
        """Logits, and on request embeddings, of every piece; each is freed once in batches.

        Raises:
            Cancelled: ``should_stop`` said so between two batches.
        """
        return self._thread.submit(self._run, pieces, config, should_stop, embeddings).result()

    def _run(
        self,
        pieces: Iterable[Piece],
        config: FrontendConfig,
        should_stop: Callable[[], bool],
        embeddings: bool,
    ) -> list[Output]:
        results: list[Output] = []
        repeated: list[tuple[Place, Place]] = []
        window = _Window(self.network.n_lanes)
        try:
            for batch in self._fill(pieces, results, repeated, config, embeddings):
                if should_stop():
                    raise Cancelled
                window.add(self._batches.submit(self._forward, *batch, embeddings))
        finally:
            window.drain()
        for (result, row), (other, first) in repeated:
            result.repeat(row, other, first, config.steps_per_patch)
        return results

    def _fill(
        self,
        pieces: Iterable[Piece],
        results: list[Output],
        repeated: list[tuple[Place, Place]],
        config: FrontendConfig,
        embeddings: bool,
    ) -> Iterator[Batch]:
        """Full batches, the last one filled up with zeros.

        Every piece adds its result, still empty, to `results`; patches that are equal to others
        add their place, and the other's, to `repeated`.
        """
        # As many as are computed at once, and the one that is being filled.
        network, size, hop = self.network, self.network.batch_patches, config.patch_hop_frames
        buffers = cycle(network.batches(network.n_lanes + 1, config))
        batch, spans, filled = next(buffers), list[Span](), 0
        repeats = Repeats[Place]()
        for piece in pieces:
            n_steps = piece.n_patches * config.steps_per_patch - piece.n_padded_steps
            result = self._room(n_steps, embeddings)
            results.append(result)
            views, runs, sharing = network.patches(piece, config), [(0, piece.n_patches)], None
            if isinstance(piece, LogMelPiece):
                frames, sharing = piece.frames, network.sharing(config)
                n_whole = piece.n_patches - (piece.n_padded_steps > 0)
                known = _known(patches(frames, config)[:n_whole], result, repeats)
                repeated += [((result, row), place) for row, place in known.items()]
                runs = _runs(piece.n_patches, known)
            del piece  # on a CPU its frames live as long as the views
            for row, end in runs:
                while sharing and end - row >= size:
                    under = frames[row * hop : (row + size - 1) * hop + config.patch_frames]
                    yield sharing, under, [(result, row, slice(0, size))]
                    row += size
                while row < end:
                    count = min(end - row, size - filled)
                    batch[filled : filled + count] = views[row : row + count]
                    spans.append((result, row, slice(filled, filled + count)))
                    row += count
                    filled += count
                    if filled == size:
                        yield network.forward, batch, spans
                        batch, spans, filled = next(buffers), [], 0
        if filled:
            batch[filled:] = 0.0
            yield network.forward, batch, spans

    def _room(self, n_steps: int, embeddings: bool) -> Output:
        def room(width: int) -> F32:
            return np.empty((n_steps, width), np.float32)

        return Output(
            room(self.n_classes) if self.bundle.has_scores else None,
            room(self.bundle.embedding_dim) if embeddings else None,
        )

    def _forward(self, compute: Forward, batch: Any, spans: list[Span], embeddings: bool) -> None:
        logits, embedded = compute(batch)
        outputs = Output(logits, embedded if embeddings else None)
        for result, row, span in spans:
            result.take(row, outputs, span)


def _known(views: F32, result: Output, repeats: Repeats[Place]) -> dict[int, Place]:
    """The patches that are equal to earlier ones, and the places of those."""
    known = {}
    for row, patch in enumerate(views):
        own = (result, row)
        if (place := repeats.place_of(patch, own)) is not own:
            known[row] = place
    return known


def _runs(n_patches: int, left_out: Iterable[int]) -> list[tuple[int, int]]:
    """Consecutive patches without those that are left out, as (first, end)."""
    ends = [*left_out, n_patches]
    starts = [0, *(row + 1 for row in ends)]
    return [(start, end) for start, end in zip(starts, ends, strict=False) if start < end]


class _Window:
    """Batches in progress, oldest first. Adding one waits while the window is full."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._futures: deque[Future[None]] = deque()

    def add(self, future: Future[None]) -> None:
        self._futures.append(future)
        if len(self._futures) > self._size:
            self._futures.popleft().result()

    def drain(self) -> None:
        while self._futures:
            self._futures.popleft().result()
