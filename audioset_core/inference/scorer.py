"""Log-mel patches to logits and embeddings, in batches of one fixed size filled across clips.

The fixed size, the model bundle's, matters twice: it is the fastest on a CPU (YAMNet's 16
patches stay in cache), and since every batch has the same shape, a clip's results do not depend
on its neighbours. On a CPU every core takes batches of its own, each computed by one thread: sums
are then split the same way on any number of cores, and results are equal to the bit. On a GPU,
which computes log-mel too, they are equal but for roundings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from audioset_core.arrays import F32
from audioset_core.errors import UserError
from audioset_core.features.config import FrontendConfig
from audioset_core.features.patch_reader import Piece
from audioset_core.inference.engines import open_network
from audioset_core.inference.interface import AUTO, ComputeOptions, Patches
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


Span = tuple[Output, int, slice]
"""A result, its first patch, and the patches of the batch that belong there."""


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
        window = _Window(self.network.n_lanes)
        try:
            for batch, spans in self._fill(pieces, results, config, embeddings):
                if should_stop():
                    raise Cancelled
                window.add(self._batches.submit(self._forward, batch, spans, embeddings))
        finally:
            window.drain()
        return results

    def _fill(
        self,
        pieces: Iterable[Piece],
        results: list[Output],
        config: FrontendConfig,
        embeddings: bool,
    ) -> Iterator[tuple[Patches, list[Span]]]:
        """Full batches, the last one filled up with zeros, and what is in them.

        Every piece adds its result, still empty, to `results`.
        """
        # As many as are computed at once, and the one that is being filled.
        size = self.network.batch_patches
        buffers = cycle(self.network.batches(self.network.n_lanes + 1, config))
        batch, spans, filled = next(buffers), list[Span](), 0
        for piece in pieces:
            n_steps = piece.n_patches * config.steps_per_patch - piece.n_padded_steps
            result = self._room(n_steps, embeddings)
            results.append(result)
            views, n_patches = self.network.patches(piece, config), piece.n_patches
            del piece  # on a CPU its frames live as long as the views
            row = 0
            while row < n_patches:
                count = min(n_patches - row, size - filled)
                batch[filled : filled + count] = views[row : row + count]
                spans.append((result, row, slice(filled, filled + count)))
                row += count
                filled += count
                if filled == size:
                    yield batch, spans
                    batch, spans, filled = next(buffers), [], 0
        if filled:
            batch[filled:] = 0.0
            yield batch, spans

    def _room(self, n_steps: int, embeddings: bool) -> Output:
        def room(width: int) -> F32:
            return np.empty((n_steps, width), np.float32)

        return Output(
            room(self.n_classes) if self.bundle.has_scores else None,
            room(self.bundle.embedding_dim) if embeddings else None,
        )

    def _forward(self, batch: Patches, spans: list[Span], embeddings: bool) -> None:
        logits, embedded = self.network.forward(batch)
        outputs = Output(logits, embedded if embeddings else None)
        for result, row, span in spans:
            result.take(row, outputs, span)


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
