"""Sounds made by arithmetic, to fill what the packages lack: tones, noises, engines, voices.

Every recipe takes the time of each sample and random numbers, and draws all that it can vary:
pitch, rate, loudness, decay, number of voices. None is a recipe of the demo's sounds, and no
parameter is fixed to one of theirs. What a sound is taken for is the teacher's word, not ours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]
Rng = np.random.Generator
Make = Callable[[Samples, Rng], Samples]

SAMPLE_RATE_HZ = 16_000


def coloured(n: int, rng: Rng, slope: float, low_hz: float = 20.0, high_hz: float = 8e3) -> Samples:
    """Noise of variance 1 whose amplitude falls as ``1 / f ** slope`` within a band."""
    frequency_hz = np.fft.rfftfreq(n, 1 / SAMPLE_RATE_HZ)
    band = (frequency_hz >= low_hz) & (frequency_hz <= high_hz)
    gain = np.maximum(frequency_hz, low_hz) ** -slope * band
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * gain, n)
    return np.asarray(noise / max(noise.std(), 1e-9))


def wander(n: int, rng: Rng, rate_hz: float) -> Samples:
    """A slow curve through random points between 0 and 1, so many of them a second."""
    n_knots = max(3, round(n / SAMPLE_RATE_HZ * rate_hz) + 2)
    return np.interp(np.linspace(0, n_knots - 1, n), np.arange(n_knots), rng.random(n_knots))


def starts(time_s: Samples, rng: Rng, rate_hz: float, jitter: float) -> list[float]:
    """Times of events, so many a second: regular at jitter 0, at random at 1."""
    n_events = max(1, round(time_s[-1] * rate_hz))
    regular = (np.arange(n_events) + rng.random()) / rate_hz
    moved = regular + jitter * rng.uniform(-0.5, 0.5, n_events) / rate_hz
    return [float(t) for t in np.sort(moved) if 0 <= t < time_s[-1]]


def harmonics(pitch_hz: Samples, rng: Rng, n: int, fall: float) -> Samples:
    """A voice: partials of a pitch that may move, each weaker by ``k ** -fall``."""
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
    total = np.zeros_like(pitch_hz)
    for k in range(1, n + 1):
        audible = (k * pitch_hz) < SAMPLE_RATE_HZ / 2
        total += audible * k**-fall * rng.uniform(0.5, 1) * np.sin(k * phase)
    return total


def formed(sound: Samples, rng: Rng, centres_hz: list[float], width: float) -> Samples:
    """The sound through resonances, as of a throat or a body."""
    frequency_hz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE_HZ)
    gain = np.full_like(frequency_hz, 0.02)
    for centre_hz in centres_hz:
        at = centre_hz * rng.uniform(0.9, 1.1)
        gain += rng.uniform(0.4, 1) / (1 + ((frequency_hz - at) / (width * at)) ** 2)
    return np.fft.irfft(np.fft.rfft(sound) * gain, len(sound))


def decay(time_s: Samples, start_s: float, rate: float) -> Samples:
    """``exp(-rate t)`` from a start on, 0 before."""
    since_s = time_s - start_s
    return np.where(since_s >= 0, np.exp(-rate * np.maximum(since_s, 0)), 0)


def burst(time_s: Samples, start_s: float, length_s: float, attack: float = 0.1) -> Samples:
    """A hump from a start on: rises for a part of its length, then falls."""
    x = (time_s - start_s) / length_s
    return np.clip(np.minimum(x / attack, (1 - x) / (1 - attack)), 0, None)


# --- tones and signals --------------------------------------------------------------------------


def steady_tones(time_s: Samples, rng: Rng) -> Samples:
    """One to four tones that stay; now and then some hum of the mains below."""
    total = np.zeros_like(time_s)
    for _ in range(rng.integers(1, 5)):
        at_hz = np.exp(rng.uniform(np.log(60), np.log(7000)))
        total += rng.uniform(0.2, 1) * np.sin(2 * np.pi * at_hz * time_s)
    return total


def switched_tones(time_s: Samples, rng: Rng) -> Samples:
    """One to three tones, switched on and off: signals, alarms, timers."""
    period_s = np.exp(rng.uniform(np.log(0.08), np.log(4)))
    share = rng.uniform(0.15, 0.85)
    base_hz = np.exp(rng.uniform(np.log(250), np.log(5000)))
    total = np.zeros_like(time_s)
    for _ in range(rng.integers(1, 4)):
        ratio = rng.choice([1, 1.25, 1.5, 2, 3, rng.uniform(1, 3)])
        total += rng.uniform(0.2, 1) * np.sin(2 * np.pi * base_hz * ratio * time_s)
    if rng.random() < 0.3:
        total = np.sign(total)
    return np.asarray(total * ((time_s % period_s) < share * period_s))


def telephone(time_s: Samples, rng: Rng) -> Samples:
    """Call progress tones of other countries, ringing, keys. Source: ITU-T E.180."""
    pairs = [(425,), (400, 450), (400,), (450,), (350, 450), (440, 480), (900, 1300), (420,)]
    kind = rng.integers(4)
    if kind == 0:
        chosen = pairs[rng.integers(len(pairs))]
        on_s, off_s = [(60, 0), (0.25, 0.25), (1, 4), (0.4, 0.2), (0.35, 0.35), (1, 3)][
            rng.integers(6)
        ]
        tone = sum((np.sin(2 * np.pi * f * time_s) for f in chosen), np.zeros_like(time_s))
        return tone * (time_s % (on_s + off_s) < on_s)
    if kind == 1:  # a bell hit by a hammer
        hit = np.exp(-rng.uniform(10, 60) * (time_s % (1 / rng.uniform(15, 30))))
        bells = sum(
            (np.sin(2 * np.pi * f * time_s) for f in rng.uniform(900, 5000, 4)),
            np.zeros_like(time_s),
        )
        return bells * hit * (time_s % rng.uniform(2, 6) < rng.uniform(1, 2))
    if kind == 2:  # keys
        length_s = rng.uniform(0.1, 0.4)
        key = (time_s // length_s).astype(int)
        low = np.array([697, 770, 852, 941])[rng.integers(0, 4, key[-1] + 1)][key]
        high = np.array([1209, 1336, 1477, 1633])[rng.integers(0, 4, key[-1] + 1)][key]
        gate = (time_s % length_s) < rng.uniform(0.4, 0.95) * length_s
        tones = np.sin(2 * np.pi * low * time_s) + np.sin(2 * np.pi * high * time_s)
        return np.asarray(tones * gate)
    warble = np.where(time_s % 0.1 < 0.05, rng.uniform(600, 1500), rng.uniform(900, 2500))
    gate = (time_s % rng.uniform(2, 5)) < rng.uniform(0.5, 2)
    return np.sign(np.sin(2 * np.pi * np.cumsum(warble) / SAMPLE_RATE_HZ)) * gate


def sweeps(time_s: Samples, rng: Rng) -> Samples:
    """A tone whose pitch glides once or again and again, up, down or both."""
    low, high = np.sort(np.exp(rng.uniform(np.log(100), np.log(6000), 2)))
    period_s = rng.choice([time_s[-1], np.exp(rng.uniform(np.log(0.05), np.log(3)))])
    turn = (time_s % period_s) / period_s
    shape = [turn, 1 - turn, 1 - np.abs(2 * turn - 1)][rng.integers(3)]
    pitch_hz = low * (high / low) ** shape
    return harmonics(pitch_hz, rng, int(rng.choice([1, 1, 3])), 1.5)


def sirens(time_s: Samples, rng: Rng) -> Samples:
    """Two-tone horns, yelps, hi-lo and mechanical sirens that run up."""
    low, high = rng.uniform(300, 700), rng.uniform(800, 1900)
    rate_hz = np.exp(rng.uniform(np.log(0.15), np.log(8)))
    turn = (time_s * rate_hz) % 1
    kind = rng.integers(4)
    if kind == 0:
        pitch_hz = np.where(turn < 0.5, rng.uniform(350, 500), rng.uniform(500, 750))
    elif kind == 1:
        pitch_hz = low + (high - low) * (1 - (2 * turn - 1) ** 2)
    elif kind == 2:
        pitch_hz = high * (1 - np.exp(-time_s / rng.uniform(0.5, 3))) + 50
    else:
        pitch_hz = low + (high - low) * turn
    wail = harmonics(np.asarray(pitch_hz, float), rng, 8, rng.uniform(0.5, 1.5))
    return wail + 0.03 * coloured(len(time_s), rng, 1)


def chimes(time_s: Samples, rng: Rng) -> Samples:
    """Bells, glasses, chimes and gongs: partials that are no harmonics, struck."""
    total = np.zeros_like(time_s)
    base_hz = np.exp(rng.uniform(np.log(150), np.log(4000)))
    ratios = np.sort(rng.uniform(1, 8, 6))
    rate = np.exp(rng.uniform(np.log(0.5), np.log(20)))
    for start_s in starts(time_s, rng, np.exp(rng.uniform(np.log(0.2), np.log(5))), rng.random()):
        pitch = base_hz * 2 ** (rng.integers(-3, 4) / 12)
        for ratio in ratios:
            total += (
                rng.uniform(0.1, 1)
                * np.sin(2 * np.pi * pitch * ratio * time_s)
                * decay(time_s, start_s, rate * ratio)
            )
    return total


def theremin(time_s: Samples, rng: Rng) -> Samples:
    """Synthesised melodies: square, saw and sine, with vibrato and glides."""
    length_s = rng.uniform(0.08, 1)
    note = (time_s / length_s).astype(int)
    scale = np.array([0, 2, 3, 5, 7, 8, 10, 12])[rng.integers(0, 8, note[-1] + 1)]
    pitch_hz = np.exp(rng.uniform(np.log(80), np.log(1200))) * 2 ** (scale[note] / 12)
    pitch_hz *= 1 + rng.uniform(0, 0.02) * np.sin(2 * np.pi * rng.uniform(3, 8) * time_s)
    tone = harmonics(pitch_hz, rng, int(rng.choice([1, 4, 12, 24])), rng.uniform(0.3, 1.5))
    gate = np.exp(-rng.uniform(0, 6) * (time_s % length_s))
    return tone * gate


# --- noises of air, water and fire --------------------------------------------------------------


def noises(time_s: Samples, rng: Rng) -> Samples:
    """Noise of any colour and band, steady, swelling or switched."""
    low = np.exp(rng.uniform(np.log(20), np.log(1500))) if rng.random() < 0.5 else 20.0
    high = np.exp(rng.uniform(np.log(1500), np.log(8000))) if rng.random() < 0.5 else 8000.0
    noise = coloured(len(time_s), rng, rng.uniform(-0.3, 1.6), low, high)
    kind = rng.integers(4)
    if kind == 1:
        noise *= wander(len(time_s), rng, rng.uniform(0.3, 6))
    elif kind == 2:
        noise *= (time_s * rng.uniform(0.3, 12)) % 1 < rng.uniform(0.1, 0.9)
    return noise


def wind(time_s: Samples, rng: Rng) -> Samples:
    """Gusts of low noise, with a whistle now and then."""
    n = len(time_s)
    gusts = wander(n, rng, rng.uniform(0.3, 2)) ** 2
    total = coloured(n, rng, rng.uniform(0.8, 1.8), rng.uniform(20, 80)) * (0.1 + gusts)
    if rng.random() < 0.4:
        whistle_hz = rng.uniform(300, 1200) * (0.8 + 0.4 * gusts)
        total += 0.5 * gusts * harmonics(whistle_hz, rng, 2, 1.5)
    return total


def drops(time_s: Samples, rng: Rng) -> Samples:
    """Falling water: drops of many sizes, each a click or a ringing bubble, over a rush."""
    n = len(time_s)
    rate = np.exp(rng.uniform(np.log(3), np.log(3000)))
    hits = (rng.random(n) < rate / SAMPLE_RATE_HZ) * rng.exponential(1, n)
    ring_s = np.arange(int(0.03 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    kernel = np.zeros_like(ring_s)
    for _ in range(3):
        at_hz = np.exp(rng.uniform(np.log(500), np.log(7000)))
        kernel += np.sin(2 * np.pi * at_hz * ring_s) * np.exp(-rng.uniform(100, 1500) * ring_s)
    total = np.convolve(hits * rng.choice([-1, 1], n), kernel)[:n]
    rush = rng.choice([0, rng.uniform(0.02, 1)])
    total /= max(total.std(), 1e-9)
    hiss = coloured(n, rng, rng.uniform(-0.2, 0.9), rng.uniform(50, 1500))
    return np.asarray(total + rush * hiss)


def waves(time_s: Samples, rng: Rng) -> Samples:
    """Waves that roll in, break and hiss away, each a few seconds long."""
    n = len(time_s)
    total = rng.uniform(0.02, 0.3) * coloured(n, rng, rng.uniform(0.5, 1.2), 50)
    for start_s in starts(time_s, rng, rng.uniform(0.1, 0.4), 0.8):
        length_s = rng.uniform(2, 7)
        swell = burst(time_s, start_s - 1, length_s, rng.uniform(0.2, 0.7)) ** rng.uniform(1, 2)
        total += swell * coloured(n, rng, rng.uniform(0.3, 0.9), rng.uniform(40, 300))
        total += 0.4 * np.roll(swell, int(0.8 * SAMPLE_RATE_HZ)) * coloured(n, rng, 0.1, 1000)
    return total


def stream(time_s: Samples, rng: Rng) -> Samples:
    """Running water: bubbles whose pitch rises as they come up, over a rush."""
    n = len(time_s)
    total = rng.uniform(0.05, 0.6) * coloured(n, rng, rng.uniform(0.2, 1), rng.uniform(100, 600))
    for start_s in starts(time_s, rng, rng.uniform(3, 40), 1):
        low_hz = np.exp(rng.uniform(np.log(300), np.log(2500)))
        since = np.maximum(time_s - start_s, 0)
        pitch = low_hz * (1 + rng.uniform(0, 3) * since)
        loud = rng.exponential(0.6) * decay(time_s, start_s, rng.uniform(20, 90))
        total += loud * np.sin(2 * np.pi * pitch * since)
    return total


def fire(time_s: Samples, rng: Rng) -> Samples:
    """Crackles, snaps and hisses over a low roar."""
    n = len(time_s)
    total = rng.uniform(0, 0.3) * coloured(n, rng, rng.uniform(0.6, 1.3), 30, 2500)
    rate = np.exp(rng.uniform(np.log(5), np.log(80)))
    hits = (rng.random(n) < rate / SAMPLE_RATE_HZ) * rng.pareto(1.5, n).clip(0, 20)
    width = int(rng.uniform(0.0005, 0.006) * SAMPLE_RATE_HZ) + 2
    kernel = rng.standard_normal(width) * np.exp(-np.arange(width) / (width / 4))
    total += np.convolve(hits, kernel)[:n] * rng.uniform(0.2, 1)
    hiss = wander(n, rng, 4) ** 4
    return total + rng.uniform(0, 0.2) * hiss * coloured(n, rng, 0, 2000)


# --- machines -----------------------------------------------------------------------------------


def engines(time_s: Samples, rng: Rng) -> Samples:
    """Combustion: unequal firings that excite a body, revs that move; saws, cars, motorcycles."""
    n = len(time_s)
    base_hz = np.exp(rng.uniform(np.log(12), np.log(220)))
    revs = base_hz * (1 + rng.uniform(0, 0.6) * wander(n, rng, rng.uniform(0.2, 3)))
    phase = np.cumsum(revs) / SAMPLE_RATE_HZ
    firing = np.exp(-rng.uniform(3, 15) * (phase % 1))
    n_cylinders = int(rng.integers(1, 7))
    firing *= rng.uniform(0.5, 1, n_cylinders)[phase.astype(int) % n_cylinders]
    rough = firing * (1 + rng.uniform(0, 2) * rng.standard_normal(n))
    body = formed(rough, rng, list(np.exp(rng.uniform(np.log(80), np.log(4000), 4))), 0.25)
    load = 0.4 + 0.6 * wander(n, rng, rng.uniform(0.2, 2))
    body *= load / max(body.std(), 1e-9)
    return np.asarray(body + rng.uniform(0, 0.3) * coloured(n, rng, 0.8))


def rotors(time_s: Samples, rng: Rng) -> Samples:
    """Blades through air: rotors of aircraft, fans; the depth and shape of each chop vary."""
    n = len(time_s)
    rate_hz = np.exp(rng.uniform(np.log(7), np.log(60)))
    phase = np.cumsum(rate_hz * (1 + 0.03 * wander(n, rng, 0.7))) / SAMPLE_RATE_HZ
    chop = rng.uniform(0.05, 1) + np.exp(-rng.uniform(2, 12) * (phase % 1))
    total = chop * coloured(n, rng, rng.uniform(0.4, 1.4), rng.uniform(20, 120))
    if rng.random() < 0.6:
        whine_hz = np.full(n, rng.uniform(200, 3000))
        total += rng.uniform(0.05, 0.5) * harmonics(whine_hz, rng, 3, 1)
    return total * (0.5 + 0.5 * wander(n, rng, 0.4))


def motors(time_s: Samples, rng: Rng) -> Samples:
    """Electric motors and tools: a whine with its harmonics and brushes' noise, speed changing."""
    n = len(time_s)
    pitch = np.exp(rng.uniform(np.log(80), np.log(2500))) * (
        1 + rng.uniform(0, 0.5) * wander(n, rng, rng.uniform(0.2, 2))
    )
    whine = harmonics(pitch, rng, 12, rng.uniform(0.3, 1.3))
    return whine + rng.uniform(0.1, 2) * coloured(n, rng, rng.uniform(0, 0.8), 100)


def clicks(time_s: Samples, rng: Rng) -> Samples:
    """Mechanisms, keys, ticks, ratchets: short clicks at a rate, alike or not."""
    n = len(time_s)
    total = rng.choice([0, 1e-3, 0.02]) * coloured(n, rng, 0.5)
    rate = np.exp(rng.uniform(np.log(0.8), np.log(25)))
    variants = []
    click_s = np.arange(int(0.06 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    for _ in range(rng.integers(1, 4)):
        click = rng.uniform(0, 1) * rng.standard_normal(len(click_s))
        for _ in range(rng.integers(1, 4)):
            at_hz = np.exp(rng.uniform(np.log(300), np.log(7500)))
            click = click + np.sin(2 * np.pi * at_hz * click_s)
        variants.append(click * np.exp(-np.exp(rng.uniform(np.log(60), np.log(900))) * click_s))
    for i, start_s in enumerate(starts(time_s, rng, rate, rng.choice([0, 0.1, 1]))):
        at = int(start_s * SAMPLE_RATE_HZ)
        click = variants[i % len(variants)][: n - at] * rng.uniform(0.6, 1)
        total[at : at + len(click)] += click
    return np.asarray(total)


def trains(time_s: Samples, rng: Rng) -> Samples:
    """Wheels over joints, in pairs, and the rumble; or a horn of several pipes."""
    n = len(time_s)
    total = coloured(n, rng, rng.uniform(0.8, 1.4), 25) * 0.4
    gap_s = rng.uniform(0.05, 0.25)
    for start_s in starts(time_s, rng, rng.uniform(0.7, 3), 0.1):
        for at_s in (start_s, start_s + gap_s):
            total += decay(time_s, at_s, rng.uniform(15, 50)) * coloured(n, rng, 0.6, 60, 3000)
    if rng.random() < 0.4:
        gate = burst(time_s, rng.uniform(0, 2), rng.uniform(1, 4), 0.05) > 0
        for at_hz in rng.uniform(200, 700, 4):
            total += 0.6 * gate * harmonics(np.full(n, at_hz), rng, 8, 0.7)
    return total


def impacts(time_s: Samples, rng: Rng) -> Samples:
    """Knocks, steps, hammers, slams, shots and explosions: bursts from thud to crack."""
    n = len(time_s)
    total = np.zeros(n)
    rate = np.exp(rng.uniform(np.log(0.2), np.log(6)))
    slope, low = rng.uniform(0, 1.4), np.exp(rng.uniform(np.log(30), np.log(800)))
    fall = np.exp(rng.uniform(np.log(1.5), np.log(80)))
    for start_s in starts(time_s, rng, rate, rng.choice([0.1, 0.5, 1])):
        hit = decay(time_s, start_s, fall * rng.uniform(0.8, 1.2))
        total += rng.uniform(0.5, 1) * hit * coloured(n, rng, slope, low)
        if rng.random() < 0.4:
            at_hz = np.exp(rng.uniform(np.log(60), np.log(1500)))
            total += hit * np.sin(2 * np.pi * at_hz * time_s)
    return total


def pulses(time_s: Samples, rng: Rng) -> Samples:
    """Soft thuds in ones, twos or threes, as of pumps, bodies and distant drums."""
    total = rng.uniform(0, 0.1) * coloured(len(time_s), rng, 1)
    offsets = np.cumsum(rng.uniform(0.1, 0.4, rng.integers(1, 4)))
    width = rng.uniform(0.012, 0.08)
    at_hz = rng.uniform(35, 160)
    for start_s in starts(time_s, rng, rng.uniform(0.6, 3), rng.uniform(0, 0.2)):
        for offset in offsets:
            since = time_s - start_s - offset
            thud = np.sin(2 * np.pi * at_hz * rng.uniform(0.9, 1.1) * since)
            total += rng.uniform(0.4, 1) * thud * np.exp(-((since / width) ** 2))
    return total


def static(time_s: Samples, rng: Rng) -> Samples:
    """Hum of the mains, crackle and hiss of bad contacts and radios."""
    n = len(time_s)
    mains = rng.choice([50.0, 60.0, 100.0, 120.0])
    total = rng.uniform(0, 1) * harmonics(np.full(n, mains), rng, 20, rng.uniform(0.2, 1.5))
    total += rng.uniform(0, 1) * coloured(n, rng, 0) * (wander(n, rng, 5) > rng.uniform(0, 0.8))
    return total + rng.uniform(0, 20) * (rng.random(n) < 0.002) * rng.standard_normal(n)


# --- animals and people -------------------------------------------------------------------------


def insects(time_s: Samples, rng: Rng) -> Samples:
    """Choirs of insects and flies: carriers, pulsed and grouped in chirps, or a buzz that moves."""
    n = len(time_s)
    total = rng.uniform(0, 0.05) * coloured(n, rng, 0.3)
    for _ in range(rng.integers(1, 5)):
        if rng.random() < 0.25:
            pitch = rng.uniform(120, 600) * (1 + 0.2 * wander(n, rng, 3))
            total += harmonics(pitch, rng, 15, 0.7) * wander(n, rng, 2)
            continue
        carrier = np.exp(rng.uniform(np.log(2000), np.log(7500)))
        beats = np.exp(rng.uniform(np.log(12), np.log(200)))
        pulse = np.maximum(np.sin(2 * np.pi * beats * time_s + rng.uniform(0, 6)), 0)
        period = rng.uniform(0.3, 3)
        gate = ((time_s + rng.uniform(0, 3)) % period) < rng.uniform(0.2, 1.0) * period
        tone = np.sin(2 * np.pi * carrier * (1 + 0.003 * wander(n, rng, 5)) * time_s)
        total += rng.uniform(0.2, 1) * tone * pulse * gate
    return total


def frogs(time_s: Samples, rng: Rng) -> Samples:
    """Croaks and peeps: pulse trains through a resonance."""
    n = len(time_s)
    rate, centre = rng.uniform(20, 120), rng.uniform(300, 3000)
    carrier = np.sin(2 * np.pi * centre * time_s) * np.exp(-5 * ((time_s * rate) % 1))
    total = 0.02 * coloured(n, rng, 0.8)
    length = rng.uniform(0.1, 0.8)
    for start_s in starts(time_s, rng, rng.uniform(0.5, 3), 0.5):
        total += carrier * burst(time_s, start_s, length, 0.3) * rng.uniform(0.4, 1)
    return total


def birds(time_s: Samples, rng: Rng) -> Samples:
    """Phrases of whistles: each syllable a glide, a trill or a flat note."""
    n = len(time_s)
    total = rng.uniform(0, 0.03) * coloured(n, rng, 0.8)
    for _ in range(rng.integers(1, 4)):
        base = np.exp(rng.uniform(np.log(800), np.log(6500)))
        length = rng.uniform(0.03, 0.4)
        bend, trill = rng.uniform(-0.6, 0.6), rng.choice([0, rng.uniform(10, 40)])
        buzz = int(rng.choice([1, 1, 3]))
        for start_s in starts(time_s, rng, rng.uniform(0.5, 7), rng.random()):
            x = (time_s - start_s) / length
            inside = (x >= 0) & (x < 1)
            pitch = base * (1 + bend * (x - 0.5) * inside)
            pitch = pitch * (1 + 0.1 * np.sin(2 * np.pi * trill * time_s))
            envelope = np.where(inside, np.sin(np.pi * np.clip(x, 0, 1)), 0)
            total += rng.uniform(0.3, 1) * envelope * harmonics(pitch, rng, buzz, 2)
    return total


# Animals and people by voice: pitch and its course, length, resonances, how rough the voice is.
# (name, lowest pitch, highest, shortest call, longest, calls a second, course, resonances, rough)
_Voice = tuple[str, float, float, float, float, float, str, tuple[float, ...], float]
_VOICES: tuple[_Voice, ...] = (
    ("bark", 250, 900, 0.08, 0.3, 1.5, "hump", (700, 1500, 2800), 0.8),
    ("growl", 50, 140, 0.5, 2.5, 0.5, "flat", (400, 900, 1800), 1.0),
    ("howl", 250, 800, 1.0, 4.0, 0.3, "hump", (600, 1200), 0.05),
    ("crow", 400, 1100, 0.12, 1.2, 1.0, "syllables", (1000, 2200, 3500), 0.25),
    ("cluck", 250, 700, 0.05, 0.2, 3.0, "fall", (900, 2000), 0.4),
    ("meow", 350, 900, 0.4, 1.2, 0.7, "hump", (900, 1900, 3200), 0.1),
    ("moo", 70, 200, 0.8, 2.5, 0.3, "hump", (350, 800, 2000), 0.2),
    ("bleat", 200, 600, 0.4, 1.3, 0.6, "tremolo", (800, 1600, 2800), 0.3),
    ("quack", 180, 450, 0.08, 0.25, 3.0, "fall", (1200, 2400), 0.6),
    ("oink", 80, 300, 0.15, 0.5, 1.5, "flat", (500, 1500), 0.9),
    ("neigh", 500, 1600, 0.8, 2.0, 0.4, "tremolo", (1000, 2500), 0.4),
    ("roar", 40, 160, 0.8, 3.0, 0.4, "hump", (350, 700, 1400), 1.0),
    ("caw", 350, 900, 0.2, 0.5, 1.2, "fall", (1300, 2300), 0.7),
    ("hoot", 250, 600, 0.2, 0.7, 0.8, "flat", (400,), 0.02),
    ("cry", 320, 650, 0.5, 1.4, 0.8, "hump", (1000, 1700, 3300), 0.15),
    ("laugh", 130, 450, 0.07, 0.18, 4.5, "fall", (700, 1300, 2600), 0.4),
    ("scream", 600, 1800, 0.5, 2.0, 0.5, "hump", (1200, 2600, 3600), 0.4),
    ("cough", 90, 250, 0.1, 0.3, 1.2, "fall", (700, 1500, 2800), 1.6),
    ("sneeze", 200, 600, 0.15, 0.5, 0.5, "fall", (1500, 3000, 5000), 2.5),
    ("breath", 60, 120, 0.4, 1.5, 0.6, "flat", (700, 1800, 3500), 8.0),
    ("snore", 30, 90, 0.6, 1.8, 0.3, "flat", (300, 900, 2200), 1.5),
    ("hum", 90, 400, 0.5, 3.0, 0.4, "flat", (300,), 0.02),
)  # fmt: skip


def voices(time_s: Samples, rng: Rng) -> Samples:
    """Calls of animals and people: a buzzing source with a course of pitch, through a throat."""
    _, low, high, shortest, longest, rate, course, resonances, rough = _VOICES[
        rng.integers(len(_VOICES))
    ]
    n = len(time_s)
    total = rng.uniform(0, 0.02) * coloured(n, rng, 0.8)
    base = np.exp(rng.uniform(np.log(low), np.log(high)))
    rough *= rng.uniform(0.5, 1.5)
    size = rng.uniform(0.8, 1.25)
    for start_s in starts(time_s, rng, rate * rng.uniform(0.6, 1.4), rng.uniform(0, 0.6)):
        length = rng.uniform(shortest, longest)
        x = np.clip((time_s - start_s) / length, 0, 1)
        pitch = base * rng.uniform(0.9, 1.1) * _course(course, x, time_s, rng)
        source = harmonics(pitch, rng, 30, rng.uniform(0.4, 1.2))
        source = source + rough * rng.standard_normal(n)
        envelope = np.clip(np.sin(np.pi * x), 0, None) ** rng.uniform(0.4, 1.2)
        if course == "syllables":
            envelope = envelope * (0.4 + 0.6 * (np.sin(2 * np.pi * 2.5 * x) ** 2))
        total += formed(source * envelope, rng, [size * r for r in resonances], 0.18)
    return total


def _course(kind: str, x: Samples, time_s: Samples, rng: Rng) -> Samples:
    """How the pitch moves over a call, x from 0 to 1; around 1."""
    depth = rng.uniform(0.1, 0.5)
    if kind == "hump":
        return 1 + depth * (np.sin(np.pi * x) - 0.5)
    if kind == "fall":
        return 1 + depth * (0.5 - x)
    if kind == "tremolo":
        return 1 + 0.15 * np.sin(2 * np.pi * rng.uniform(6, 12) * time_s)
    if kind == "syllables":
        return 1 + depth * np.sin(np.pi * x) + 0.1 * np.sign(np.sin(2 * np.pi * 3 * x))
    return 1 + 0.05 * np.sin(2 * np.pi * rng.uniform(2, 6) * time_s)


def crowds(time_s: Samples, rng: Rng) -> Samples:
    """Applause and rain of claps: many short bursts, dense or thin, and murmurs below."""
    n = len(time_s)
    rate = np.exp(rng.uniform(np.log(2), np.log(400)))
    hits = (rng.random(n) < rate / SAMPLE_RATE_HZ) * rng.exponential(1, n)
    clap_s = np.arange(int(0.02 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    clap = coloured(len(clap_s), rng, 0.2, 400, 5000) * np.exp(-rng.uniform(150, 600) * clap_s)
    total = np.convolve(hits, clap)[:n]
    total /= max(total.std(), 1e-9)
    murmur = coloured(n, rng, 0.8, 150, 2500) * wander(n, rng, 5)
    return total + rng.uniform(0, 0.6) * murmur


def percussion(time_s: Samples, rng: Rng) -> Samples:
    """Patterns of drums that are all random: skins, rims, rattles, metal."""
    n = len(time_s)
    step_s = rng.uniform(0.1, 0.3)
    total = np.zeros(n)
    for _ in range(rng.integers(1, 5)):
        pattern = rng.random(16) < rng.uniform(0.1, 0.7)
        at_hz, fall = np.exp(rng.uniform(np.log(40), np.log(900))), rng.uniform(5, 60)
        mix = rng.uniform(0, 1)
        hiss = coloured(n, rng, -0.2, np.exp(rng.uniform(np.log(100), np.log(5000))))
        drop = rng.uniform(0, 4)
        for i in range(int(time_s[-1] / step_s)):
            if pattern[i % 16]:
                since = np.maximum(time_s - i * step_s, 0)
                skin = np.sin(2 * np.pi * (at_hz * since + drop * (1 - np.exp(-30 * since))))
                total += decay(time_s, i * step_s, fall) * (mix * skin + (1 - mix) * hiss)
    return total


RECIPES: tuple[Make, ...] = (
    steady_tones, switched_tones, telephone, sweeps, sirens, chimes, theremin, noises, wind, drops,
    waves, stream, fire, engines, rotors, motors, clicks, trains, impacts, pulses, static, insects,
    frogs, birds, voices, voices, voices, crowds, percussion,
)  # fmt: skip
"""Every recipe; that of voices stands for 22 kinds, and is drawn more often."""


def make(recipe: Make, rng: Rng, duration_s: float) -> NDArray[np.float32]:
    """One sound of a recipe, peak between 0.05 and 0.9. Shape: ``[16,000 * duration_s]``."""
    time_s = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    sound = recipe(time_s, rng)
    peak = max(float(np.abs(sound).max()), 1e-9)
    level = np.exp(rng.uniform(np.log(0.05), np.log(0.9)))
    return np.asarray(sound * (level / peak), np.float32)
