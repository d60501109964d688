"""The vowels that are heard in a vocal stem, one after the other, without knowing what should be sung.

Every moment with a pitch has overtones; their strengths are held against the envelope of each vowel. The most
likely row of vowels and voiced consonants is looked for, and every vowel that lasts counts as a syllable.

Letters: N samples, T frames of a hundredth of a second, F frequencies, H overtones, S shapes.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..analysis.beats import Array
from ..analysis.spectra import check_cancelled
from ..progress import IsCancelled, never_cancelled
from ..text.phonetics import VOWELS
from .pitch import LOW_RATE, PITCH_RATE, Pitch, at_low_rate
from .vowel_shapes import envelopes

_WINDOW, _SPECTRUM = 640, 2048  # samples
_STEP = LOW_RATE / _SPECTRUM
_HIGHEST_HZ, _OVERTONES = 4500.0, 48
_DEPTH_DB = 40.0  # what lies this far below the loudest overtone is all the same
_SCALES = (0.92, 1.0, 1.08, 1.17, 1.26)  # of the formants: men, women, children; that of a song is fitted
_CHANGE = 150.0  # dB squared; a moment may look like something else for less without being it
_SHORTEST = 0.09  # seconds of a vowel; glides and murmurs are shorter
_NEW_NOTE = 0.8  # semitones by which the pitch moves where a vowel is sung again


def hear_vowels(
    mono: Tensor, sample_rate: int, pitch: Pitch, cancelled: IsCancelled = never_cancelled
) -> list[str]:
    """Vowels of a vocal stem [N] in the order they are sung; none without a pitch. Raises Cancelled."""
    check_cancelled(cancelled)
    frames = np.flatnonzero(pitch.voiced)
    if len(frames) == 0:
        return []
    hertz = 440 * 2 ** ((pitch.midi[frames] - 69) / 12)
    bins = np.round(np.outer(hertz, np.arange(1, _OVERTONES + 1)) / _STEP).astype(int)  # [T, H]
    used = bins * _STEP < _HIGHEST_HZ
    bins = np.where(used, bins, 0)
    levels = np.take_along_axis(_levels(at_low_rate(mono, sample_rate), frames), bins, 1)
    unlikeness = min((_unlikeness(levels, bins, used, scale) for scale in _SCALES), key=_best_total)
    return [
        VOWELS[shape]
        for run in _without_gaps(frames)
        for shape in _nuclei(_likeliest_row(unlikeness[run]), pitch.midi[frames[run]])
    ]


def _levels(mono: Tensor, frames: np.ndarray) -> Array:
    """[N] -> [T, F] in dB around the middle of each frame."""
    middle = ((torch.from_numpy(frames) + 0.5) * LOW_RATE / PITCH_RATE).long()
    windows = pad(mono, (_WINDOW // 2, _WINDOW))[middle[:, None] + torch.arange(_WINDOW)]
    power = torch.fft.rfft(windows * torch.hann_window(_WINDOW), _SPECTRUM).abs().square()
    return np.asarray(10 * torch.log10(power.clamp(min=1e-12)).double().numpy())


def _unlikeness(levels: Array, bins: np.ndarray, used: np.ndarray, scale: float) -> Array:
    """[T, S]: mean square in dB between the overtones and each shape, whatever their level and slope."""
    shapes = envelopes(scale, _HIGHEST_HZ + _STEP, _STEP)[:, bins]  # [S, T, H]
    octaves = np.log2((bins * _STEP).clip(min=1.0) / 1000)
    heard = _flattened(levels, octaves, used)
    return np.stack(
        [((heard - _flattened(shape, octaves, used)) ** 2).sum(1) / used.sum(1) for shape in shapes], 1
    )


def _flattened(levels: Array, octaves: Array, used: np.ndarray) -> Array:
    """[T, H] without their mean and slope per octave; 0 where nothing is used."""
    top = np.where(used, levels, -np.inf).max(1, keepdims=True)
    levels = np.maximum(levels, top - _DEPTH_DB)
    count = used.sum(1, keepdims=True)
    octaves = np.where(used, octaves - (octaves * used).sum(1, keepdims=True) / count, 0.0)
    levels = np.where(used, levels - (levels * used).sum(1, keepdims=True) / count, 0.0)
    slope = (levels * octaves).sum(1, keepdims=True) / np.maximum((octaves**2).sum(1, keepdims=True), 1e-9)
    return levels - slope * octaves


def _best_total(unlikeness: Array) -> float:
    return float(unlikeness.min(1).sum())


def _without_gaps(frames: np.ndarray) -> list[slice]:
    """Runs of neighbouring frames."""
    cuts = [0, *(np.flatnonzero(np.diff(frames) > 1) + 1).tolist(), len(frames)]
    return [slice(start, end) for start, end in pairwise(cuts)]


def _likeliest_row(unlikeness: Array) -> np.ndarray:
    """[T, S] -> [T]: the shapes that cost least together, each change of shape included (Viterbi)."""
    total, came = unlikeness[0], []
    for row in unlikeness[1:]:
        stay, move = total, total.min() + _CHANGE
        came.append(np.where(stay <= move, np.arange(len(total)), total.argmin()))
        total = np.minimum(stay, move) + row
    row_of_shapes = [int(total.argmin())]
    for origin in reversed(came):
        row_of_shapes.append(int(origin[row_of_shapes[-1]]))
    return np.array(row_of_shapes[::-1])


def _nuclei(shapes: np.ndarray, midi: Array) -> list[int]:
    """Vowels that last, from shapes [T] and pitches [T]; a new note on the same vowel is a new syllable."""
    cuts = [0, *(np.flatnonzero(np.diff(shapes)) + 1).tolist(), len(shapes)]
    found = []
    for start, end in pairwise(cuts):
        if shapes[start] < len(VOWELS):
            notes = _notes(midi[start:end])
            found += [int(shapes[start])] * sum(length >= _SHORTEST * PITCH_RATE for length in notes)
    return found


def _notes(midi: Array) -> list[int]:
    """Frames of each note of a held vowel."""
    lengths, first = [0], float(midi[0])
    for frame, value in enumerate(midi.tolist()):
        # Three moments on another pitch: a slip of one is no note.
        if abs(float(np.median(midi[frame : frame + 3])) - first) > _NEW_NOTE:
            lengths.append(0)
            first = value
        lengths[-1] += 1
    return lengths
