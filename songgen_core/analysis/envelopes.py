"""Loudness, onsets and bands of a recording, one value for each picture of a video.

Letters: C channels, N samples, T pictures, B bands.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import AudioError
from ..progress import IsCancelled, never_cancelled
from .beats import ONSET_RATE, Array
from .spectra import band_filters, log_edges, powers, window_size

SLOWEST_FPS, FASTEST_FPS = 1.0, 120.0
QUIETEST_DB = -100.0

_SHORTEST_WINDOW = 0.05  # seconds; less follows single waves of the bass
_RANGE_DB = 50.0  # from 0 to 1: what lies this far below the loudest moment counts as silent
_BAND_RANGE_DB = 60.0
_BAND_WINDOW = 0.046
_LOWEST_HZ, _HIGHEST_HZ = 40.0, 16000.0


@dataclass(frozen=True)
class Envelopes:
    """One value per picture; picture i is about the moment (i + 0.5) / fps.

    `loudness_db`: level (RMS) in dBFS, a full-scale sine is -3, silence -100. `loudness`: the same from 0
    (50 dB below the loudest moment) to 1. `onsets`: how strongly something begins during the picture, 0..1.
    `bands`: for each band, from the lowest one on, its level 0..1 (60 dB); `band_edges` in Hz.
    """

    fps: float
    loudness_db: tuple[float, ...]
    loudness: tuple[float, ...]
    onsets: tuple[float, ...]
    bands: tuple[tuple[float, ...], ...]
    band_edges: tuple[float, ...]

    @property
    def frames(self) -> int:
        return len(self.loudness)


def frame_count(seconds: float, fps: float) -> int:
    """Pictures that last `seconds`, rounded half up; at least one. Raises AudioError unless fps is 1..120."""
    if not SLOWEST_FPS <= fps <= FASTEST_FPS:
        raise AudioError(f"fps is {fps}; choose {SLOWEST_FPS:g} to {FASTEST_FPS:g} pictures per second")
    return max(1, math.floor(seconds * fps + 0.5))


def frame_centres(frames: int, fps: float) -> Tensor:
    """[T] float64: the middle of each picture in seconds, without an error that adds up."""
    return (torch.arange(frames, dtype=torch.float64) + 0.5) / fps


def measure_envelopes(
    audio: Tensor,
    mono: Tensor,
    sample_rate: int,
    fps: float,
    onsets: Array,
    num_bands: int = 8,
    cancelled: IsCancelled = never_cancelled,
) -> Envelopes:
    """Envelopes of audio [C, N], its mono mix [N] and its onset strengths, one per hundredth of a second."""
    frames = frame_count(audio.shape[1] / sample_rate, fps)
    decibels = _levels(audio, sample_rate, fps, frames)
    top = max(float(decibels.max()), QUIETEST_DB + _RANGE_DB)
    loudness = ((decibels - top) / _RANGE_DB + 1).clamp(0, 1)
    bands, edges = band_levels(mono, sample_rate, frame_centres(frames, fps), num_bands, cancelled)
    return Envelopes(
        fps,
        _rounded(decibels, 2),
        _rounded(loudness),
        _rounded(torch.from_numpy(resample_onsets(onsets, fps, frames))),
        tuple(_rounded(band) for band in bands.T),
        _rounded(edges, 1),
    )


def resample_onsets(onsets: Array, fps: float, frames: int) -> Array:
    """[hundredths of a second] -> [frames] in 0..1: the strongest onset within each picture; 1 is usual."""
    top = float(np.percentile(onsets, 99))
    top = top if top > 0 else float(onsets.max())
    if top <= 0:
        return np.zeros(frames)
    parts = max(1, math.ceil(2 * ONSET_RATE / fps))
    moments = (np.arange(frames * parts) + 0.5) / (parts * fps)
    values = np.interp(moments * ONSET_RATE, np.arange(len(onsets)), onsets)
    return np.clip(values.reshape(frames, parts).max(1) / top, 0.0, 1.0)


def band_levels(
    mono: Tensor,
    sample_rate: int,
    moments: Tensor,
    num_bands: int,
    cancelled: IsCancelled = never_cancelled,
) -> tuple[Tensor, Tensor]:
    """[N] -> [T, B] in 0..1, where 1 is the loudest moment of the loudest band, and edges [B + 1] in Hz.

    Bands are equally wide to the ear; the weak treble is lifted by 3 dB per octave, as music falls.
    """
    size = window_size(_BAND_WINDOW, sample_rate)
    edges = log_edges(_LOWEST_HZ, _HIGHEST_HZ, num_bands, sample_rate)
    power = powers(mono, sample_rate, moments, band_filters(size, sample_rate, edges), cancelled)
    middle = (edges[:-1] * edges[1:]).sqrt()
    # A band that grows with its frequency lifts pink noise's 3 dB already; this is the other half of music.
    decibels = 10 * torch.log10(power.clamp(min=1e-13)) + 3 * torch.log2(middle / middle[0])
    top = max(float(decibels.max()), QUIETEST_DB + _BAND_RANGE_DB)
    return ((decibels - top) / _BAND_RANGE_DB + 1).clamp(0, 1), edges


def _levels(audio: Tensor, sample_rate: int, fps: float, frames: int) -> Tensor:
    """[C, N] -> [T] dBFS: RMS of all channels around the middle of each picture."""
    power = audio.detach().to("cpu", torch.float64).square().mean(0)
    sums = pad(power.cumsum(0), (1, 0))
    reach = max(1 / fps, _SHORTEST_WINDOW) * sample_rate / 2
    centres = frame_centres(frames, fps) * sample_rate
    last = audio.shape[1]
    low = (centres - reach).round().long().clamp(0, last - 1)
    high = torch.maximum((centres + reach).round().long().clamp(0, last), low + 1)
    mean = (sums[high] - sums[low]) / (high - low)
    return 10 * torch.log10(mean.clamp(min=10 ** (QUIETEST_DB / 10)))


def _rounded(values: Tensor, digits: int = 4) -> tuple[float, ...]:
    """Plain floats; short ones, as they end up in JSON."""
    return tuple(round(value, digits) for value in values.tolist())
