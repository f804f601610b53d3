"""Log-mel patches to logits and embeddings, in batches of one fixed size filled across clips.

The fixed size, the model bundle's, matters twice: it is the fastest on a CPU (YAMNet's 32
patches stay in cache), and since every batch has the same shape, a clip's results do not depend
on its neighbours. On a CPU every core takes batches of its own, each computed by one thread: sums
are then split the same way on any number of cores, and results are equal to the bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from threading import Lock
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from audioset_core.bundle import ModelBundle, find_bundle
from audioset_core.errors import UserError, WeightsError
from audioset_core.frontend import FrontendConfig, patches
from audioset_core.reader import LogMelPiece
from audioset_core.weights import ReadyWeights

if TYPE_CHECKING:
    import torch

F32 = NDArray[np.float32]
Device = Literal["auto", "cpu", "cuda"]


class Cancelled(Exception):  # noqa: N818 (not an error: somebody asked to stop)
    """Scoring stopped because the caller asked for it."""


@dataclass(frozen=True, slots=True)
class Output:
    """What the network says of one piece.

    Shape:
        logits ``[n_patches, n_classes]``, before the sigmoid; None without a classifier head.
        embeddings ``[n_patches, embedding_dim]``; None unless asked for. Both float32.
    """

    logits: F32 | None
    embeddings: F32 | None

    def take(self, row: int, outputs: Output, span: slice) -> None:
        """Copy rows of a batch's outputs to here."""
        for mine, batch in ((self.logits, outputs.logits), (self.embeddings, outputs.embeddings)):
            if mine is not None and batch is not None:
                mine[row : row + span.stop - span.start] = batch[span]


_SETTING_THREADS = Lock()

Span = tuple[Output, int, slice]
"""A result, its first row, and the rows of the batch that belong there."""


class Scorer:
    """A loaded network on a device; callers in several threads take turns.

    All work is done in threads of its own: the C library keeps the memory that a thread has
    used, and a dozen threads that each ran the network once would keep it a dozen times.
    """

    def __init__(self, bundle: ModelBundle, weights: ReadyWeights, *, device: Device) -> None:
        """Load the weights.

        Raises:
            UserError: no such device.
            WeightsError: the file is damaged.
        """
        import torch

        self.device = resolve_device(device)
        bundle = bundle if weights.has_scores else find_bundle(bundle.name, has_scores=False)
        self.bundle = bundle
        self.n_classes = len(bundle.categories)
        model = bundle.build()
        _load(model, weights)
        self._model = model.eval().for_inference().to(self.device)  # type: ignore[operator]
        on_gpu = self.device.type == "cuda"
        self._batch_patches = bundle.cuda_batch_patches if on_gpu else bundle.cpu_batch_patches
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scorer")
        self._n_batches = 1 if on_gpu else max(1, torch.get_num_threads())
        self._batches = ThreadPoolExecutor(
            max_workers=self._n_batches,
            thread_name_prefix="batch",
            initializer=None if on_gpu else partial(_keep_to_one_core, torch.get_num_threads()),
        )
        self._patch_shape = (bundle.frontend.patch_frames, bundle.frontend.n_mels)

    def score(
        self,
        pieces: Sequence[LogMelPiece],
        config: FrontendConfig,
        *,
        should_stop: Callable[[], bool] = bool,
    ) -> list[F32]:
        """Logits of every piece, as `run`.

        Raises:
            UserError: the weights have no classifier head.
            Cancelled: ``should_stop`` said so between two batches.
        """
        if not self.bundle.has_scores:
            raise UserError(
                f"these {self.bundle.name} weights have no classifier head: they give embeddings "
                f"only. For scores, get {self.bundle.weights_hint}"
            )
        outputs = self.run(pieces, config, should_stop=should_stop)
        return [output.logits for output in outputs if output.logits is not None]

    def run(
        self,
        pieces: Sequence[LogMelPiece],
        config: FrontendConfig,
        *,
        should_stop: Callable[[], bool] = bool,
        embeddings: bool = False,
    ) -> list[Output]:
        """Logits, and on request embeddings, of every piece.

        Raises:
            Cancelled: ``should_stop`` said so between two batches.
        """
        return self._thread.submit(self._run, pieces, config, should_stop, embeddings).result()

    def _run(
        self,
        pieces: Sequence[LogMelPiece],
        config: FrontendConfig,
        should_stop: Callable[[], bool],
        embeddings: bool,
    ) -> list[Output]:
        results = [self._room(piece.n_patches, embeddings) for piece in pieces]
        window = _Window(self._n_batches)
        try:
            for batch, spans in self._fill(pieces, results, config):
                if should_stop():
                    raise Cancelled
                window.add(self._batches.submit(self._forward, batch, spans, embeddings))
        finally:
            window.drain()
        return results

    def _fill(
        self, pieces: Sequence[LogMelPiece], results: list[Output], config: FrontendConfig
    ) -> Iterator[tuple[F32, list[Span]]]:
        """Full batches, the last one filled up with zeros, and what is in them."""
        # As many as are computed at once, and the one that is being filled.
        shape = (self._n_batches + 1, self._batch_patches, *self._patch_shape)
        buffers = cycle(np.zeros(shape, np.float32))
        batch, spans, filled = next(buffers), list[Span](), 0
        for piece, result in zip(pieces, results, strict=True):
            views = patches(piece.frames, config)
            row = 0
            while row < piece.n_patches:
                count = min(piece.n_patches - row, self._batch_patches - filled)
                batch[filled : filled + count] = views[row : row + count]
                spans.append((result, row, slice(filled, filled + count)))
                row += count
                filled += count
                if filled == self._batch_patches:
                    yield batch, spans
                    batch, spans, filled = next(buffers), [], 0
        if filled:
            batch[filled:] = 0.0
            yield batch, spans

    def _room(self, n_patches: int, embeddings: bool) -> Output:
        def room(width: int) -> F32:
            return np.empty((n_patches, width), np.float32)

        return Output(
            room(self.n_classes) if self.bundle.has_scores else None,
            room(self.bundle.embedding_dim) if embeddings else None,
        )

    def _forward(self, batch: F32, spans: list[Span], embeddings: bool) -> None:
        import torch

        # cuDNN would convolve in TF32, which moves scores by more than the reference allows.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            logits, embedded = self._model(torch.from_numpy(batch).to(self.device))
        outputs = Output(_on_host(logits), _on_host(embedded) if embeddings else None)
        for result, row, span in spans:
            result.take(row, outputs, span)


class _Window:
    """Batches under way, oldest first; adding one waits while as many as allowed are."""

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


def _keep_to_one_core(elsewhere: int) -> None:
    """Have torch use one thread where this thread calls it, and as many as before elsewhere."""
    import torch

    with _SETTING_THREADS:
        torch.set_num_threads(1)
        torch.get_num_threads()  # or this thread would take the number below at its first sum
        # Threads that call torch for the first time later on would get one as well.
        with ThreadPoolExecutor(max_workers=1) as other:
            other.submit(torch.set_num_threads, elsewhere).result()


def resolve_device(device: Device) -> torch.device:
    """The torch device; ``auto`` is CUDA where there is one.

    Raises:
        UserError: CUDA was asked for and there is none.
    """
    import torch

    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise UserError("--device cuda: no CUDA device is usable here; use --device cpu or auto")
    return torch.device("cuda" if has_cuda and device != "cpu" else "cpu")


def _load(model: torch.nn.Module, weights: ReadyWeights) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        model.load_state_dict(load_file(weights.path))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"{weights.path} is damaged: delete it and run again, or convert it anew"
        ) from error


def _on_host(tensor: torch.Tensor | None) -> F32 | None:
    return None if tensor is None else tensor.float().cpu().numpy()
