"""Log-mel patches to logits and embeddings, in batches of one fixed size filled across clips.

The fixed size, the model bundle's, matters twice: it is the fastest on a CPU (YAMNet's 32
patches stay in cache), and since every batch has the same shape, a clip's results do not depend
on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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


class Scorer:
    """A loaded network on a device; callers in several threads take turns.

    All work is done in one thread of its own: the C library keeps the memory that a thread has
    used, and a dozen threads that each ran the network once would keep it a dozen times.
    """

    def __init__(self, bundle: ModelBundle, weights: ReadyWeights, *, device: Device) -> None:
        """Load the weights.

        Raises:
            UserError: no such device.
            WeightsError: the file is damaged.
        """
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
        batch: F32 = np.zeros((self._batch_patches, *self._patch_shape), np.float32)
        # (result, its first row, rows of the batch) of what the batch holds
        spans: list[tuple[Output, int, slice]] = []
        filled = 0
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
                    self._flush(batch, spans, should_stop, embeddings)
                    filled = 0
        if filled:
            batch[filled:] = 0.0
            self._flush(batch, spans, should_stop, embeddings)
        return results

    def _room(self, n_patches: int, embeddings: bool) -> Output:
        def room(width: int) -> F32:
            return np.empty((n_patches, width), np.float32)

        return Output(
            room(self.n_classes) if self.bundle.has_scores else None,
            room(self.bundle.embedding_dim) if embeddings else None,
        )

    def _flush(
        self,
        batch: F32,
        spans: list[tuple[Output, int, slice]],
        should_stop: Callable[[], bool],
        embeddings: bool,
    ) -> None:
        import torch

        if should_stop():
            raise Cancelled
        # cuDNN would convolve in TF32, which moves scores by more than the reference allows.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            logits, embedded = self._model(torch.from_numpy(batch).to(self.device))
        outputs = Output(_on_host(logits), _on_host(embedded) if embeddings else None)
        for result, row, span in spans:
            result.take(row, outputs, span)
        spans.clear()


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
