"""Weights and sounds by rule, as the golden vectors of the taggers were made with them.

Every array follows from its published name and shape, so that no weights file is needed.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audioset_core.models.registry import find_bundle

F32 = NDArray[np.float32]
_CLIPS = {"clip3": (3, 303), "clip10": (10, 1010), "clip25": (25, 2525)}
_MIXED_SPREAD = {"exp_conv": 0.22, "depth_conv": 0.50, "proj_conv": 0.25}
_Draw = NDArray[np.float64]


def weight(name: str, shape: tuple[int, ...]) -> F32:
    """The array of a published name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    last = name.rsplit(".", 1)[-1]
    constants = {"lambdas": [1, 1, 0.5, 0.5], "init_v": [1, 0, 0, 0]}
    if last in constants:
        return np.array(constants[last], np.float32)
    normal, uniform = rng.standard_normal(shape), rng.random(shape)
    in_decibels = name.startswith("init_bn.")
    rules: list[tuple[bool, Callable[[], _Draw]]] = [
        (last == "running_mean", lambda: -40 + 5 * normal if in_decibels else 0.2 * normal),
        (last == "running_var", lambda: (400 if in_decibels else 1) * (0.5 + uniform)),
        (last.endswith("pos_embed"), lambda: 0.5 * normal),
        (last == "bias", lambda: 0.2 * normal),
        (len(shape) == 1, lambda: 0.8 + 0.4 * uniform),
        (len(shape) == 4 and shape[:2] == (1, 1), lambda: _mixed(name, shape, normal)),
    ]
    made = next((make() for holds, make in rules if holds), None)
    if made is None:
        made = _gain(name, shape) / math.sqrt(math.prod(shape[1:])) * normal
    return made.astype(np.float32)


def write_published(model: str, path: Path) -> Path:
    """A file laid out as the model's published one, to be converted."""
    import torch

    layout = find_bundle(model).layouts()[0]
    shapes = {name: target.published_shape for name, target in layout.targets.items()}
    arrays = {name: weight(name, shape) for name, shape in (shapes | dict(layout.unused)).items()}
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    return path


def _mixed(name: str, shape: tuple[int, ...], normal: _Draw) -> _Draw:
    """Four kernels of a convolution that the context mixes."""
    made: _Draw = _MIXED_SPREAD[name.split(".")[-2]] * normal
    return made if "depth_conv" in name else made * (shape[3] / 4096) ** -0.25


def _gain(name: str, shape: tuple[int, ...]) -> float:
    if "coef_net" in name or "residuals" in name:
        return 4.0
    if len(shape) < 4:
        return 1.4
    return 1.34 if name.startswith("model.") else 1.22


def clip(name: str, rate_hz: int) -> F32:
    """A chirp, bursts of noise, a hum, and 0.4 s of digital silence, in steps of 16 bits."""
    seconds, seed = _CLIPS[name]
    n = seconds * rate_hz
    t = np.arange(n) / rate_hz
    noise = np.random.default_rng(seed).standard_normal(n)
    chirp = 0.3 * np.sin(2 * np.pi * (150 * t + 0.5 * (3000 / seconds) * t * t))
    bursts = 0.15 * noise * ((t * 1.7) % 1.0 < 0.35)
    hum = 0.05 * np.sign(np.sin(2 * np.pi * 110 * t)) * (t > seconds / 2)
    x = np.clip(chirp * (np.floor(t * 2) % 3 != 1) + bursts + hum, -0.99, 0.99)
    silence_at = 0.4 * seconds
    x[int(silence_at * rate_hz) : int((silence_at + 0.4) * rate_hz)] = 0
    return (np.rint(x * 32767) / 32768).astype(np.float32)


def given_mel(n_mels: int) -> F32:
    """Two model inputs, to try a network without its front end. Shape: ``[2, n_mels, 304]``."""
    rng = np.random.default_rng(n_mels)
    smooth = np.cumsum(rng.standard_normal((2, n_mels, 304)), axis=2) * 0.1
    level = rng.standard_normal((2, n_mels, 1))
    return (smooth - smooth.mean(axis=2, keepdims=True) + level).astype(np.float32)


def sampled(array: NDArray[Any], count: int = 256) -> NDArray[Any]:
    """Evenly spaced values of an array, which is all that a tap keeps."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat[np.linspace(0, flat.size - 1, min(count, flat.size)).astype(np.int64)]
