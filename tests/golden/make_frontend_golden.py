"""Cut `frontend.npz` out of the reference's output, so that numeric tests need no other file.

Usage: python tests/golden/make_frontend_golden.py yamnet_golden.npz vggish_golden.npz

The waveforms are formulas (`waveforms` below gives them to the bit), the figures are those of
Google's TensorFlow code on them. Every sixth log-mel frame is kept, and VGGish's every 24th.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

EVERY, EVERY_VGGISH = 6, 24


def waveforms() -> dict[str, NDArray[np.float32]]:
    """The synthetic waveforms of the golden vectors, 16 kHz."""
    t = np.arange(80_000) / 16_000
    impulses = np.zeros(64_000)
    impulses[37::1601] = 1.0
    sounds = {
        "sine440": np.sin(2 * np.pi * 440 * t[:48_000]),
        "chirp": 0.5 * np.sin(2 * np.pi * (50 * t + 0.5 * 1570 * t**2)),
        "noise": 0.1 * np.random.default_rng(0).standard_normal(48_000),
        "silence": np.zeros(32_000),
        "impulses": impulses,
        "short": 0.8 * np.sin(2 * np.pi * 1000 * t[:4_800]) * np.exp(-8 * t[:4_800]),
    }
    return {name: sound.astype(np.float32) for name, sound in sounds.items()}


def main(yamnet_path: str, vggish_path: str) -> None:
    yamnet, vggish = np.load(yamnet_path), np.load(vggish_path)
    kept = {"mel_matrix": yamnet["mel_matrix"]}
    for name, waveform in waveforms().items():
        # A library's sine may differ in the last bit.
        np.testing.assert_allclose(waveform, yamnet[f"{name}/waveform"], rtol=0, atol=1e-7)
        kept[f"{name}/log_mel"] = yamnet[f"{name}/log_mel"][::EVERY]
        kept[f"{name}/padded_num_samples"] = yamnet[f"{name}/padded_num_samples"]
        examples = vggish[f"{name}/examples"]
        kept[f"{name}/vggish"] = examples.reshape(-1, 64)[::EVERY_VGGISH]
        kept[f"{name}/num_frames"] = vggish[f"{name}/num_frames"]
    np.savez_compressed(Path(__file__).with_name("frontend.npz"), **kept)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
