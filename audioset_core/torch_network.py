"""The engine ``torch``: networks on a CPU, each core computing batches of its own, or on a GPU."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from audioset_core.bundle import ModelBundle
from audioset_core.errors import UserError, WeightsError
from audioset_core.frontend import FrontendConfig
from audioset_core.networks import F32, Device, Patches, Precision
from audioset_core.reader import Piece
from audioset_core.torch_frontend import TorchFrontend
from audioset_core.weights import ReadyWeights

logger = logging.getLogger(__name__)

_SETTING_THREADS = Lock()
_GPU_IS_FULL = "the GPU's memory is full: end what else uses it, or use --device cpu"
_GPU_LANES = 2
"""The next batch is queued while the results of one are taken: the GPU does not wait."""


class TorchNetwork:
    """See `audioset_core.networks.Network`."""

    engine = "torch"

    def __init__(
        self,
        bundle: ModelBundle,
        weights: ReadyWeights,
        *,
        device: Device,
        precision: Precision = "float32",
        n_lanes: int | None = None,
    ) -> None:
        self._device = resolve_device(device)
        self.device = self._device.type
        self._is_bf16 = precision == "bf16"
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
        """As the interface says."""
        shape = (count, self.batch_patches, config.patch_frames, config.n_mels)
        return torch.zeros(shape, device=self._device)

    def patches(self, piece: Piece, config: FrontendConfig) -> Patches:
        """As the interface says; on a GPU computed while earlier batches are."""
        try:
            return self._frontend.patches(piece, config)
        except torch.OutOfMemoryError as error:
            raise UserError(_GPU_IS_FULL) from error

    def forward(self, batch: Patches) -> tuple[F32 | None, F32]:
        """As the interface says; where a GPU's memory runs out, in halves from then on.

        Raises:
            UserError: it does not even do for one patch.
        """
        while True:
            size = self._at_once
            try:
                parts = [self._computed(batch[at : at + size]) for at in range(0, len(batch), size)]
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise UserError(_GPU_IS_FULL) from error
                self._at_once = size // 2
                logger.warning("the GPU's memory is full: %d patches at once", self._at_once)
            else:
                break
            torch.cuda.empty_cache()  # only now is what failed let go
        logits = [logits for logits, _ in parts if logits is not None]
        return np.concatenate(logits) if logits else None, np.concatenate([e for _, e in parts])

    def _computed(self, batch: Tensor) -> tuple[F32 | None, F32]:
        # cuDNN would convolve in TF32, which moves scores by more than the reference allows.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        half = torch.autocast(self.device, torch.bfloat16, enabled=self._is_bf16)
        with torch.inference_mode(), exact, half:
            logits, embeddings = self._model(batch)
        return None if logits is None else _on_host(logits), _on_host(embeddings)


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
    faster: nn.Module = model.eval().for_inference()  # type: ignore[operator]
    return faster


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
    """Have torch use one thread where this thread calls it, and as many as before elsewhere."""
    with _SETTING_THREADS:
        torch.set_num_threads(1)
        torch.get_num_threads()  # or this thread would take the number below at its first sum
        # Threads that call torch for the first time later on would get one as well.
        with ThreadPoolExecutor(max_workers=1) as other:
            other.submit(torch.set_num_threads, elsewhere).result()


def _on_host(tensor: Tensor) -> F32:
    result = tensor.float()
    if result.is_cuda:
        # Wait for this batch alone, and asleep: the next one is queued already.
        pinned = torch.empty(result.shape, pin_memory=True)
        pinned.copy_(result, non_blocking=True)
        copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        copied.record()
        copied.synchronize()
        result = pinned
    host: F32 = result.numpy()
    return host
