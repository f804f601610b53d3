from __future__ import annotations

import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audioset_core.features.config import VGGISH, YAMNET, FrontendConfig
from audioset_core.features.log_mel import BLOCK_FRAMES, LogMelStream, log_mel, patches
from audioset_core.features.mel import _hz_to_slaney, _slaney_to_hz, hann_window, mel_matrix
from audioset_core.models.registry import PANNS as PANNS_BUNDLE
from audioset_core.models.registry import YAMNET as YAMNET_BUNDLE
from tests.bounds import (
    U32,
    U64,
    assert_possible,
    assert_rounding,
    htk_matrix,
    log_mel_sigma,
)
from tests.golden.make_frontend_golden import EVERY, EVERY_VGGISH, waveforms

F32 = NDArray[np.float32]

SYNTHETIC = ("sine440", "chirp", "noise", "silence", "impulses", "short")
RECORDED = ("esc_dog", "esc_baby", "esc_clock", "esc_chainsaw")

PANNS = PANNS_BUNDLE.frontend
SEED = YAMNET_BUNDLE.framed(patch_hop_s=None, framing="seed")
CONFIGS = {
    "yamnet": YAMNET,
    "vggish": VGGISH,
    "seed": SEED,
    "vggish padded": replace(VGGISH, pads_tail=True),
    "panns": PANNS,
    "panns dropping": replace(PANNS, pads_tail=False),
    "panns hop 0.07 s": replace(PANNS, patch_hop_frames=7),
    "hop 0.96 s": replace(YAMNET, patch_hop_frames=96),
    "hop 0.1 s": replace(YAMNET, patch_hop_frames=10),
}


@pytest.fixture(scope="module")
def small() -> Any:
    return np.load(Path(__file__).parents[2] / "golden" / "frontend.npz")


@pytest.fixture(scope="module")
def yamnet(assets: Path) -> Any:
    return np.load(assets / "golden" / "yamnet_golden.npz")


@pytest.fixture(scope="module")
def vggish(assets: Path) -> Any:
    return np.load(assets / "golden" / "vggish_golden.npz")


@pytest.fixture(scope="module")
def long_noise() -> F32:
    """25 s: two blocks and a half."""
    return np.random.default_rng(5).standard_normal(400_123).astype(np.float32) * np.float32(0.1)


def check(ours: F32, golden: F32, exact: Any, sigma: Any) -> None:
    """Equal to the golden values but for roundings, ours and theirs; and to the definition."""
    assert ours.dtype == np.float32
    assert_rounding(ours, golden, 2 * sigma)
    assert_rounding(ours, exact, sigma)


# --- equal to Google's reference ----------------------------------------------------------------


@pytest.mark.numeric
def test_mel_matrix_is_the_references(small: Any) -> None:
    ours = mel_matrix(YAMNET)
    assert_possible(ours, htk_matrix(), U32)
    # TensorFlow computes the triangles in float32, from frequencies of up to 2,840 mel that it
    # rounds five times (a quotient, a sum, a logarithm of 2 u, a product), twice to a difference,
    # and divides by a triangle's half width, 41.7 mel.
    mel_edges = 1127 * np.log1p(np.array([125.0, 7500.0]) / 700)
    half_width = (mel_edges[1] - mel_edges[0]) / 65
    assert_possible(ours, small["mel_matrix"], 10 * U32 * mel_edges[1] / half_width)
    assert not ours[0].any()
    # Linear in Hz, as torchaudio has it, is another matrix.
    assert np.abs(ours).max() < 1.0
    assert not ours.flags.writeable


@pytest.mark.numeric
def test_window_is_periodic() -> None:
    window = hann_window(YAMNET)
    assert window.dtype == np.float32
    assert window[0] == 0.0
    assert window[200] == 1.0
    assert window[1] == pytest.approx(window[399], rel=1e-2)  # not window[398], 4 times as much
    # To the bit on every processor: TensorFlow 2.21's on x86-64, test_reference_tf.py.
    assert sha256(window.tobytes()).hexdigest()[:16] == "a6d0b7833522e031"


@pytest.mark.numeric
@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_sounds_equal_the_reference(small: Any, name: str) -> None:
    waveform = waveforms()[name]
    theirs = small["mel_matrix"] - htk_matrix()
    exact, sigma = log_mel_sigma(waveform, YAMNET, weights_error=theirs)
    ours = log_mel(waveform, YAMNET)
    check(ours[::EVERY], small[f"{name}/log_mel"], exact[::EVERY], sigma[::EVERY])
    assert YAMNET.padded_samples(len(waveform)) == small[f"{name}/padded_num_samples"]


@pytest.mark.numeric
@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_sounds_equal_the_vggish_reference(small: Any, name: str) -> None:
    waveform = waveforms()[name]
    frames = log_mel(waveform, VGGISH)
    assert len(frames) == small[f"{name}/num_frames"]
    ours, exact, sigma = (
        patches(values, VGGISH).reshape(-1, 64)[::EVERY_VGGISH]
        for values in (frames, *log_mel_sigma(waveform, VGGISH))
    )
    check(ours, small[f"{name}/vggish"], exact, sigma)


@pytest.mark.numeric
@pytest.mark.parametrize("name", SYNTHETIC + RECORDED)
def test_every_frame_equals_the_reference(yamnet: Any, name: str) -> None:
    waveform = yamnet[f"{name}/waveform"]
    frames = log_mel(waveform, YAMNET)
    theirs = yamnet["mel_matrix"] - htk_matrix()
    exact, sigma = log_mel_sigma(waveform, YAMNET, weights_error=theirs)
    check(frames, yamnet[f"{name}/log_mel"], exact, sigma)
    cut = (patches(values, YAMNET) for values in (frames, exact, sigma))
    ours, exact, sigma = cut
    check(ours, yamnet[f"{name}/patches"], exact, sigma)
    assert YAMNET.padded_samples(len(waveform)) == yamnet[f"{name}/padded_num_samples"]
    assert YAMNET.n_patches(len(waveform)) == len(yamnet[f"{name}/patches"])


@pytest.mark.numeric
@pytest.mark.parametrize("name", SYNTHETIC + RECORDED)
def test_vggish_examples_equal_the_reference(yamnet: Any, vggish: Any, name: str) -> None:
    waveform, examples = yamnet[f"{name}/waveform"], vggish[f"{name}/examples"]
    frames = log_mel(waveform, VGGISH)
    assert len(frames) == vggish[f"{name}/num_frames"]
    assert VGGISH.n_patches(len(waveform)) == len(examples)
    exact, sigma = (patches(values, VGGISH) for values in log_mel_sigma(waveform, VGGISH))
    check(patches(frames, VGGISH), examples, exact, sigma)


@pytest.mark.numeric
@pytest.mark.parametrize(
    "mistake",
    [
        replace(YAMNET, log_offset=0.01),
        replace(YAMNET, mel_min_hz=0.0),
        replace(YAMNET, mel_max_hz=8000.0),
        replace(YAMNET, fft_samples=400),
        replace(YAMNET, frame_hop_samples=161),
    ],
)
def test_the_bars_catch_a_wrong_setting(small: Any, mistake: FrontendConfig) -> None:
    golden = small["noise/log_mel"]
    ours = log_mel(waveforms()["noise"], mistake)[::EVERY][: len(golden)]
    _, sigma = log_mel_sigma(waveforms()["noise"], YAMNET)
    with pytest.raises(AssertionError, match=r"differ by more than allowed"):
        assert_rounding(ours, golden[: len(ours)], 2 * sigma[::EVERY][: len(ours)])


@pytest.mark.numeric
def test_the_bars_catch_a_centred_window(small: Any) -> None:
    # As torch.stft(center=False, n_fft=512, win_length=400): 56 samples late.
    waveform = waveforms()["noise"]
    shifted = log_mel(waveform[56:], YAMNET)[::EVERY]
    assert np.abs(shifted - small["noise/log_mel"][: len(shifted)]).mean() > 0.1


@pytest.mark.numeric
def test_log_offset_is_what_silence_shows() -> None:
    silence = np.zeros(16_000, np.float32)
    np.testing.assert_array_equal(np.unique(log_mel(silence, YAMNET)), [np.log(np.float32(0.001))])
    np.testing.assert_array_equal(np.unique(log_mel(silence, VGGISH)), [np.log(np.float32(0.01))])


@pytest.mark.numeric
def test_loudness_is_never_normalised() -> None:
    noise = waveforms()["noise"]
    louder = log_mel(noise * np.float32(2), YAMNET) - log_mel(noise, YAMNET)
    assert np.median(louder[:290]) == pytest.approx(np.log(2), abs=0.02)


# --- how many patches ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_samples", "n_patches"),
    [
        (0, 1), (1, 1), (15_599, 1), (15_600, 1), (15_601, 2), (23_280, 2), (23_281, 3),
        # float32 cannot count these; the reference's own ceil is off here
        (15_600 + 7_680 * 3_000, 3_001), (15_600 + 7_680 * 3_000 + 1, 3_002),
        (2**24 + 1, 2_184),
        (15_600 + 7_680 * 10**9, 10**9 + 1), (15_601 + 7_680 * 10**9, 10**9 + 2),
    ],
)  # fmt: skip
def test_yamnet_pads_so_that_nothing_is_dropped(n_samples: int, n_patches: int) -> None:
    assert YAMNET.n_patches(n_samples) == n_patches
    padded = YAMNET.padded_samples(n_samples)
    assert padded == 15_600 + 7_680 * (n_patches - 1)
    assert 0 <= padded - n_samples < max(15_601, 7_680)


@pytest.mark.parametrize(
    ("n_samples", "n_patches"),
    [
        (0, 0),
        (1, 0),
        (15_599, 0),
        (15_600, 1),
        (30_959, 1),
        (30_960, 2),
        (16_788_719, 1_092),
        (16_788_720, 1_093),
    ],
)
@pytest.mark.parametrize("config", [VGGISH, SEED], ids=["vggish", "seed"])
def test_vggish_and_seed_framing_drop_the_tail(
    config: FrontendConfig, n_samples: int, n_patches: int
) -> None:
    assert config.n_patches(n_samples) == n_patches
    assert config.padded_samples(n_samples) == n_samples


@given(n_samples=st.integers(0, 70_000), name=st.sampled_from(sorted(CONFIGS)))
@settings(max_examples=60, deadline=None)
def test_formula_counts_what_comes_out(n_samples: int, name: str) -> None:
    config = CONFIGS[name]
    frames = log_mel(np.zeros(n_samples, np.float32), config)
    assert patches(frames, config).shape == (config.n_patches(n_samples), config.patch_frames, 64)


@pytest.mark.parametrize(
    ("n_samples", "n_patches"), [(0, 1), (32_000, 1), (32_001, 2), (48_000, 2), (48_001, 3)]
)
def test_panns_pads_so_that_nothing_is_dropped(n_samples: int, n_patches: int) -> None:
    assert PANNS.n_patches(n_samples) == n_patches
    assert PANNS.padded_samples(n_samples) == 32_000 + 16_000 * (n_patches - 1)


def test_padded_vggish_drops_nothing() -> None:
    padded = replace(VGGISH, pads_tail=True)
    assert [padded.n_patches(n) for n in (0, 15_600, 15_601, 30_960, 30_961)] == [1, 1, 2, 2, 3]


def test_derived_sizes() -> None:
    assert (PANNS.patch_samples, PANNS.patch_hop_s, PANNS.patch_window_s) == (32_000, 1.0, 2.0)
    assert (YAMNET.patch_samples, YAMNET.patch_hop_samples) == (15_600, 7_680)
    assert (YAMNET.patch_hop_s, YAMNET.patch_window_s) == (0.48, 0.96)
    assert (SEED.patch_hop_s, SEED.pads_tail, SEED.log_offset) == (0.96, False, 0.001)


def test_patches_are_a_view_of_the_frames() -> None:
    frames = np.arange(200 * 64, dtype=np.float32).reshape(200, 64)
    views = patches(frames, YAMNET)
    assert np.shares_memory(views, frames)
    assert not views.flags.writeable
    for index, view in enumerate(views):
        np.testing.assert_array_equal(view, frames[48 * index : 48 * index + 96])


# --- in pieces as in whole ----------------------------------------------------------------------


@pytest.mark.numeric
@given(
    cuts=st.lists(st.integers(0, 400_123), max_size=8),
    length=st.one_of(st.integers(0, 400_123), st.just(400_123)),
    name=st.sampled_from(sorted(CONFIGS)),
)
@settings(max_examples=25, deadline=None)
def test_any_cut_gives_the_same_bits(
    long_noise: F32, cuts: list[int], length: int, name: str
) -> None:
    samples, config = long_noise[:length], CONFIGS[name]
    stream = LogMelStream(config)
    pieces = [
        stream.push(piece) for piece in np.split(samples, sorted(min(cut, length) for cut in cuts))
    ]
    assert stream.n_samples == length
    streamed = np.concatenate([*pieces, stream.finish()])
    np.testing.assert_array_equal(streamed, log_mel(samples, config))


@pytest.mark.numeric
@pytest.mark.parametrize("edge", [-1, 0, 1, 160])
def test_cuts_at_block_borders_give_the_same_bits(long_noise: F32, edge: int) -> None:
    block = BLOCK_FRAMES * 160
    stream = LogMelStream(YAMNET)
    cuts = [block + edge, block + 240 + edge, 2 * block + 240 + edge]
    pieces = [stream.push(piece) for piece in np.split(long_noise, cuts)]
    np.testing.assert_array_equal(
        np.concatenate([*pieces, stream.finish()]), log_mel(long_noise, YAMNET)
    )


def test_single_samples_cost_linear_time() -> None:
    samples = np.ones(40_000, np.float32)
    stream = LogMelStream(YAMNET)
    began = time.perf_counter()
    for i in range(len(samples)):
        stream.push(samples[i : i + 1])
    np.testing.assert_array_equal(stream.finish(), log_mel(samples, YAMNET))
    assert time.perf_counter() - began < 10


def test_what_is_held_stays_small(long_noise: F32) -> None:
    stream = LogMelStream(YAMNET)
    for piece in np.array_split(long_noise, 50):
        stream.push(piece)
        assert stream._n_held < (BLOCK_FRAMES + 2) * 160 + len(piece)


# --- centred frames, librosa's mel --------------------------------------------------------------


def librosa_in_float64(samples: NDArray[Any]) -> NDArray[np.float64]:
    """Centred spectrogram, Slaney mel and decibels, by their definitions, one band at a time."""

    def to_mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * float(np.log(hz / 1000) / np.log(6.4))

    def to_hz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    steps = np.linspace(to_mel(50.0), to_mel(8000.0), 66)
    edges = [to_hz(step) for step in steps]
    hz = np.arange(257) * 16_000 / 512
    matrix = np.zeros((257, 64))
    for band in range(64):
        low, centre, high = edges[band : band + 3]
        matrix[:, band] = np.interp(hz, [low, centre, high], [0.0, 2 / (high - low), 0.0])
    mirrored = np.pad(samples.astype(np.float64), 256, mode="reflect")
    window = np.sin(np.pi * np.arange(512) / 512) ** 2
    starts = range(0, len(mirrored) - 511, 160)
    powers = [np.abs(np.fft.rfft(mirrored[i : i + 512] * window)) ** 2 for i in starts]
    return np.asarray(10 * np.log10(np.maximum(1e-10, np.array(powers) @ matrix)))


def check_decibels(frames: F32, expected: Any, samples: Any) -> None:
    """Computed in float64, so that all that shows is the rounding to float32 at the end.

    Above the floor too: float64's noise in a line, 3 u of the largest frame's length (less than 16
    times the largest sample), moves a power P by twice its root, and a band of up to 40 lines.
    """
    power = 10 ** (np.asarray(expected, np.float64) / 10)
    line = np.sqrt(np.log2(512)) * U64 * 16 * float(np.abs(samples).max(initial=0.0))
    noise = 40 * (2 * np.sqrt(power) * line + line**2)
    assert_rounding(frames, expected, U32 * np.abs(expected) + 10 / np.log(10) * noise / power)


@pytest.mark.numeric
@pytest.mark.parametrize("name", SYNTHETIC)
def test_panns_frames_are_the_definition(name: str) -> None:
    waveform = waveforms()[name]
    frames = log_mel(waveform, PANNS)
    padded = np.pad(waveform, (0, PANNS.padded_samples(len(waveform)) - len(waveform)))
    assert frames.dtype == np.float32
    check_decibels(frames, librosa_in_float64(padded), padded)
    # Nothing falls below the floor of 1e-10.
    assert frames.min() >= -100.0


@pytest.mark.numeric
def test_panns_frames_of_the_whole_agree_with_scipy(long_noise: F32) -> None:
    from scipy.signal import stft

    config = replace(PANNS, pads_tail=False)
    _, _, spectrum = stft(
        long_noise.astype(np.float64), nperseg=512, noverlap=352, boundary="even", padded=False
    )
    power = np.abs(spectrum.T * np.hanning(513)[:-1].sum()) ** 2
    expected = 10 * np.log10(np.maximum(1e-10, power @ mel_matrix(config)))
    check_decibels(log_mel(long_noise, config), expected, long_noise)


@pytest.mark.numeric
def test_slaneys_scale() -> None:
    # Source: librosa's documentation, mel_frequencies(n_mels=40).
    lowest, highest = _hz_to_slaney(np.array([0.0, 11_025.0]))
    found = _slaney_to_hz(np.linspace(lowest, highest, 40))
    for index, hz in ((0, 0.0), (1, 85.317), (12, 1024.856), (20, 2071.84), (39, 11_025.0)):
        assert found[index] == pytest.approx(hz, abs=0.5e-3)  # of three decimals


@pytest.mark.numeric
def test_slaneys_triangles_have_one_area() -> None:
    # 8,192 points: 512 are too coarse to measure the narrow ones. A sum over lines 1.95 Hz apart
    # misses a triangle's area by at most 2 (1.95 / width) ** 2, the narrowest being 63 Hz wide.
    matrix = mel_matrix(replace(PANNS, fft_samples=8_192))
    np.testing.assert_allclose(matrix.sum(axis=0) * 16_000 / 8_192, 1.0, atol=5e-3)
    assert matrix.dtype == np.float64


@pytest.mark.numeric
@pytest.mark.parametrize("n_samples", [0, 1, 2, 256, 257, 258, 512, 31_999])
@pytest.mark.parametrize("pads_tail", [True, False])
def test_short_clips_of_centred_frames(n_samples: int, pads_tail: bool) -> None:
    config = replace(PANNS, pads_tail=pads_tail)
    samples = np.linspace(0.1, 1, n_samples).astype(np.float32)
    frames = log_mel(samples, config)
    assert len(patches(frames, config)) == config.n_patches(n_samples) == int(pads_tail)
    if not pads_tail and n_samples > 256:
        check_decibels(frames, librosa_in_float64(samples), samples)


@pytest.mark.parametrize("edge", [-257, -256, -1, 0, 1, 256, 257])
def test_centred_frames_do_not_depend_on_cuts(long_noise: F32, edge: int) -> None:
    block = 999 * 160 + 512
    for cuts in ([block + edge], [1, 255, 257, block + edge], [2 * block - 352 + edge]):
        for length in (block + edge, 2 * block, len(long_noise)):
            stream = LogMelStream(PANNS)
            pieces = [stream.push(piece) for piece in np.split(long_noise[:length], cuts)]
            np.testing.assert_array_equal(
                np.concatenate([*pieces, stream.finish()]), log_mel(long_noise[:length], PANNS)
            )
