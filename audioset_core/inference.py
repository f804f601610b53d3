"""Log-mel patches to logits, in batches of one fixed size filled across clips.

The fixed size matters twice: it is the fastest on a CPU (16 to 32 patches stay in cache), and
since every batch has the same shape, a clip's logits do not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from audioset_core.bundle import ModelBundle
from audioset_core.errors import UserError, WeightsError
from audioset_core.frontend import FrontendConfig, patches
from audioset_core.reader import LogMelPiece
from audioset_core.weights import ReadyWeights

if TYPE_CHECKING:
    import torch

F32 = NDArray[np.float32]
Device = Literal["auto", "cpu", "cuda"]

_BATCH_PATCHES = {"cpu": 32, "cuda": 512}


class Cancelled(Exception):  # noqa: N818 (not an error: somebody asked to stop)
    """Scoring stopped because the caller asked for it."""


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
        self.n_classes = len(bundle.categories)
        model = bundle.build()
        _load(model, weights)
        self._model = _for_inference(model.eval()).to(self.device)
        self._batch_patches = _BATCH_PATCHES[self.device.type]
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scorer")
        self._patch_shape = (bundle.frontend.patch_frames, bundle.frontend.n_mels)

    def score(
        self,
        pieces: Sequence[LogMelPiece],
        config: FrontendConfig,
        *,
        should_stop: Callable[[], bool] = bool,
    ) -> list[F32]:
        """Logits of every piece.

        Shape: each ``[n_patches, n_classes]``, float32, before the sigmoid.

        Raises:
            Cancelled: ``should_stop`` said so between two batches.
        """
        return self._thread.submit(self._score, pieces, config, should_stop).result()

    def _score(
        self,
        pieces: Sequence[LogMelPiece],
        config: FrontendConfig,
        should_stop: Callable[[], bool],
    ) -> list[F32]:
        results = [np.empty((piece.n_patches, self.n_classes), np.float32) for piece in pieces]
        batch: F32 = np.zeros((self._batch_patches, *self._patch_shape), np.float32)
        # (result, its first row, batch's first row, rows) of what the batch holds
        spans: list[tuple[F32, int, int, int]] = []
        filled = 0
        for piece, result in zip(pieces, results, strict=True):
            views = patches(piece.frames, config)
            row = 0
            while row < piece.n_patches:
                count = min(piece.n_patches - row, self._batch_patches - filled)
                batch[filled : filled + count] = views[row : row + count]
                spans.append((result, row, filled, count))
                row += count
                filled += count
                if filled == self._batch_patches:
                    self._flush(batch, spans, should_stop)
                    filled = 0
        if filled:
            batch[filled:] = 0.0
            self._flush(batch, spans, should_stop)
        return results

    def _flush(
        self, batch: F32, spans: list[tuple[F32, int, int, int]], should_stop: Callable[[], bool]
    ) -> None:
        import torch

        if should_stop():
            raise Cancelled
        # cuDNN would convolve in TF32, which moves scores by more than the reference allows.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            logits, _ = self._model(torch.from_numpy(batch).to(self.device))
        rows = logits.float().cpu().numpy()
        for result, row, start, count in spans:
            result[row : row + count] = rows[start : start + count]
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


def _for_inference(model: torch.nn.Module) -> torch.nn.Module:
    from audioset_core.yamnet import YAMNet, fold_batch_norm

    return fold_batch_norm(model) if isinstance(model, YAMNet) else model
