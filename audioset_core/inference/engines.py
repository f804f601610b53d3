"""The engines that can run a network, behind one small interface.

``torch`` runs everywhere, on a CPU or a GPU. ``openvino`` runs on CPUs, about 1.7 times as fast
in the same float32 (benchmarks/README.md), and needs neither torch nor its 250 MB in the process
once a network has been translated. Both pass the same tests against Google's values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

from audioset_core.arrays import F32
from audioset_core.errors import UserError
from audioset_core.features.config import FrontendConfig
from audioset_core.features.patch_reader import Piece
from audioset_core.models.registry import ModelBundle
from audioset_core.weights.locate import ReadyWeights

Device = Literal["auto", "cpu", "cuda"]
EngineName = Literal["auto", "torch", "openvino"]
Precision = Literal["float32", "bf16"]
Patches = Any
"""``[n, patch_frames, n_mels]``, float32, where the network computes: a numpy array or a tensor."""

# Where the drivers of the GPUs that torch may use show: NVIDIA's, AMD's, Windows' own in WSL.
_GPU_NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


class Network(Protocol):
    """A loaded network, which computes batches of one fixed size."""

    device: str
    """``cpu`` or ``cuda``."""
    engine: str
    """``torch`` or ``openvino``."""
    batch_patches: int
    n_lanes: int
    """How many batches may be computed at once, by one thread each."""

    def enter_lane(self) -> None:
        """Called once in every thread that computes batches, before its first."""

    def batches(self, count: int, config: FrontendConfig) -> Patches:
        """Room for so many batches, zeros. Shape: ``[count, batch_patches, frames, mels]``."""

    def patches(self, piece: Piece, config: FrontendConfig) -> Patches:
        """Model inputs of a piece, overlapping: a view of its frames."""

    def forward(self, batch: Patches) -> tuple[F32 | None, F32]:
        """Compute a full batch.

        Shape:
            ``[batch_patches, patch_frames, n_mels]`` float32 -> logits ``[batch_patches,
            n_classes]`` (None without a classifier head), embeddings ``[batch_patches, dim]``,
            both float32.
        """


def open_network(
    bundle: ModelBundle,
    weights: ReadyWeights,
    *,
    device: Device = "auto",
    engine: EngineName = "auto",
    precision: Precision = "float32",
    n_lanes: int | None = None,
) -> Network:
    """Load a network into the engine that suits the device, or into the one that is named.

    Args:
        bundle: The model; of weights without a classifier head, the bundle without one.
        weights: Its converted weights.
        device: ``auto`` is a GPU where there is one.
        engine: ``auto`` is OpenVINO on a CPU, torch on a GPU.
        precision: ``bf16`` computes in bfloat16: faster where the hardware has it, and scores
            move by up to about 0.1.
        n_lanes: On a CPU, how many batches at once. None: one per core.

    Raises:
        UserError: no such device, an engine that does not go with the device, or a precision that
            the processor does not have.
        WeightsError: the weights are damaged.
    """
    if engine == "openvino" or (engine == "auto" and not _is_gpu(device)):
        if device == "cuda":
            raise UserError("--engine openvino runs on CPUs; use --engine torch with --device cuda")
        from audioset_core.inference.openvino_engine import OpenVinoNetwork

        return OpenVinoNetwork(bundle, weights, precision=precision, n_lanes=n_lanes)
    from audioset_core.inference.torch_engine import TorchNetwork

    return TorchNetwork(bundle, weights, device=device, precision=precision, n_lanes=n_lanes)


def takes_waveforms(config: FrontendConfig, device: Device, engine: EngineName) -> bool:
    """Whether `open_network` would give a network that takes waveforms: one on a GPU.

    There they are resampled and framed as well. The front end of PANNs, which mirrors a recording
    at its two ends, is computed on the CPU.
    """
    return config.family == "tensorflow" and engine != "openvino" and _is_gpu(device)


def _is_gpu(device: Device) -> bool:
    return device == "cuda" or (device == "auto" and _has_gpu())


def _has_gpu() -> bool:
    """Without importing torch, unless a driver is there to ask about."""
    if not any(Path(node).exists() for node in _GPU_NODES):
        return False
    import torch

    return torch.cuda.is_available()
