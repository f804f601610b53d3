"""The engine ``torch``: networks on a CPU, each core computing batches of its own, or on a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from audioset_core.arrays import F32
from audioset_core.errors import UserError, WeightsError
from audioset_core.features.config import FrontendConfig
from audioset_core.features.patch_reader import Piece
from audioset_core.features.torch_log_mel import TorchFrontend
from audioset_core.inference.interface import ComputeOptions, Device, Forward, Patches
from audioset_core.models.folding import fold_batch_norm
from audioset_core.models.registry import ModelBundle
from audioset_core.weights.locate import ReadyWeights

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SETTING_THREADS = Lock()
_COMPUTING = Lock()
_GPU_IS_FULL = "the GPU's memory is full: end other programs that use it, or use --device cpu"


class TorchNetwork:
    """See `audioset_core.inference.interface.Network`."""

    engine = "torch"

    def __init__(
        self,
        bundle: ModelBundle,
        weights: ReadyWeights,
        compute: ComputeOptions,
        *,
        n_lanes: int | None = None,
    ) -> None:
        self._device = resolve_device(compute.device)
        self.device = self._device.type
        self._is_bf16 = compute.precision == "bf16"
        self._model = load_network(bundle, weights).to(self._device)
        self._frontend = TorchFrontend(self._device)
        on_gpu = self.device == "cuda"
        self.batch_patches = bundle.cuda_batch_patches if on_gpu else bundle.cpu_batch_patches
        self._n_threads = torch.get_num_threads()
        self._at_once = self.batch_patches
        self.n_lanes = 1 if on_gpu else n_lanes or max(1, self._n_threads)

    def enter_lane(self) -> None:
        """One core per lane."""
        if self.device == "cpu":
            _keep_to_one_core(self._n_threads)

    def batches(self, count: int, config: FrontendConfig) -> Patches:
        """See `Network`."""
        shape = (count, self.batch_patches, config.patch_frames, config.n_mels)
        return self._with_room(lambda: torch.zeros(shape, dtype=torch.float32, device=self._device))

    def patches(self, piece: Piece, config: FrontendConfig) -> Patches:
        """See `Network`."""

        def computed() -> Tensor:
            with self._exact():
                return self._frontend.patches(piece, config)

        return self._with_room(computed)

    def forward(self, batch: Patches) -> tuple[F32 | None, F32]:
        """See `Network`; after a GPU's memory ran out, in smaller parts.

        Raises:
            UserError: the memory is too small even for one patch.
        """
        logits, embeddings = zip(*self._with_room(lambda: self._outputs(batch)), strict=True)
        found = [part for part in logits if part is not None]
        return np.concatenate(found) if found else None, np.concatenate(embeddings)

    def sharing(self, config: FrontendConfig) -> Forward | None:
        """See `Network`: patches share nothing here."""

    def _outputs(self, batch: Tensor) -> list[tuple[F32 | None, F32]]:
        """The outputs of the batch's parts, in the host's memory."""
        half = torch.autocast(self.device, torch.bfloat16, enabled=self._is_bf16)
        with self._exact(), torch.inference_mode(), half:
            return [
                (None if logits is None else _to_host(logits), _to_host(embeddings))
                for logits, embeddings in map(self._model, torch.split(batch, self._at_once))
            ]

    def _with_room(self, work: Callable[[], T]) -> T:
        """The result of the work; if memory runs out, again with half as many patches at once.

        Raises:
            UserError: the memory is too small even for one patch.
        """
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                if self._at_once == 1:
                    raise UserError(_GPU_IS_FULL) from error
                self._at_once //= 2
                logger.warning("the GPU's memory is full: %d patches at once", self._at_once)
            torch.cuda.empty_cache()  # only now are the failed arrays freed

    def _exact(self) -> AbstractContextManager[None]:
        return _exact() if self.device == "cuda" else nullcontext()


@contextmanager
def _exact() -> Iterator[None]:
    """Exact float32 on a GPU. The settings are global, so one thread at a time.

    cuDNN and cuBLAS may compute in TF32, which moves scores by more than the reference allows.
    """
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with _COMPUTING, exact:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


def load_network(bundle: ModelBundle, weights: ReadyWeights) -> nn.Module:
    """The network with its weights, in its form for inference, on the CPU.

    Raises:
        WeightsError: the file is damaged, or holds another network's weights.
    """
    model = bundle.build()
    try:
        model.load_state_dict(load_file(weights.path))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"{weights.path} is damaged: delete it and run again, or convert it anew"
        ) from error
    return fold_batch_norm(model.eval())


def resolve_device(device: Device) -> torch.device:
    """The torch device; ``auto`` is CUDA where there is one.

    Raises:
        UserError: CUDA was asked for and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise UserError("--device cuda: no CUDA device is usable here; use --device cpu or auto")
    return torch.device("cuda" if has_cuda and device != "cpu" else "cpu")


def _keep_to_one_core(elsewhere: int) -> None:
    """Let torch use one thread when called from this thread, and as many as before elsewhere."""
    with _SETTING_THREADS:
        torch.set_num_threads(1)
        torch.get_num_threads()  # otherwise this thread would use the number below
        # Otherwise threads that call torch for the first time later would also use one.
        with ThreadPoolExecutor(max_workers=1) as other:
            other.submit(torch.set_num_threads, elsewhere).result()


def _to_host(output: Tensor) -> F32:
    array: F32 = output.float().cpu().numpy()
    return array
