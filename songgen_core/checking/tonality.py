"""The key of a recording: how often its pitch classes sound, against the profiles of the 24 keys.

The first seconds count threefold, as most songs begin at home; one that does not is the more likely to
be heard in a neighbouring key.

Letters: N samples, T moments, B bands.
"""

import math

import numpy as np
import torch
from torch import Tensor

from ..analysis.beats import Array
from ..analysis.spectra import SILENCE, powers, window_size
from ..progress import IsCancelled, never_cancelled
from ..text.musical_key import KEYS

# Krumhansl and Kessler: how well listeners found each step of the scale to fit the key, C major and C minor.
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
_RATE, _SECONDS = 10, 0.34  # moments per second, length of each
_LOWEST_HZ, _HIGHEST_HZ = 60.0, 1000.0
_START_SECONDS, _START_WEIGHT = 2.0, 3.0  # songs begin at home, most of them
_OVERTONE = 0.25  # of each note's strength is heard again a fifth above it, as its third harmonic


def find_key(mono: Tensor, sample_rate: int, cancelled: IsCancelled = never_cancelled) -> str | None:
    """The key of a recording [N] without its voice, as one of KEYS; None for silence. Raises Cancelled."""
    if mono.shape[0] == 0 or float(mono.square().mean()) < SILENCE:
        return None
    chroma = _chroma(mono, sample_rate, cancelled)
    loud = chroma.sum(1) > 0.01 * chroma.sum(1).max()
    chroma = chroma[loud] / chroma[loud].sum(1, keepdims=True)
    weights = np.ones((len(chroma), 1))
    weights[: min(round(_START_SECONDS * _RATE), len(chroma) // 4)] = _START_WEIGHT
    heard = (weights * chroma).sum(0)
    heard -= _OVERTONE * np.roll(heard, 7)
    profiles = [np.roll(profile, tonic) for profile in (_MAJOR, _MINOR) for tonic in range(12)]
    return KEYS[int(np.argmax([np.corrcoef(profile, heard)[0, 1] for profile in profiles]))]


def relative_key(key: str) -> str:
    """The key of the other mode with the same notes: of C major A minor."""
    minor, tonic = divmod(KEYS.index(key), 12)
    return KEYS[(tonic + 3) % 12] if minor else KEYS[12 + (tonic - 3) % 12]


def _chroma(mono: Tensor, sample_rate: int, cancelled: IsCancelled) -> Array:
    """[N] -> [T, 12]: amplitude of each pitch class, overtones halved with every octave."""
    size = window_size(_SECONDS, sample_rate)
    hertz = torch.fft.rfftfreq(size, 1 / sample_rate)
    semitone = 12 * torch.log2(hertz.clamp(min=1.0) / 440) + 69
    nearest = semitone.round()
    # What lies between two notes belongs to neither.
    weight = (1 - 2 * (semitone - nearest).abs()).clamp(min=0.0)
    weight *= (hertz >= _LOWEST_HZ) & (hertz < _HIGHEST_HZ)
    filters = torch.nn.functional.one_hot(nearest.long() % 12, 12) * weight[:, None]
    moments = torch.arange(max(1, math.ceil(mono.shape[0] / sample_rate * _RATE))) / _RATE
    power = powers(mono, sample_rate, moments, filters.float(), cancelled)
    return np.asarray(power.sqrt().double().numpy())
