"""Waves that repeat every ten frames, and noise that is the same every time.

Every frequency is a multiple of 2.5 Hz and every phase counts from the start of the song, so that the sound
of a frame depends on its labels and on its number mod 10 alone. C channels, N audio samples.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from songgen_core.configs import FRAME_RATE, SAMPLE_RATE

Wave = NDArray[np.float32]

FRAME = SAMPLE_RATE // FRAME_RATE  # samples
PERIOD_FRAMES = 10
PERIOD = PERIOD_FRAMES * FRAME
GRID = SAMPLE_RATE / PERIOD  # 2.5 Hz


def grid_steps(midi: int) -> int:
    """The frequency of a note in steps of 2.5 Hz, nearest to equal temperament at A4 = 440 Hz."""
    return round(440 * 2 ** ((midi - 69) / 12) / GRID)


def periodic(steps: ArrayLike, amplitudes: ArrayLike) -> Wave:
    """[PERIOD]: the sum of sines of `steps` * 2.5 Hz that all begin with the song."""
    spectrum = np.zeros(PERIOD // 2 + 1, np.complex128)
    np.add.at(spectrum, np.asarray(steps), -0.5j * PERIOD * np.asarray(amplitudes))
    return np.fft.irfft(spectrum, PERIOD).astype(np.float32)


def unroll(period: Wave, start: int, end: int) -> Wave:
    """Samples `start` to `end` of the song from a period [..., PERIOD]."""
    first = start % PERIOD
    times = -(-(first + end - start) // PERIOD)
    whole = period if times == 1 else np.tile(period, times)
    return whole[..., first : first + end - start]


def shaped_noise(seed: int, samples: int, bands: ArrayLike) -> Wave:
    """[samples] of noise with RMS 1; rows of `bands` are hills of its spectrum: centre, width, height."""
    # The old generator: its numbers are promised never to change.
    white = np.fft.rfft(np.random.RandomState(seed).standard_normal(samples))
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    centre, width, height = np.asarray(bands, np.float64).T[:, :, None]
    shape = (height * np.exp(-0.5 * ((frequency - centre) / width) ** 2)).sum(0)
    noise = np.fft.irfft(white * shape, samples)
    return (noise / np.sqrt(np.mean(noise**2))).astype(np.float32)


def rise(samples: int) -> Wave:
    """From 0 to 1; together with its mirror image it is 1 everywhere."""
    return (np.sin(0.5 * np.pi * (np.arange(samples) + 0.5) / samples) ** 2).astype(np.float32)


def decay(samples: int, frames: float) -> Wave:
    """1 at the start, 1/e after `frames`."""
    return np.exp(-np.arange(samples) / (frames * FRAME)).astype(np.float32)
