"""What every engine is asked for, and what a loaded network offers. Imports no numpy, no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from audioset_core.features.config import FrontendConfig
    from audioset_core.features.patch_reader import Piece

F32: TypeAlias = "NDArray[np.float32]"
Device = Literal["auto", "cpu", "cuda"]
EngineName = Literal["auto", "torch", "openvino"]
Precision = Literal["float32", "fast", "bf16"]
FAST_RECIPE = 1
"""Changes whenever scores of ``--precision fast`` do, so that no row mixes them with others."""
Patches = Any
"""``[n, patch_frames, n_mels]``, float32, where the network computes: a numpy array or a tensor."""

Forward = Callable[[Any], "tuple[F32 | None, F32]"]
"""From the input of a full batch to logits, None without a classifier head, and embeddings."""


@dataclass(frozen=True, slots=True)
class ComputeOptions:
    """Where, by what and how exactly a network is computed."""

    device: Device = "auto"
    """``auto`` is a GPU where there is one."""
    engine: EngineName = "auto"
    """``auto`` is OpenVINO on a CPU, torch on a GPU."""
    precision: Precision = "float32"
    """``bf16`` is faster where the hardware has it, and moves scores by up to about 0.2. ``fast``
    keeps the layers in float32 that lose most by it: OpenVINO only, models with `fast_layers`."""


AUTO = ComputeOptions()
"""The fastest on this machine, in full precision."""


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
            both float32; ``[batch_patches, steps_per_patch, ...]`` if a patch has several steps.
        """

    def sharing(self, config: FrontendConfig) -> Forward | None:
        """The same for consecutive patches, which computes once what they share: to the same bits.

        Shape:
            the frames under ``batch_patches`` patches, ``[n_frames, n_mels]`` float32, to what
            `forward` returns. None where nothing is shared, or is not yet worth it.
        """
