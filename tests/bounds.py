"""How far two computations of the same numbers may be apart, whatever the processor.

Processors and libraries add the same terms in another order and round in other places. A
tolerance read off one machine therefore fails on the next. Those here follow from the arithmetic.

The model. A rounding has a relative error of at most ``u`` (half a unit in the last place), of
either sign. Of many such errors the largest possible sum grows with their number ``n``, a
likely one with ``sqrt(n)``: a random walk (Higham and Mary, A New Approach to Probabilistic
Rounding Error Analysis, 2019). Every function here gives the standard deviation of that walk,
rounded up, for each value. `assert_rounding` allows ``LIMIT`` of them for a value, and one for the
mean over many: a tolerance in a number of roundings, the same for every test.

Worst cases instead (``n u``) would allow a network of 27 layers an error of more than its output.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import scipy.ndimage
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audioset_core.features.config import FrontendConfig
from audioset_core.features.log_mel import patches
from audioset_core.features.mel import hann_window
from audioset_core.features.polyphase import Polyphase, has_polyphase, polyphase

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

U32, U64 = 2.0**-24, 2.0**-53

LIMIT = 16.0
"""Standard deviations allowed for a single value.

Of a million independent errors the largest is 5. The roundings of a periodic sound repeat with its
period, so their noise may gather in a part of the spectrum's lines; 16 = 4 x 4 leaves 4 to chance
and lets it gather in 1 line of 16 (in power; a chirp is seen to reach 4).
"""
_ENOUGH_FOR_A_MEAN = 1_000


@dataclass(slots=True)
class Ratio:
    """The largest part of what is allowed that a test has seen used up."""

    largest: float = 0.0
    mean: float = 0.0


seen: dict[str, Ratio] = {}
"""By test; `tests.numeric` prints them."""


def assert_rounding(found: Any, expected: Any, sigma: Any, what: str = "") -> None:
    """Differences are roundings: each within ``LIMIT`` standard deviations, their mean within one.

    A mean is asked for where there are values enough. It is the sharper half: a mistake that moves
    every value by two roundings is noticed.
    """
    parts = _parts(found, expected, LIMIT * np.asarray(sigma, np.float64), what)
    mean = LIMIT * float(parts.mean()) if parts.size >= _ENOUGH_FOR_A_MEAN else 0.0
    assert mean <= 1.0, f"{what}: mean difference is {mean:.3g} standard deviations of a rounding"
    _record(parts, mean)


def assert_within(found: Any, expected: Any, allowed: Any, what: str = "") -> None:
    """Differences are at most what is allowed, such as a published bar.

    Shape: ``allowed`` is a number or broadcasts to ``expected``.
    """
    _record(_parts(found, expected, np.asarray(allowed, np.float64), what), 0.0)


def assert_possible(found: Any, expected: Any, worst: Any, what: str = "") -> None:
    """Differences are at most a bound of the worst case, which needs no room and is not recorded.

    Shape: ``worst`` is a number or broadcasts to ``expected``.
    """
    _parts(found, expected, np.asarray(worst, np.float64), what)


def _parts(found: Any, expected: Any, allowed: F64, what: str) -> F64:
    """Each difference as a part of what is allowed."""
    ours, theirs = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert ours.shape == theirs.shape, f"{what}: shapes {ours.shape} and {theirs.shape}"
    difference = np.abs(ours - theirs)
    # Where nothing is allowed, nothing must differ.
    parts: F64 = difference / np.where(allowed > 0, allowed, np.finfo(np.float64).tiny)
    if parts.size and not parts.max() <= 1.0:  # NaN fails
        worst = np.unravel_index(int(np.nan_to_num(parts, nan=np.inf).argmax()), parts.shape)
        place = np.broadcast_to(allowed, parts.shape)[worst]
        raise AssertionError(
            f"{what}: {(~(parts <= 1.0)).sum()} of {parts.size} values differ by more than allowed;"
            f" the worst, {tuple(map(int, worst))}, by {difference[worst]:.3g} of {place:.3g}: "
            f"{ours[worst]!r}, expected {theirs[worst]!r}"
        )
    return parts


def _record(parts: F64, mean: float) -> None:
    test = os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0].split("[")[0]
    ratio = seen.setdefault(test, Ratio())
    ratio.largest = max(ratio.largest, float(parts.max(initial=0.0)))
    ratio.mean = max(ratio.mean, mean)


# --- sums ---------------------------------------------------------------------------------------


def sum_bound(terms: Any, axis: int, u: float = U32) -> Any:
    """What no sum of these terms can be off by, in any order: ``n u sum|x|``; once for a quotient.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 4.2.
    """
    size = np.abs(np.asarray(terms, np.float64))
    return (size.shape[axis] + 1) * u * size.sum(axis=axis)


def sigmoid_bound(scores: Any, u: float = U32) -> Any:
    """``1 / (1 + exp(-x))`` of a given ``x``: exp is good to 4 units in the last place (8 u) in
    every vector library (numpy's own test allows 4), the addition and the quotient to u each.
    """
    return 10 * u * np.asarray(scores, np.float64)


# --- front ends ---------------------------------------------------------------------------------


def exact_energies(samples: F32, config: FrontendConfig) -> tuple[F64, F64, F64]:
    """Mel energies by Google's definition, slowly and written anew, in float64.

    The window alone is the front end's own: its rounding is part of the definition.

    Returns: energies before the logarithm ``[n_frames, 64]``, spectrum ``[n_frames, 257]``,
        length of each frame as a vector ``[n_frames, 1]``.
    """
    padded = np.zeros(config.padded_samples(len(samples)))
    padded[: len(samples)] = samples
    if len(padded) < 400:
        return np.empty((0, 64)), np.empty((0, 257)), np.empty((0, 1))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[:: config.frame_hop_samples]
    frames = frames * hann_window(config).astype(np.float64)
    spectrum: F64 = np.abs(np.fft.rfft(frames, 512))
    return spectrum @ htk_matrix(), spectrum, np.linalg.norm(frames, axis=1)[:, np.newaxis]


@cache
def htk_matrix() -> F64:
    """Google's mel filters, one weight at a time. Shape: ``[257, 64]``."""

    def mel(hz: float) -> float:
        return float(1127 * np.log1p(hz / 700))

    edges = np.linspace(mel(125.0), mel(7500.0), 66)
    matrix = np.zeros((257, 64))
    for band in range(64):
        low, centre, high = edges[band : band + 3]
        for row in range(1, 257):
            at = mel(row * 16_000 / 512)
            up, down = (at - low) / (centre - low), (high - at) / (high - centre)
            matrix[row, band] = max(0.0, min(up, down))
    return matrix


def log_mel_sigma(
    samples: F32, config: FrontendConfig, *, noise: float = 0.0, weights_error: Any = None
) -> tuple[F64, F64]:
    """Log-mel by definition, and the standard deviation of the roundings in one computation of it.

    * FFT of N points: each of its log2 N stages adds noise of less than u times its output
      (a complex product 0.8 u, a sum 0.6 u, of half the power each), spread over the lines. By
      Parseval a line has the power of the windowed frame x: ``u sqrt(log2 N) |x|``.
      Source: Schatzman, Accuracy of the Discrete Fourier Transform, 1996.
    * magnitude, and the sum over the ``n`` lines of a band: ``(1.5 + sqrt(n)) u E``. The weights
      add the noise of their lines up, at worst in step: ``sum(w)`` times that of one.
    * logarithm of E + offset: the error of E over E + offset, so that where there is nothing but
      the offset a rounding of the loudest line shows. Then 2 units in the last place.

    Parameters:
        noise: standard deviation of an error in every sample, such as a resampler's, for each part
            of the sound's own size. A line has ``noise |x|``, of the loudest frame within 20 ms:
            a resampler's filter reaches so far, and into silence too.
        weights_error: differences of another mel matrix from the definition. ``[257, 64]``.
    """
    u = U32 if config.precision == "float32" else U64
    energies, spectrum, lengths = exact_energies(samples, config)
    matrix = htk_matrix()
    line = u * np.sqrt(np.log2(config.fft_samples)) * lengths
    line = line + noise * scipy.ndimage.maximum_filter1d(lengths, 5, axis=0)
    sigma = line * matrix.sum(axis=0) + (1.5 + np.sqrt((matrix > 0).sum(axis=0))) * u * energies
    if weights_error is not None:
        sigma = sigma + spectrum @ np.abs(weights_error)
    exact = np.log(energies + config.log_offset)
    # Frames are float32 in any case.
    return exact, sigma / (energies + config.log_offset) + 2 * U32 * (1 + np.abs(exact))


def resampling_sigma(filters: Polyphase, level: float) -> float:
    """Noise between soxr and its filter as a product, for samples of this root mean square.

    A sum of n products in float32: each partial sum is at most the whole's root mean square
    ``|w| level`` on average, and is rounded once: ``u sqrt(n / 3) |w| level``. soxr filters in two
    stages, each of which does as much.
    """
    if filters.n_taps == 1:
        return 0.0
    size = float(np.linalg.norm(filters.weights, axis=1).max())
    return U32 * float(np.sqrt(filters.n_taps)) * size * level


def patches_sigma(
    samples: F32, rate_hz: int, config: FrontendConfig, weights_error: Any = None
) -> F32:
    """Noise between the two front ends, from a waveform at any rate on: see `log_mel_sigma`."""
    at_16_khz, noise = samples, 0.0
    if rate_hz != 16_000:
        at_16_khz = soxr.resample(samples, rate_hz, 16_000, quality="HQ")
    if has_polyphase(rate_hz, 16_000) and samples.any():
        # What is filtered out is rounded with the rest.
        level, rest = (float(np.linalg.norm(x) / len(x) ** 0.5) for x in (samples, at_16_khz))
        noise = resampling_sigma(polyphase(rate_hz, 16_000), level) / max(rest, U32 * level)
    _, sigma = log_mel_sigma(at_16_khz, config, noise=noise, weights_error=weights_error)
    return patches(2 * sigma.astype(np.float32), config)


# --- networks -----------------------------------------------------------------------------------


def layers_sigma(network: nn.Module, outputs: Any) -> float:
    """Roundings of a network of random weights, which keeps the power of what it is given.

    A layer that sums n products up adds ``u sqrt(n / 3)`` of its output's root mean square (a
    random walk of n steps); with random weights later layers pass it on as they pass the signal.
    """
    n_steps = sum(map(_n_terms, _layers(network)))
    return U32 * float(
        np.sqrt(n_steps / 3) * np.sqrt(np.mean(np.square(outputs, dtype=np.float64)))
    )


def exact_outputs(network: nn.Module, given: F32, *, n_draws: int) -> list[tuple[F64, F64]]:
    """A trained network's outputs in float64, and the standard deviation of float32's roundings.

    What a layer adds, see `layers_sigma`, is drawn at random behind every layer of the float64
    network, and what comes out is compared with what came out without: an error bound by
    simulation. (Worst cases through 27 layers would allow more than the output.)
    """
    exact = copy.deepcopy(network).double().eval()
    inputs = torch.from_numpy(given.astype(np.float64))
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        plain = exact(inputs)
        for module in _layers(exact):
            module.register_forward_hook(_with_noise(generator))
        noisy = [exact(inputs) for _ in range(n_draws)]
    sigmas = [
        torch.stack([draw[at] - out for draw in noisy]).square().mean(dim=0).sqrt()
        for at, out in enumerate(plain)
    ]
    return [(out.numpy(), sigma.numpy()) for out, sigma in zip(plain, sigmas, strict=True)]


def _layers(network: nn.Module) -> list[nn.Module]:
    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
    return [module for module in network.modules() if isinstance(module, kinds)]


def _with_noise(generator: torch.Generator) -> Any:
    def hook(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        walk = (_n_terms(module) / 3) ** 0.5 * torch.maximum(_size(module, given[0]), out.abs())
        return out + U32 * walk * torch.randn(out.shape, generator=generator, dtype=out.dtype)

    return hook


def _n_terms(module: nn.Module) -> int:
    """Products that are summed up for one value; a batch norm rounds three times."""
    weight = module.get_parameter("weight")
    return weight[0].numel() if weight.ndim > 1 else 3


def _size(module: nn.Module, x: Tensor) -> Tensor:
    """The root of the sum of squared terms, for each value that the layer computes."""
    if isinstance(module, nn.BatchNorm2d):
        return torch.zeros(1, dtype=x.dtype)
    squared = copy.deepcopy(module)
    squared.get_parameter("weight").square_()
    if squared.bias is not None:
        squared.get_parameter("bias").square_()
    size: Tensor = squared.forward(x.square())
    return size.sqrt()
