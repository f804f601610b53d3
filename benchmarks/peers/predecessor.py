"""The predecessor's way on a CPU, re-stated: one file after the other, each whole in memory.

Channel mean, torchaudio's resampler made anew for every file, centred STFT of the whole, patches
every 0.96 s with the tail dropped, the network as trained (batch norms not folded, channels first)
in batches, logits as one ``.npy`` a file and one JSON at the end. Recordings above an hour are
cut into hours after they were read.

Source: https://github.com/w-hc/torch_audioset, torch_audioset/engine.py,
data/torch_input_processing.py and yamnet/model.py; its CUDA device is a CPU here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from audioset_core.models.registry import YAMNET
from audioset_core.models.yamnet import BATCH_NORM_EPS, EMBEDDING_DIM, N_CLASSES, SEPARABLE_LAYERS
from audioset_core.weights.locate import prepare as prepare_weights
from benchmarks.peers import protocol

_RATE_HZ, _FRAME_SAMPLES, _HOP_SAMPLES, _FFT_SAMPLES = 16_000, 400, 160, 512
_N_MELS, _MEL_MIN_HZ, _MEL_MAX_HZ, _LOG_OFFSET = 64, 125.0, 7500.0, 0.001
_PATCH_FRAMES, _HOP_S = 96, 0.96
_SEGMENT_S = 3600


class SlimConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding, done as the predecessor does it."""

    def forward(self, x: Tensor) -> Tensor:
        totals = [
            max(0, (-(-x.shape[axis + 2] // stride) - 1) * stride + kernel - x.shape[axis + 2])
            for axis, (stride, kernel) in enumerate(zip(self.stride, self.kernel_size, strict=True))
        ]
        if any(total % 2 for total in totals):
            x = functional.pad(x, [0, totals[1] % 2, 0, totals[0] % 2])
        padding = [total // 2 for total in totals]
        return functional.conv2d(x, self.weight, None, self.stride, padding, groups=self.groups)


def convolution(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> nn.Module:
    return nn.Sequential(
        SlimConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS),
        nn.ReLU(),
    )


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        inputs = 32
        layers = [convolution(1, inputs, 3, 2, 1)]
        for stride, outputs in SEPARABLE_LAYERS:
            layers.append(convolution(inputs, inputs, 3, stride, inputs))
            layers.append(convolution(inputs, outputs, 1, 1, 1))
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(EMBEDDING_DIM, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool2d(self.layers(x), 1)
        logits: Tensor = self.classifier(x.reshape(x.shape[0], -1))
        return logits

    def load(self, ours: dict[str, Tensor]) -> None:
        """Our weights, whose blocks come in the same order under other names."""
        blocks = ["layers.layer1"]
        for index in range(2, 2 + len(SEPARABLE_LAYERS)):
            blocks += [f"layers.layer{index}.{part}_conv" for part in ("depthwise", "pointwise")]
        state = {f"classifier.{name}": ours[f"classifier.{name}"] for name in ("weight", "bias")}
        for number, block in enumerate(blocks):
            state[f"layers.{number}.0.weight"] = ours[f"{block}.conv.weight"]
            for name in ("weight", "bias", "running_mean", "running_var"):
                state[f"layers.{number}.1.{name}"] = ours[f"{block}.bn.{name}"]
        missing = self.load_state_dict(state, strict=False).missing_keys
        assert all(name.endswith("num_batches_tracked") for name in missing), missing


class WaveformToInput:
    """Whole waveform ``[channels, samples]`` to patches ``[n, 1, 96, 64]``."""

    def __init__(self) -> None:
        from torchaudio import transforms

        self._resample: Any = transforms.Resample
        self._spectrogram = transforms.Spectrogram(_FFT_SAMPLES, _FRAME_SAMPLES, _HOP_SAMPLES)
        self._mel = transforms.MelScale(
            _N_MELS, _RATE_HZ, _MEL_MIN_HZ, _MEL_MAX_HZ, _FFT_SAMPLES // 2 + 1
        )

    def __call__(self, waveform: Tensor, rate_hz: int) -> Tensor:
        x = self._resample(rate_hz, _RATE_HZ)(waveform.mean(axis=0, keepdims=True))
        x = torch.log(self._mel(self._spectrogram(x) ** 0.5) + _LOG_OFFSET)
        frames = x.squeeze(dim=0).T
        n_patches = len(frames) // _PATCH_FRAMES
        used = frames[: n_patches * _PATCH_FRAMES]
        return used.reshape(n_patches, 1, _PATCH_FRAMES, _N_MELS)


def prepare(options: argparse.Namespace) -> protocol.Work:
    protocol.require_hop(options, _HOP_S)
    to_input = WaveformToInput()
    network = Network().eval()
    network.load(load_file(prepare_weights(YAMNET).path))

    def label(waveform: Tensor, rate_hz: int) -> Tensor:
        segments = waveform.split(_SEGMENT_S * rate_hz, dim=1)
        batches = [
            batch for part in segments for batch in to_input(part, rate_hz).split(options.batch)
        ]
        return torch.cat([network(batch) for batch in batches])

    def work(files: Sequence[Path]) -> int:
        predictions: list[dict[str, Any]] = []
        n_patches = 0
        with tempfile.TemporaryDirectory() as name, torch.inference_mode():
            for path in files:
                samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
                logits = label(torch.from_numpy(samples.T), rate_hz)
                np.save(Path(name) / f"{path.stem}.npy", logits.numpy())
                predictions.append({"id": path.stem, "per_chunk_length": _HOP_S, "meta": ""})
                n_patches += len(logits)
            (Path(name) / "audio_pred.json").write_text(json.dumps(predictions))
        return n_patches

    with torch.inference_mode():
        label(torch.zeros(2, 44_100 * 2), 44_100)
    return work


if __name__ == "__main__":
    arguments = protocol.parser(__doc__)
    arguments.add_argument("--batch", type=int, default=128)
    protocol.run(prepare, arguments.parse_args())
