"""Where the steps of the training keep what they make, and how many processes they use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Places:
    """Folders below the working folder of a training; each step fills its own."""

    work: Path

    @property
    def packages(self) -> Path:
        """The fetched packages, as they came."""
        return self.work / "packages"

    @property
    def sounds(self) -> Path:
        """Sound files, a folder for each package or program that they come from."""
        return self.work / "sounds"

    @property
    def frames(self) -> Path:
        """Log-mel frames, one `.npy` and one `.json` for each source."""
        return self.work / "frames"

    def mixtures(self, part: str) -> Path:
        """Mixtures with the teacher's logits, in shards; ``part`` is ``train`` or ``held-out``."""
        return self.work / "mixtures" / part

    @property
    def checkpoint(self) -> Path:
        """The state of the training, written every few minutes."""
        return self.work / "checkpoint.pt"

    @property
    def weights(self) -> Path:
        """The finished weights."""
        return self.work / "pocket.safetensors"
