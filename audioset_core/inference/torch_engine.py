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
_LAUNCHING = Lock()
_GPU_IS_FULL = "the GPU's memory is full: end other programs that use it, or use --device cpu"
_GPU_LANES = 2
"""The next batch is queued while the results of one are copied: the GPU does not wait."""


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
        self.n_lanes = _GPU_LANES if on_gpu else n_lanes or max(1, self._n_threads)

    def enter_lane(self) -> None:
        """One core per lane."""
        if self.device == "cpu":
            _keep_to_one_core(self._n_threads)

    def batches(self, count: int, config: FrontendConfig) -> Patches:
        """See `Network`."""
        shape = (count, self.batch_patches, config.patch_frames, config.n_mels)
        return self._with_room(lambda: torch.zeros(shape, dtype=torch.float32, device=self._device))

    def patches(self, piece: Piece, config: FrontendConfig) -> Patches:
        """See `Network`; on a GPU queued after earlier batches."""

        def queued() -> Tensor:
            with self._launching():
                return self._frontend.patches(piece, config)

        return self._with_room(queued)

    def forward(self, batch: Patches) -> tuple[F32 | None, F32]:
        """See `Network`; after a GPU's memory ran out, in smaller parts.

        Raises:
            UserError: the memory is too small even for one patch.
        """
        outputs, are_there = self._with_room(lambda: self._queued(batch))
        are_there()
        logits, embeddings = zip(*outputs, strict=True)
        found = [part.numpy() for part in logits if part is not None]
        return (
            np.concatenate(found) if found else None,
            np.concatenate([part.numpy() for part in embeddings]),
        )

    def sharing(self, config: FrontendConfig) -> Forward | None:
        """See `Network`: patches share nothing here."""

    def _queued(
        self, batch: Tensor
    ) -> tuple[list[tuple[Tensor | None, Tensor]], Callable[[], None]]:
        """The outputs of the batch's parts in the host's memory, and how to wait for them."""
        half = torch.autocast(self.device, torch.bfloat16, enabled=self._is_bf16)
        outputs = []
        with self._launching(), torch.inference_mode(), half:
            for part in torch.split(batch, self._at_once):
                logits, embeddings = self._model(part)
                outputs.append((None if logits is None else _to_host(logits), _to_host(embeddings)))
            if self.device == "cpu":
                return outputs, lambda: None
            # Waits without spinning, and for this batch only: the next one is queued meanwhile.
            copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            copied.record()
            return outputs, copied.synchronize

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

    def _launching(self) -> AbstractContextManager[None]:
        return _exact() if self.device == "cuda" else nullcontext()


@contextmanager
def _exact() -> Iterator[None]:
    """Exact float32 on a GPU. The settings are global, so one thread at a time.

    cuDNN and cuBLAS may compute in TF32, which moves scores by more than the reference allows.
    """
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with _LAUNCHING, exact:
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


def _to_host(output: Tensor) -> Tensor:
    """The output in the host's memory, float32; from a GPU after the queued work is done."""
    result = output.float()
    if not result.is_cuda:
        return result
    pinned = torch.empty(result.shape, dtype=torch.float32, pin_memory=True)
    return pinned.copy_(result, non_blocking=True)
