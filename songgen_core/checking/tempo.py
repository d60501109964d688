"""The tempo that is heard, against the one that was asked for.

Of songs that keep their tempo exactly about 92 in 100 are heard right, the others as a multiple.

Letters: N samples, T frames of a hundredth of a second, P tempi.
"""

from fractions import Fraction

import numpy as np
from torch import Tensor

from ..analysis.beats import ONSET_RATE, Array, find_onsets
from ..progress import IsCancelled, never_cancelled

TOLERANCE = 0.04
RIGHT, RELATED, WRONG = "right", "related", "wrong"
# Listeners and programs may count twice or half as fast, or by threes; such errors are told apart.
_RELATIVES = tuple(map(Fraction, ("2", "1/2", "3", "1/3", "3/2", "2/3", "4", "1/4", "4/3", "3/4")))

_TEMPI = np.geomspace(50.0, 220.0, 600)  # [P] beats per minute
_MULTIPLES = np.array([1, 2, 4])  # of the beat, after which music in four comes back
# Where tempi lie without further knowledge: in the middle of those that the requests ask for. Nothing is
# known of the request itself.
_USUAL, _OCTAVES = 106.0, 0.6
_SHORTEST = 3.0  # seconds; less holds no tempo that could be trusted
_NOISE, _NOISE_SECONDS = 0.16, 0.5  # what matches itself less has no beat; short recordings match by chance


def hear_tempo(mono: Tensor, sample_rate: int, cancelled: IsCancelled = never_cancelled) -> float | None:
    """Beats per minute of a recording [N]; None where nothing keeps time. Raises Cancelled.

    `analysis.beats` finds the beats themselves; this finds nothing but their pace, and finer.
    """
    strength = find_onsets(mono, sample_rate, cancelled).strength
    seconds = len(strength) / ONSET_RATE
    if seconds < _SHORTEST or not strength.any():
        return None
    match = _likeness_to_itself(_accents(strength))
    score = _matches(match, _TEMPI)
    octaves = np.log2(_TEMPI / _USUAL) / _OCTAVES
    best = float(_TEMPI[np.argmax(score.clip(min=0.0) * np.exp(-0.5 * octaves**2))])
    if float(_matches(match, np.array([best]))[0]) < _NOISE + _NOISE_SECONDS / seconds:
        return None
    near = best * np.geomspace(0.97, 1.03, 121)
    return round(float(near[np.argmax(_matches(match, near))]), 2)


def judge_tempo(heard: float | None, asked: float) -> str:
    """RIGHT within 4 %, RELATED within 4 % of a multiple such as 2 or 2/3, else WRONG; None is WRONG."""
    if heard is None:
        return WRONG
    if _is_near(heard, asked):
        return RIGHT
    return RELATED if any(_is_near(heard, asked * float(ratio)) for ratio in _RELATIVES) else WRONG


def _accents(strength: Array) -> Array:
    """[T] -> [T]: what exceeds the mean of the second around it."""
    window = np.ones(ONSET_RATE) / ONSET_RATE
    above = np.maximum(strength - np.convolve(strength, window, "same"), 0.0)
    kernel = np.hanning(7)
    return np.convolve(above, kernel / kernel.sum(), "same")


def _likeness_to_itself(accents: Array) -> Array:
    """[T] -> [half of it]: correlation with itself after each lag, 1 for none."""
    centred = accents - accents.mean()
    match = np.fft.irfft(np.abs(np.fft.rfft(centred, 2 * len(centred))) ** 2)[: len(centred) // 2]
    overlap = 1 - np.arange(len(match)) / len(centred)
    return np.asarray(match / overlap / max(match[0], 1e-12))


def _matches(match: Array, tempi: Array) -> Array:
    """[P]: mean likeness after 1, 2 and 4 beats of each tempo, as far as the recording is long enough."""
    lags = np.outer(_MULTIPLES, 60 * ONSET_RATE / tempi)
    known = lags < len(match) - 1
    values = np.where(known, np.interp(lags, np.arange(len(match)), match), 0.0)
    return np.asarray(values.sum(0) / np.maximum(known.sum(0), 1))


def _is_near(heard: float, asked: float) -> bool:
    return abs(heard / asked - 1) <= TOLERANCE
