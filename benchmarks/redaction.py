"""How much speech `audioset redact` finds, by signal-to-noise ratio, and what it takes besides.

    python -m benchmarks.redaction             # needs espeak-ng and AUDIOSET_ASSETS
    python -m benchmarks.redaction --sweep     # other thresholds too

Speech of twelve voices (eSpeak NG) is put into computed noise: pink, wind, rain, insects. The ratio
is that of the power of the speech, where it is spoken, to the noise, both at 16 kHz; the noise has
a level between -65 and -25 dB of full scale, by chance. All of that also from afar, in two echoes.
Recall is the share of the spoken seconds inside the spans; lost is the share of all other seconds
inside them, padding included. Intervals are the 95 % ones of a bootstrap over voices, and over
recordings of other sounds, which are those of ESC-10.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from scipy.signal import fftconvolve, lfilter

from audioset_core.arrays import F32, F64
from audioset_core.datasets.label_dataset import label_dataset
from audioset_core.models.registry import YAMNET
from audioset_core.ontology.graph import load_default
from audioset_core.redaction.settings import VOICE_CLASSES, Redaction
from audioset_core.redaction.spans import joined, likely_spans
from audioset_core.redaction.voice import FRAME_S, RATE_HZ, VoiceDetector
from audioset_core.scores.coverage import patch_spans
from audioset_core.scores.pooling import sigmoid
from audioset_core.storage.score_files import read_scores

SNRS_DB = (-10, -5, 0, 5, 10, 15, 20)
ECHOES_S = (0.0, 0.5, 1.5)
BEFORE_S, LENGTH_S = 4.0, 16.0
_N_RESAMPLES = 2_000

VOICES = {
    "en-gb": ("We walked along the river until the bridge, and then we turned back.", ()),
    "en-us+f3": ("My daughter is ill today, so I will not come to the meeting.", ()),
    "de": ("Gestern haben wir am See gezeltet, und es hat die ganze Nacht geregnet.", ()),
    "fr+f2": (
        "Nous avons vu trois cerfs pres du village, mais personne ne les a vus.",
        (),
    ),
    "es": ("La casa de mi hermano esta detras de la iglesia, al lado del molino.", ()),
    "it+f4": ("Domani mattina partiamo presto, perche la strada e molto lunga.", ()),
    "pl": ("Wczoraj wieczorem rozmawialismy o tym, co sie stalo w lesie.", ()),
    "sw": ("Watoto walikuwa wakicheza karibu na mto jana jioni.", ()),
    "hi": ("mera bhai kal subah gaon ja raha hai aur main ghar par rahunga", ()),
    "en-gb+f5": (
        "Look, mum, there is a frog in the water, can I take it?",
        ("-p", "95", "-s", "160"),
    ),
    "pt+m7": ("Vamos embora antes que a chuva chegue, o carro esta longe.", ("-s", "230")),
    "en-gb+whisper": ("Be quiet, there is a deer behind the tree on the left side.", ()),
}
"""By the voice of eSpeak NG: what is said, and how. The last but two is high, the last whispers."""


@dataclass(frozen=True, slots=True)
class Item:
    """A made recording. `is_speech` has a value for each sample."""

    name: str
    voice: str
    noise: str
    snr_db: float | None
    samples: F32
    is_speech: np.ndarray
    echo_s: float = 0.0


def spoken(voice: str, folder: Path) -> F64:
    """A sentence at 16 kHz with a power of 1 where it is spoken."""
    text, options = VOICES[voice]
    path = folder / f"{voice}.wav"
    command = ["espeak-ng", "-v", voice, *options, "-w", path, text]
    subprocess.run(command, check=True)
    samples, rate_hz = soundfile.read(path)
    at_16k = soxr.resample(samples, rate_hz, RATE_HZ)
    return at_16k / np.sqrt(np.mean(at_16k[activity(at_16k)] ** 2))


def activity(samples: F64) -> np.ndarray:
    """Where something is said: 20 ms within 35 dB of the loudest; gaps below 0.2 s count."""
    n = RATE_HZ // 50
    power = np.mean(np.resize(np.append(samples, np.zeros(n)), (len(samples) // n + 1, n)) ** 2, 1)
    is_loud = power > power.max() * 10**-3.5
    spans = joined(likely_spans(is_loud.astype(np.float32), 0.5, 0.02), 0.1, RATE_HZ, len(samples))
    marked = np.zeros(len(samples), bool)
    for first, last in spans:
        marked[first + RATE_HZ // 10 * (first > 0) : last - RATE_HZ // 10] = True
    return marked


def pink(rng: np.random.Generator, n: int) -> F64:
    spectrum = np.fft.rfft(rng.standard_normal(n))
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 20)), n)


def wind(rng: np.random.Generator, n: int) -> F64:
    low = lfilter([1], [1, -0.985], rng.standard_normal(n))
    gusts = np.interp(np.arange(n), np.linspace(0, n, 24), rng.uniform(0.1, 1, 24) ** 2)
    return low * gusts


def rain(rng: np.random.Generator, n: int) -> F64:
    drops = np.zeros(n)
    at = rng.integers(0, n, n // 60)
    np.add.at(drops, at, rng.exponential(1.0, len(at)) * rng.choice([-1, 1], len(at)))
    return lfilter([1], [1, -1.2, 0.6], drops) + 0.2 * rng.standard_normal(n)


def insects(rng: np.random.Generator, n: int) -> F64:
    time_s = np.arange(n) / RATE_HZ
    total = 0.1 * rng.standard_normal(n)
    for _ in range(4):
        hz, beat_hz = rng.uniform(2_500, 7_000), rng.uniform(8, 45)
        pulse = np.maximum(0, np.sin(2 * np.pi * (beat_hz * time_s + rng.random()))) ** 2
        total += pulse * np.sin(2 * np.pi * hz * time_s + 3 * np.sin(2 * np.pi * 3 * time_s))
    return total


NOISES: dict[str, Callable[[np.random.Generator, int], F64]] = {
    "pink": pink, "wind": wind, "rain": rain, "insects": insects,
}  # fmt: skip


def echoing(speech: F64, echo_s: float, rng: np.random.Generator) -> F64:
    """Speech from afar: its echo falls by 60 dB in that time, and has more power than itself."""
    n = round(echo_s * RATE_HZ)
    echo = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    echo[0] = 2.0
    return fftconvolve(speech, echo)[: len(speech)]


def mixtures(folder: Path, echo_s: float = 0.0, seed: int = 0) -> Iterator[Item]:
    """Every voice in every noise at every ratio; spans are those of speech without its echo."""
    rng = np.random.default_rng(seed)
    n = round(LENGTH_S * RATE_HZ)
    for voice in VOICES:
        speech = spoken(voice, folder)
        own = activity(speech)
        if echo_s:
            speech = echoing(speech, echo_s, rng)
            speech /= np.sqrt(np.mean(speech[own] ** 2))
        said = np.zeros(n)
        first = round((BEFORE_S + rng.uniform(-1, 1)) * RATE_HZ)
        said[first : first + len(speech)] = speech[: n - first]
        is_speech = np.zeros(n, bool)
        is_speech[first : first + len(speech)] = own[: n - first]
        for noise, make in NOISES.items():
            for snr_db in SNRS_DB:
                around = make(rng, n)
                around /= np.sqrt(np.mean(around**2))
                level = 10 ** (rng.uniform(-65, -25) / 20)
                mixed = level * (around + said * 10 ** (snr_db / 20))
                name = f"{voice} {noise} {snr_db}"
                samples = mixed.astype(np.float32)
                yield Item(name, voice, noise, snr_db, samples, is_speech, echo_s)


def recorded(assets: Path) -> Iterator[Item]:
    """ESC-10: five seconds of one sound each, none of them speech."""
    for path in sorted((assets / "esc10-dev").rglob("*.ogg")):
        samples, rate_hz = soundfile.read(path, always_2d=True)
        at_16k = soxr.resample(samples.mean(1), rate_hz, RATE_HZ).astype(np.float32)
        yield Item(path.stem, "", path.parent.name, None, at_16k, np.zeros(len(at_16k), bool))


def label_scores(items: Sequence[Item], folder: Path) -> list[F32]:
    """The highest score of a voice class in each patch of each item, by YAMNet."""
    ontology = load_default()
    below = [ontology.subtree(ontology.find(name).mid) for name in VOICE_CLASSES]
    mids = {node.mid for nodes in below for node in nodes}
    columns = [k for k, category in enumerate(YAMNET.categories) if category.mid in mids]
    data = [{"id": f"{k}", "data": it.samples[None], "sr": RATE_HZ} for k, it in enumerate(items)]
    weights = Path(os.environ["AUDIOSET_ASSETS"]) / "weights" / "yamnet.h5"
    label_dataset(data, folder, weights=weights)
    files = (folder / "audio_pred" / f"{k}.npy" for k in range(len(items)))
    return [sigmoid(read_scores(file))[:, columns].max(axis=1) for file in files]


def voice_probabilities(samples: F32) -> F32:
    """By the voice detector, of each frame of one channel at 16 kHz."""
    detector = VoiceDetector(RATE_HZ, 1)
    return np.concatenate([detector.add(samples[:, None]), detector.end()])


def marked(item: Item, labels: F32, voices: F32, settings: Redaction) -> np.ndarray:
    """The samples inside spans, as `audioset redact` finds them."""
    n = len(item.samples)
    shape = {"hop_s": 0.48, "window_s": 0.96, "duration_s": n / RATE_HZ}
    found = patch_spans(labels >= settings.label_score, **shape)
    both = np.concatenate([found, likely_spans(voices, settings.voice_probability, FRAME_S)])
    is_inside = np.zeros(n, bool)
    for first, last in joined(both, settings.padding_s, RATE_HZ, n):
        is_inside[first:last] = True
    return is_inside


def report(items: Sequence[Item], inside: Sequence[np.ndarray], settings: Redaction) -> None:
    """Print the shares of speech that is found, of the rest that is lost, and of other sounds."""
    print(f"\n{settings}")
    shares: dict[tuple[str, Any], dict[str, list[tuple[int, int]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for item, mark in zip(items, inside, strict=True):
        rest = ~item.is_speech
        lost = int((mark & rest).sum()), int(rest.sum())
        if item.snr_db is None:
            shares["taken of", item.noise][item.name].append(lost)
            continue
        found = int((mark & item.is_speech).sum()), int(item.is_speech.sum())
        if item.echo_s:
            of = f"found in an echo of {item.echo_s} s, at dB", item.snr_db
            shares[of][item.voice].append(found)
            continue
        shares["found at dB", item.snr_db][item.voice].append(found)
        shares["lost at dB", item.snr_db][item.voice].append(lost)
        if item.snr_db < 0:
            shares["found below 0 dB, in", item.noise][item.voice].append(found)
            shares["found below 0 dB, of", item.voice][item.noise].append(found)
    for (what, of), by_group in sorted(shares.items(), key=lambda pair: pair[0][0]):
        share, low, high = interval(by_group)
        print(f"{what} {of}: {share:.1%} ({low:.1%} to {high:.1%})")


def interval(by_group: Mapping[str, list[tuple[int, int]]]) -> tuple[float, float, float]:
    """A share and its 95 % interval; groups are drawn with replacement."""
    sums = np.array([np.sum(some, axis=0) for some in by_group.values()])
    drawn = np.random.default_rng(0).integers(0, len(sums), (_N_RESAMPLES, len(sums)))
    resampled, share = sums[drawn].sum(axis=1), sums.sum(axis=0)
    low, high = np.quantile(resampled[:, 0] / resampled[:, 1], [0.025, 0.975])
    return share[0] / share[1], low, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweep", action="store_true", help="other thresholds too")
    is_sweep = parser.parse_args().sweep
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = [item for echo_s in ECHOES_S for item in mixtures(folder, echo_s)]
        items += recorded(Path(os.environ["AUDIOSET_ASSETS"]))
        labels = label_scores(items, folder / "labels")
    began_s = time.process_time()
    voices = [voice_probabilities(item.samples) for item in items]
    audio_s = sum(len(item.samples) for item in items) / RATE_HZ
    speed = audio_s / (time.process_time() - began_s)
    print(f"voice detector: {speed:,.0f} x real time for a channel on one core")
    settings = [Redaction()]
    if is_sweep:
        settings += [
            Redaction(label_score=label, voice_probability=voice, padding_s=padding)
            for padding in (0.0, 0.5)
            for label, voice in product((0.05, 0.1, 0.3, 2.0), (0.1, 0.2, 0.5, 2.0))
        ]
    for each in settings:
        every = zip(items, labels, voices, strict=True)
        report(items, [marked(*heard, each) for heard in every], each)


if __name__ == "__main__":
    main()
