"""Demo sounds that are computed, so that their AudioSet class is known.

They need no download and no licence, and show the whole pipeline within a minute. Each recipe is
the physics of its name (a dial tone *is* 350 + 440 Hz), tuned until YAMNet agrees. Its random
numbers are seeded by the file name, so that adding or removing a sound changes no other. Together
they have the usual sample rates, channel counts and containers.

Source: call progress tones, ITU-T E.180 Supplement 2; smoke alarms, about 3.1 kHz, NFPA 72.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audioset_core.arrays import F64
from audioset_core.storage.atomic_files import write_many

Samples = F64
# (time of each sample in seconds, random numbers) -> samples, at any scale
Make = Callable[[Samples, np.random.Generator], Samples]


@dataclass(frozen=True, slots=True)
class DemoSound:
    """One file to make; a model is right if any of `expected` is among its best three classes."""

    file_name: str
    expected: tuple[str, ...]
    make: Make
    sample_rate_hz: int
    n_channels: int = 1
    duration_s: float = 8.0
    peak: float = 0.6

    def samples(self) -> Samples:
        """The sound itself, the same on every call.

        Shape:
            [duration_s * sample_rate_hz, n_channels], within [-peak, peak]
        """
        time_s = np.arange(round(self.duration_s * self.sample_rate_hz)) / self.sample_rate_hz
        rng = np.random.default_rng(zlib.crc32(self.file_name.encode()))
        mono = self.make(time_s, rng)
        mono *= self.peak / max(np.abs(mono).max(), 1e-9)
        # Channels of different loudness, so that averaging them is not the same as taking one.
        return mono[:, np.newaxis] * 0.8 ** np.arange(self.n_channels)


def write_demo(folder: Path) -> tuple[DemoSound, ...]:
    """Write every demo sound into the folder; returns the sounds.

    A file that exists already is kept: libsndfile puts a random serial number into an Ogg stream,
    and a second demo should find the same recordings, not new ones.

    Raises:
        OSError: the folder cannot be written.
    """
    missing = (sound for sound in DEMO_SOUNDS if not (folder / sound.file_name).exists())
    write_many((folder / sound.file_name, _encoded(sound)) for sound in missing)
    return DEMO_SOUNDS


def _encoded(sound: DemoSound) -> bytes:
    # Imported here: reading the list of sounds should not load libsndfile.
    import soundfile

    container = Path(sound.file_name).suffix[1:]
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        sound.samples(),
        sound.sample_rate_hz,
        format=container,
        subtype="VORBIS" if container == "ogg" else "PCM_16",
    )
    return buffer.getvalue()


# --- building blocks ----------------------------------------------------------------------------


def _tones(time_s: Samples, *partials: tuple[float, float]) -> Samples:
    """Sum of sines, each (frequency in Hz, amplitude)."""
    total = np.zeros_like(time_s)
    for frequency_hz, amplitude in partials:
        total += amplitude * np.sin(2 * np.pi * frequency_hz * time_s)
    return total


def _gate(time_s: Samples, *, on_s: float, period_s: float) -> Samples:
    """1 while switched on, 0 otherwise."""
    return np.asarray(time_s % period_s < on_s, dtype=np.float64)


def _decay(time_s: Samples, start_s: float, rate: float) -> Samples:
    """exp(-rate t) from a start, 0 before."""
    since_s = time_s - start_s
    return np.where(since_s >= 0, np.exp(-rate * np.maximum(since_s, 0)), 0)


def _noise(
    time_s: Samples, rng: np.random.Generator, *, slope: float, low_hz: float = 20.0
) -> Samples:
    """Gaussian noise of variance 1 whose amplitude falls as 1 / f^slope above `low_hz`."""
    frequency_hz = np.fft.rfftfreq(len(time_s), time_s[1])
    gain = np.maximum(frequency_hz, low_hz) ** -slope * (frequency_hz >= low_hz)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(len(time_s))) * gain, len(time_s))
    return np.asarray(noise / noise.std())


def _in_room(
    dry: Samples, time_s: Samples, rng: np.random.Generator, *, reverb_s: float, wet: float
) -> Samples:
    """Add reverberation: convolve with noise that decays by 60 dB in `reverb_s`."""
    tail_s = time_s[time_s < 1.5 * reverb_s]
    tail = rng.standard_normal(len(tail_s)) * np.exp(-np.log(1e3) * tail_s / reverb_s)
    tail *= wet / np.sqrt(np.sum(tail**2))
    n_fft = len(dry) + len(tail)
    echo = np.fft.irfft(np.fft.rfft(dry, n_fft) * np.fft.rfft(tail, n_fft), n_fft)
    return np.asarray(dry + echo[: len(dry)])


# --- recipes ------------------------------------------------------------------------------------


def _dial_tone(time_s: Samples, _: np.random.Generator) -> Samples:
    return _tones(time_s, (350, 1), (440, 1))


def _busy_signal(time_s: Samples, _: np.random.Generator) -> Samples:
    return _tones(time_s, (480, 1), (620, 1)) * _gate(time_s, on_s=0.5, period_s=1)


def _siren(time_s: Samples, rng: np.random.Generator) -> Samples:
    """A wail between 500 and 1500 Hz every 4 s, with overtones."""
    frequency_hz = 1000 - 500 * np.cos(2 * np.pi * time_s / 4)
    cycles = np.cumsum(frequency_hz) * time_s[1]
    wail = _tones(cycles, (1, 1), (2, 0.5), (3, 0.4), (4, 0.2))
    return np.asarray(wail + 0.02 * rng.standard_normal(len(time_s)))


def _smoke_alarm(time_s: Samples, rng: np.random.Generator) -> Samples:
    beeps = _tones(time_s, (3100, 1), (6200, 0.3)) * _gate(time_s, on_s=0.3, period_s=0.6)
    return _in_room(beeps, time_s, rng, reverb_s=0.3, wet=0.2)


def _alarm_bell(time_s: Samples, rng: np.random.Generator) -> Samples:
    """A hammer that hits a small bell 20 times a second."""
    bell = _tones(time_s, (1500, 1), (1875, 0.8), (3100, 0.7), (4100, 0.6), (5200, 0.4))
    ringing = bell * np.exp(-5 * (time_s % 0.05)) * _gate(time_s, on_s=2, period_s=2.5)
    return _in_room(ringing, time_s, rng, reverb_s=0.4, wet=0.3)


def _beeps(time_s: Samples, _: np.random.Generator) -> Samples:
    return _tones(time_s, (1000, 1)) * _gate(time_s, on_s=0.5, period_s=1)


def _sine_sweep(time_s: Samples, _: np.random.Generator) -> Samples:
    """From 300 to 1000 Hz, in equal time per octave."""
    growth = np.log(1000 / 300) / time_s[-1]
    return np.asarray(np.sin(2 * np.pi * 300 * np.expm1(growth * time_s) / growth))


def _clock(time_s: Samples, rng: np.random.Generator) -> Samples:
    """Tick and tock, a little lower, twice a second."""
    total = 1e-3 * rng.standard_normal(len(time_s))
    for i, start_s in enumerate(np.arange(0.1, time_s[-1], 0.5).tolist()):
        click = np.sin(2 * np.pi * (5600 if i % 2 else 6500) * (time_s - start_s))
        click += 0.2 * rng.standard_normal(len(time_s))
        total += click * _decay(time_s, start_s, 250)
    return total


def _heartbeat(time_s: Samples, rng: np.random.Generator) -> Samples:
    """Two short thuds, 70 a minute, over the rush of blood."""
    total = 0.02 * _noise(time_s, rng, slope=1)
    for start_s in np.arange(0.2, time_s[-1], 0.85).tolist():
        for at_s, frequency_hz, loudness in ((start_s, 50, 1.0), (start_s + 0.3, 65, 0.6)):
            since_s = time_s - at_s
            thud = _tones(since_s, (frequency_hz, 1), (2 * frequency_hz, 0.3))
            total += loudness * thud * np.exp(-((since_s / 0.03) ** 2))
    return total


def _crickets(time_s: Samples, rng: np.random.Generator) -> Samples:
    """4.5 kHz, pulsed 35 times a second, in chirps of 0.3 s."""
    pulses = np.maximum(np.sin(2 * np.pi * 35 * time_s), 0)
    song = _tones(time_s, (4500, 1)) * pulses * _gate(time_s, on_s=0.3, period_s=0.7)
    return np.asarray(song + 0.003 * rng.standard_normal(len(time_s)))


def _helicopter(time_s: Samples, rng: np.random.Generator) -> Samples:
    """Four blades, not quite alike, chop rumbling air 16 times a second."""
    air = _noise(time_s, rng, slope=1, low_hz=30)
    turns = np.cumsum(16 * (1 + 0.02 * np.sin(2 * np.pi * 0.7 * time_s))) * time_s[1]
    blade = np.array([1, 0.7, 0.9, 0.8])[turns.astype(np.int64) % 4]
    chopped = air * (0.5 + blade * np.exp(-2.5 * (turns % 1)))
    return _in_room(chopped, time_s, rng, reverb_s=0.2, wet=0.3)


def _surf(time_s: Samples, rng: np.random.Generator) -> Samples:
    """Low noise that swells and falls."""
    knots_s = np.arange(0, time_s[-1] + 0.7, 0.7)
    swell = np.interp(time_s, knots_s, rng.uniform(0.2, 1, len(knots_s)))
    return np.asarray(_noise(time_s, rng, slope=1, low_hz=40) * swell)


def _rain(time_s: Samples, rng: np.random.Generator) -> Samples:
    """Drops at random times, 400 a second, over a hiss."""
    drops = rng.random(len(time_s)) < 400 * time_s[1]
    return np.asarray(rng.standard_normal(len(time_s)) * (drops + 0.1))


def _drum_machine(time_s: Samples, rng: np.random.Generator) -> Samples:
    """120 beats a minute: bass drum on 1, snare on 3, hi-hat on every eighth."""
    total = np.zeros_like(time_s)
    for i, start_s in enumerate(np.arange(0, time_s[-1], 0.25).tolist()):
        since_s = np.maximum(time_s - start_s, 0)
        if i % 4 == 0:
            # The pitch of the skin falls as it comes to rest.
            cycles = 50 * since_s + 4 * (1 - np.exp(-30 * since_s))
            total += 1.2 * np.sin(2 * np.pi * cycles) * _decay(time_s, start_s, 12)
        if i % 4 == 2:
            total += 0.5 * rng.standard_normal(len(time_s)) * _decay(time_s, start_s, 25)
            total += 0.5 * _tones(since_s, (190, 1)) * _decay(time_s, start_s, 30)
        hiss = np.diff(rng.standard_normal(len(time_s) + 1))
        total += 0.15 * hiss * _decay(time_s, start_s, 70)
    return total


def _white_noise(time_s: Samples, rng: np.random.Generator) -> Samples:
    return rng.standard_normal(len(time_s))


def _pink_noise(time_s: Samples, rng: np.random.Generator) -> Samples:
    return _noise(time_s, rng, slope=0.5)


def _silence(time_s: Samples, _: np.random.Generator) -> Samples:
    return np.zeros_like(time_s)


DEMO_SOUNDS: tuple[DemoSound, ...] = (
    DemoSound("alarm_bell.wav", ("Alarm", "Fire alarm"), _alarm_bell, 48_000),
    DemoSound("beeps.wav", ("Beep, bleep",), _beeps, 22_050, duration_s=6),
    DemoSound("busy_signal.wav", ("Busy signal",), _busy_signal, 16_000),
    DemoSound("clock.wav", ("Tick", "Tick-tock", "Clock"), _clock, 44_100),
    DemoSound("crickets.flac", ("Cricket",), _crickets, 44_100, n_channels=2),
    DemoSound("dial_tone.wav", ("Dial tone",), _dial_tone, 48_000, duration_s=5),
    DemoSound("drum_machine.wav", ("Drum machine", "Drum kit"), _drum_machine, 44_100, 2, 10),
    DemoSound("heartbeat.wav", ("Heart sounds, heartbeat",), _heartbeat, 22_050, 1, 10, 0.9),
    DemoSound("helicopter.wav", ("Helicopter",), _helicopter, 44_100, duration_s=10),
    DemoSound("pink_noise.wav", ("Pink noise",), _pink_noise, 32_000, peak=0.1),
    DemoSound("rain.wav", ("Rain", "Rain on surface", "Raindrop"), _rain, 44_100, 2, 8, 0.9),
    DemoSound("silence.wav", ("Silence",), _silence, 48_000, n_channels=2, duration_s=5),
    DemoSound("sine_sweep.wav", ("Sine wave",), _sine_sweep, 44_100),
    DemoSound("siren.wav", ("Siren",), _siren, 44_100, n_channels=2, duration_s=10),
    DemoSound("smoke_alarm.wav", ("Smoke detector, smoke alarm",), _smoke_alarm, 44_100),
    DemoSound("surf.ogg", ("Ocean", "Waves, surf"), _surf, 44_100, duration_s=10),
    DemoSound("white_noise.wav", ("White noise",), _white_noise, 48_000, duration_s=6, peak=0.3),
)
