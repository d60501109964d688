"""The pitch of a voice, moment by moment, from its likeness to itself one period later.

Letters: C channels, N samples, T frames of a hundredth of a second, L lags in samples.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from ..analysis.beats import Array
from ..analysis.spectra import check_cancelled, to_mono
from ..analysis.voice import VOICE_RATE, find_voice
from ..progress import IsCancelled, never_cancelled

PITCH_RATE = 100  # frames per second
LOW_RATE = 16000  # Hz; all of a voice that tells its pitch and its vowels
CLEAR = 0.6  # likeness from which on a frame has a pitch: noise stays below 0.4, a voice is above 0.9

_WINDOW, _REACH = 640, 320  # samples that are compared, and the longest period: 50 Hz
_LOWEST_HZ, _HIGHEST_HZ = 75.0, 1000.0
_NEARLY = 0.9  # of the best likeness; the shortest such period counts, as twice a period is one as well
_BLOCK = 1024  # frames per pass, which bounds the memory


@dataclass(frozen=True, eq=False)
class Pitch:
    """Of every frame [T]: `midi`, NaN where there is no pitch; whether a voice is `heard`, hissing too."""

    midi: Array
    heard: NDArray[np.bool_]

    @property
    def voiced(self) -> NDArray[np.bool_]:
        """Where something is sung on a pitch."""
        return ~np.isnan(self.midi)

    @property
    def median(self) -> float | None:
        """MIDI number, None where nothing has a pitch."""
        return round(float(np.nanmedian(self.midi)), 2) if self.voiced.any() else None


def find_pitch(vocal: Tensor, sample_rate: int, cancelled: IsCancelled = never_cancelled) -> Pitch:
    """Pitch of a vocal stem [C, N]. Raises AudioError for unusable audio, Cancelled."""
    activity = find_voice(vocal, sample_rate)
    mono = at_low_rate(to_mono(vocal), sample_rate)
    frames = max(1, round(vocal.shape[1] / sample_rate * PITCH_RATE))
    place = np.arange(frames) * VOICE_RATE // PITCH_RATE
    heard = activity[np.minimum(place, len(activity) - 1)] > 0
    midi = np.concatenate([_pitches(block, cancelled) for block in _windows(mono, frames).split(_BLOCK)])
    return Pitch(np.where(heard, midi, np.nan), heard)


def at_low_rate(mono: Tensor, sample_rate: int) -> Tensor:
    """[N] -> [N * 16000 / sample_rate]: what the new rate cannot hold is left out."""
    samples = max(2, round(mono.shape[0] * LOW_RATE / sample_rate))
    spectrum = torch.fft.rfft(mono)[: samples // 2 + 1]
    return torch.fft.irfft(spectrum, samples) * (samples / mono.shape[0])


def _windows(mono: Tensor, frames: int) -> Tensor:
    """[T, window + reach] around the middle of each frame."""
    size = _WINDOW + _REACH
    middle = ((torch.arange(frames) + 0.5) * LOW_RATE / PITCH_RATE).long()
    padded = pad(mono, (size // 2, size))
    return padded[middle[:, None] + torch.arange(size)]


def _pitches(windows: Tensor, cancelled: IsCancelled) -> Array:
    """[T, window + reach] -> MIDI numbers [T], NaN where nothing repeats."""
    check_cancelled(cancelled)
    windows = windows.double() - windows.double().mean(1, keepdim=True)
    likeness = _likeness(windows).numpy()
    shortest, longest = math.floor(LOW_RATE / _HIGHEST_HZ), math.ceil(LOW_RATE / _LOWEST_HZ)
    inside = likeness[:, shortest - 1 : longest + 2]
    is_peak = (inside[:, 1:-1] >= inside[:, :-2]) & (inside[:, 1:-1] > inside[:, 2:])
    peaks = np.where(is_peak, inside[:, 1:-1], -1.0)  # [T, L]
    best = peaks.max(1, keepdims=True)
    first = (peaks >= _NEARLY * best).argmax(1)
    rows = np.arange(len(peaks))
    left, top, right = (inside[rows, first + n] for n in range(3))
    bend = np.minimum(left - 2 * top + right, -1e-9)
    period = shortest + first + np.clip(0.5 * (left - right) / bend, -0.5, 0.5)
    midi = 69 + 12 * np.log2(LOW_RATE / period / 440)
    return np.where(best[:, 0] > CLEAR, midi, np.nan)


def _likeness(windows: Tensor) -> Tensor:
    """[T, window + reach] -> [T, L]: 2 x . y / (x . x + y . y) of the first samples and those after a lag."""
    size = 2 ** math.ceil(math.log2(windows.shape[1] + _WINDOW))
    first = torch.fft.rfft(windows[:, :_WINDOW], size)
    product = torch.fft.irfft(torch.fft.rfft(windows, size) * first.conj(), size)[:, : _REACH + 1]
    energy = pad(windows.square().cumsum(1), (1, 0))
    later = energy[:, _WINDOW : _WINDOW + _REACH + 1] - energy[:, : _REACH + 1]
    total = later + later[:, :1]
    return 2 * product / total.clamp(min=1e-9)
