"""How likely each 32 ms of a recording hold speech: Silero's network, in torch.

The weights come inside the package silero-vad, which is not imported: on import it sets the number
of torch's threads for the whole process. The network was taught on speech near a microphone: far
below full scale it hears nothing, so every moment is brought to one level first, by the power above
80 Hz in the four seconds around it. Its memory drifts in long recordings (silero-vad, issue 725),
so windows of 36 s begin anew, 5 s before they count.

Source: https://github.com/snakers4/silero-vad (MIT), src/silero_vad/tinygrad_model.py at 6.2.3
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soxr
import torch
from safetensors.torch import load
from scipy.ndimage import uniform_filter1d
from scipy.signal import butter, sosfilt
from torch import Tensor, nn

from audioset_core.arrays import F32, Floats
from audioset_core.errors import UserError

RATE_HZ, FRAME_SAMPLES = 16_000, 512
FRAME_S = FRAME_SAMPLES / RATE_HZ

_WINDOW_FRAMES, _EARLY_FRAMES, _LEVEL_FRAMES = 1_120, 160, 125
_LEVEL, _LEAST_LEVEL = 0.05, 1e-5
"""Root of the power that everything is brought to; below the second (-100 dB) there is silence."""
DETECTOR = "silero-vad 6.2.3"
_PACKAGE = DETECTOR.replace(" ", "==")
_SHA256 = "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1"
_RUMBLE = butter(4, 80, "highpass", fs=RATE_HZ, output="sos")
"""Below it are wind and offsets, which would set the level, and no voice."""
_CONTEXT_SAMPLES, _FFT_SAMPLES, _FFT_HOP_SAMPLES = 64, 256, 128
_N_BANDS, _WIDTH = _FFT_SAMPLES // 2 + 1, 128
_LAYERS = ((_N_BANDS, 128, 1), (128, 64, 2), (64, 64, 2), (64, _WIDTH, 1))
"""Channels before and after, and the stride, of the convolutions of width 3."""


class VoiceNetwork(nn.Module):
    """Silero VAD 6.2 for 16 kHz."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * _N_BANDS, _FFT_SAMPLES, _FFT_HOP_SAMPLES, bias=False)
        for number, (before, after, stride) in enumerate(_LAYERS, start=1):
            self.add_module(f"conv{number}", nn.Conv1d(before, after, 3, stride, padding=1))
        self.lstm_cell = nn.LSTM(_WIDTH, _WIDTH, batch_first=True)
        self.final_conv = nn.Conv1d(_WIDTH, 1, 1)

    def forward(self, samples: Tensor) -> Tensor:
        """Probabilities of speech, from silence as the state before.

        Shape: ``[n_streams, 64 + 512 n]`` -> ``[n_streams, n]``; the first 64 are context.
        """
        frames = samples.unfold(1, _CONTEXT_SAMPLES + FRAME_SAMPLES, FRAME_SAMPLES)
        n_streams, n_frames, _ = frames.shape
        x = frames.reshape(n_streams * n_frames, 1, -1)
        x = self.stft_conv(nn.functional.pad(x, (0, _CONTEXT_SAMPLES), "reflect"))
        x = torch.hypot(x[:, :_N_BANDS], x[:, _N_BANDS:])
        for number in range(1, len(_LAYERS) + 1):
            x = self.get_submodule(f"conv{number}")(x).relu()
        x, _ = self.lstm_cell(x.reshape(n_streams, n_frames, _WIDTH))
        x = self.final_conv(x.relu().transpose(1, 2))
        return torch.sigmoid(x[:, 0])


class VoiceDetector:
    """The probability of speech in each frame of one recording, from blocks of its samples.

    Each channel is heard on its own: speech in one of them is found whatever the others hold.
    """

    def __init__(self, rate_hz: int, n_channels: int) -> None:
        self._network = voice_network()
        self._stream = soxr.ResampleStream(
            rate_hz, RATE_HZ, n_channels, dtype="float32", quality="HQ"
        )
        self._n_channels = n_channels
        self._waiting = np.zeros((_CONTEXT_SAMPLES, n_channels), np.float32)
        self._state = np.zeros((len(_RUMBLE), 2, n_channels))
        self._n_early = 0

    def add(self, block: Floats) -> F32:
        """The frames that are complete with these samples. Shape: ``[n, n_channels]`` -> ``[m]``"""
        return self._frames(block.astype(np.float32), is_last=False)

    def end(self) -> F32:
        """The frames that are left, the last of them filled up with silence. Shape: ``[m]``"""
        return self._frames(np.zeros((0, self._n_channels), np.float32), is_last=True)

    def _frames(self, block: F32, *, is_last: bool) -> F32:
        heard = self._stream.resample_chunk(block, last=is_last)
        heard = heard.reshape(-1, self._n_channels)
        if len(heard):  # scipy takes no empty ones
            heard, self._state = sosfilt(_RUMBLE, heard, 0, self._state)
        self._waiting = np.concatenate([self._waiting, heard.astype(np.float32)])
        found = []
        while (n_frames := self._n_ready(is_last)) > self._n_early:
            size = _CONTEXT_SAMPLES + n_frames * FRAME_SAMPLES
            window = self._waiting[:size]
            window = levelled(np.pad(window, ((0, size - len(window)), (0, 0))))
            with torch.inference_mode(), _one_thread():
                likely = self._network(torch.from_numpy(np.ascontiguousarray(window.T)))
            found.append(likely.numpy().max(axis=0)[self._n_early :])
            self._n_early = min(_EARLY_FRAMES, n_frames)
            self._waiting = self._waiting[(n_frames - self._n_early) * FRAME_SAMPLES :]
        return np.concatenate([np.zeros(0, np.float32), *found])

    def _n_ready(self, is_last: bool) -> int:
        n_samples = len(self._waiting) - _CONTEXT_SAMPLES
        if is_last:
            return min(_WINDOW_FRAMES, -(-n_samples // FRAME_SAMPLES))
        return _WINDOW_FRAMES if n_samples >= _WINDOW_FRAMES * FRAME_SAMPLES else 0


def levelled(window: F32) -> F32:
    """The window with the same power everywhere, as far as 4 s show it, in each channel.

    Shape: ``[64 + 512 n, n_channels]`` -> the same
    """
    frames = window[_CONTEXT_SAMPLES:].reshape(-1, FRAME_SAMPLES, window.shape[1])
    power = np.einsum("fsc,fsc->fc", frames, frames, dtype=np.float64) / FRAME_SAMPLES
    level = np.sqrt(uniform_filter1d(power, _LEVEL_FRAMES, axis=0, mode="nearest"))
    gain = _LEVEL / np.maximum(level, _LEAST_LEVEL)
    middles = _CONTEXT_SAMPLES + (np.arange(len(gain)) + 0.5) * FRAME_SAMPLES
    places = np.arange(len(window))
    gains = [np.interp(places, middles, of_channel) for of_channel in gain.T]
    level_one: F32 = (window * np.stack(gains, axis=1)).astype(np.float32)
    return level_one


@contextmanager
def _one_thread() -> Iterator[None]:
    """Two threads are no faster for so small a network, and ten times slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def voice_network() -> VoiceNetwork:
    """The network with the weights of silero-vad.

    Raises:
        UserError: the package is not installed, or has other weights than those that were measured.
    """
    found = find_spec("silero_vad")
    folders = found.submodule_search_locations if found is not None else None
    if not folders:
        raise UserError("redact needs a voice detector: pip install 'audioset-flows[redact]'")
    return _network(Path(folders[0]) / "data" / "silero_vad_16k.safetensors")


@cache
def _network(path: Path) -> VoiceNetwork:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != _SHA256:
        raise UserError(
            "this version of silero-vad has other weights than those whose misses were measured: "
            f"pip install '{_PACKAGE}'"
        )
    network = VoiceNetwork().eval().requires_grad_(requires_grad=False)
    state = {
        f"{name}_l0" if name.startswith("lstm_cell") else name: value
        for name, value in load(data).items()
    }
    network.load_state_dict(state)
    return network
