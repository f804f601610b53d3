"""Chooses the engine that runs a network.

``torch`` runs everywhere, on a CPU or a GPU. ``openvino`` runs on CPUs, about 1.7 times as fast
in the same float32 (benchmarks/README.md), and needs neither torch nor its 250 MB in the process
once a network has been translated. Both pass the same tests against Google's values.
"""

from __future__ import annotations

from pathlib import Path

from audioset_core.errors import UserError
from audioset_core.features.config import FrontendConfig
from audioset_core.inference.interface import AUTO, ComputeOptions, Device, Network
from audioset_core.models.registry import ModelBundle
from audioset_core.weights.locate import ReadyWeights

# Where the drivers of the GPUs that torch may use show: NVIDIA's, AMD's, Windows' own in WSL.
_GPU_NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def open_network(
    bundle: ModelBundle,
    weights: ReadyWeights,
    compute: ComputeOptions = AUTO,
    *,
    n_lanes: int | None = None,
) -> Network:
    """Load a network into the engine that suits the device, or into the one that is named.

    Args:
        bundle: The model; of weights without a classifier head, the bundle without one.
        weights: Its converted weights.
        compute: Device, engine and precision.
        n_lanes: On a CPU, how many batches at once. None: one per core.

    Raises:
        UserError: no such device, an engine that does not go with the device, or a precision that
            the processor does not have.
        WeightsError: the weights are damaged.
    """
    is_openvino_chosen = compute.engine == "auto" and not _is_gpu(compute.device)
    if compute.engine == "openvino" or is_openvino_chosen:
        if compute.device == "cuda":
            raise UserError("--engine openvino runs on CPUs; use --engine torch with --device cuda")
        from audioset_core.inference.openvino_engine import OpenVinoNetwork

        return OpenVinoNetwork(bundle, weights, compute, n_lanes=n_lanes)
    if compute.precision == "fast":
        raise UserError("--precision fast needs OpenVINO: add --engine openvino --device cpu")
    from audioset_core.inference.torch_engine import TorchNetwork

    return TorchNetwork(bundle, weights, compute, n_lanes=n_lanes)


def takes_waveforms(config: FrontendConfig, compute: ComputeOptions) -> bool:
    """Whether `open_network` would give a network that takes waveforms: one on a GPU.

    There they are resampled and framed as well. The front end of PANNs, which mirrors a recording
    at its two ends, is computed on the CPU.
    """
    return config.family == "tensorflow" and uses_gpu(compute)


def uses_gpu(compute: ComputeOptions) -> bool:
    """Whether `open_network` would compute on a GPU."""
    return compute.engine != "openvino" and _is_gpu(compute.device)


def _is_gpu(device: Device) -> bool:
    return device == "cuda" or (device == "auto" and _has_gpu())


def _has_gpu() -> bool:
    """Without importing torch, unless a driver is there to ask about."""
    if not any(Path(node).exists() for node in _GPU_NODES):
        return False
    import torch

    return torch.cuda.is_available()
