"""Whether the stems are separate: how much of the drums is in the vocal stem, and of the voice in the other.

Both are told as shares of power: 0.01 is a copy 20 dB down.

Letters: N samples, T moments, H hits or overtones.
"""

import numpy as np
import torch
from torch import Tensor

from ..analysis.beats import Array
from ..analysis.spectra import band_filters, powers, window_size
from ..progress import IsCancelled, never_cancelled
from .pitch import PITCH_RATE, Pitch

_HIGH_BAND = (5000.0, 14000.0)  # Hz: cymbals and snares, little of anything else
_HIT_SECONDS = 0.012
_RISE = 4.0  # times the power of the moments before
_BEFORE, _DURING = (4, 2), (0, 3)  # frames of a hundredth of a second before and after a hit
_FEWEST_HITS = 8
_WEAKEST = 1e-3  # of the strongest hits; less is noise

_HARMONIC_SECONDS = 0.085
_HARMONIC_HZ = (300.0, 4000.0)
_FEWEST_FRAMES = 50
_QUIET_QUARTER = 25  # percentile


def drums_in_voice(
    vocal: Tensor, bgm: Tensor, sample_rate: int, cancelled: IsCancelled = never_cancelled
) -> float | None:
    """Power of the drums in the vocal stem, as a share of that in the accompaniment [N]; None without drums.

    At each hit in the treble of the accompaniment: how much power comes up in the treble of the vocal stem,
    against that in the accompaniment. The median of all hits: consonants that meet a drum are a minority.
    """
    own, other = (_treble(stem, sample_rate, cancelled) for stem in (bgm, vocal))
    hits = _hits(own)
    if len(hits) < _FEWEST_HITS:
        return None
    return round(float(np.clip(np.median(_rises(other, hits) / _rises(own, hits)), 0.0, 1.0)), 5)


def voice_in_bgm(
    vocal: Tensor, bgm: Tensor, pitch: Pitch, sample_rate: int, cancelled: IsCancelled = never_cancelled
) -> float | None:
    """Power of the voice in the accompaniment [N] as a share of that in its own stem: not more than this.

    Compared at the overtones of what is sung. Instruments sound on many of them as well, so a quarter of the
    overtones, the one with the least, is believed; what leaks would be on all. None where nobody sings.
    """
    frames = np.flatnonzero(pitch.voiced)
    if len(frames) < _FEWEST_FRAMES:
        return None
    size = window_size(_HARMONIC_SECONDS, sample_rate)
    moments = torch.from_numpy((frames + 0.5) / PITCH_RATE)
    filters = torch.eye(size // 2 + 1)
    voice, band = (powers(stem, sample_rate, moments, filters, cancelled).numpy() for stem in (vocal, bgm))
    hertz = 440 * 2 ** ((pitch.midi[frames] - 69) / 12)
    numbers = np.arange(1, int(_HARMONIC_HZ[1] / hertz.min()) + 1)
    overtones = hertz[:, None] * numbers  # [T, H]
    bins = np.round(overtones * size / sample_rate).astype(int).clip(max=size // 2)
    rows = np.arange(len(frames))[:, None]
    own, other = voice[rows, bins], band[rows, bins]
    audible = (overtones >= _HARMONIC_HZ[0]) & (overtones < _HARMONIC_HZ[1])
    audible &= own > 0.01 * own.max(1, keepdims=True)
    shares = other[audible] / own[audible]
    return round(float(np.clip(np.percentile(shares, _QUIET_QUARTER), 0.0, 1.0)), 5) if shares.size else None


def _treble(mono: Tensor, sample_rate: int, cancelled: IsCancelled) -> Array:
    """[N] -> [T]: power above 5 kHz, a hundred times a second."""
    size = window_size(_HIT_SECONDS, sample_rate)
    edges = torch.tensor(_HIGH_BAND).clamp(max=sample_rate / 2)
    moments = torch.arange(max(1, round(mono.shape[0] / sample_rate * PITCH_RATE))) / PITCH_RATE
    return (
        powers(mono, sample_rate, moments, band_filters(size, sample_rate, edges), cancelled)[:, 0]
        .double()
        .numpy()
    )


def _hits(treble: Array) -> np.ndarray:
    """Frames [H] at which a drum is struck: the power jumps, and is the greatest around."""
    reach = max(_BEFORE[0], _DURING[1])
    if len(treble) < 2 * reach + 2 or treble.max() <= 0:
        return np.zeros(0, int)
    at = np.arange(reach, len(treble) - reach)
    before, during = _around(treble, at)
    strong = (during > _RISE * before) & (during > _WEAKEST * np.percentile(during, 99))
    rise = during - before
    peak = (rise[1:-1] >= rise[:-2]) & (rise[1:-1] > rise[2:])
    return at[1:-1][strong[1:-1] & peak]


def _rises(treble: Array, hits: np.ndarray) -> Array:
    before, during = _around(treble, hits)
    return during - before


def _around(treble: Array, at: np.ndarray) -> tuple[Array, Array]:
    """Mean power before and during each of `at`."""
    before = np.mean([treble[at - n] for n in range(_BEFORE[1], _BEFORE[0] + 1)], axis=0)
    during = np.mean([treble[at + n] for n in range(*_DURING)], axis=0)
    return before, during
