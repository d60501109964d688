"""Tempo, beats and downbeats of a recording.

    recording --> onset strength [T] --> how well does it match itself later? --> tempo
                                   \\-> the row of strong onsets that keeps the tempo best --> beats
    bass and chords of each beat --> which beat of four begins a bar? --> downbeats

Letters: N samples, T frames of a hundredth of a second, B bands, P periods.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import max_pool1d

from ..progress import IsCancelled, never_cancelled
from .spectra import SILENCE, band_filters, log_edges, pitch_filters, powers, window_size

Array = NDArray[np.float64]

ONSET_RATE = 100  # frames per second
SLOWEST, FASTEST = 50.0, 200.0  # beats per minute
BEATS_PER_BAR = 4

_NUM_BANDS = 40
_WINDOW_SECONDS = 0.046
_FLOOR_DB = 60.0  # what lies this far below a band's loudest counts as silent
_EARLY = 0.003  # seconds by which the rise is seen before the sound begins; measured
_BASS_HZ = 150.0

_USUAL_TEMPO, _TEMPO_OCTAVES = 120.0, 0.6  # where tempi lie without further knowledge
_SHORTEST = 3.0  # seconds; less holds no tempo that could be trusted
_FEWEST_BEATS = 4
# Noise matches itself this well at most: in long recordings, and more for each second that is missing.
_NOISE, _NOISE_SECONDS = 0.4, 0.75
_MULTIPLES = (1, 2, 4)  # of the beat, after which music in four comes back
_FULL_MATCH = 0.4  # a likeness that says no more if it is greater
_TIGHTNESS = 100.0  # how much a beat off the tempo costs against a weak onset

_CHROMA_RATE, _CHROMA_SECONDS = 10, 0.19
_CHORD, _BASS = 1.0, 0.7  # weights of the two signs of a new bar


@dataclass(frozen=True)
class Beats:
    """`bpm` is None and the lists are empty where no steady beat was found.

    Times in seconds. `confidence` (0..1) is how well the music repeats at the tempo, `downbeat_confidence`
    how clearly one beat of four stands out; neither is a probability. Four beats to the bar are assumed.
    """

    bpm: float | None = None
    times: tuple[float, ...] = ()
    downbeats: tuple[float, ...] = ()
    confidence: float = 0.0
    downbeat_confidence: float = 0.0


@dataclass(frozen=True, eq=False)
class Onsets:
    """Strength [T] of what begins at each hundredth of a second, all bands and the bass alone; 0 and more."""

    strength: Array
    bass: Array


def find_onsets(mono: Tensor, sample_rate: int, cancelled: IsCancelled = never_cancelled) -> Onsets:
    """[N] -> onset strengths; zeros for silence."""
    size = window_size(_WINDOW_SECONDS, sample_rate)
    edges = log_edges(30.0, 16000.0, _NUM_BANDS, sample_rate)
    frames = max(1, math.ceil(mono.shape[0] / sample_rate * ONSET_RATE))
    moments = torch.arange(frames) / ONSET_RATE
    power = powers(mono, sample_rate, moments, band_filters(size, sample_rate, edges), cancelled)
    if float(power.sum(1).max()) < SILENCE:
        return Onsets(np.zeros(frames), np.zeros(frames))
    decibels = 10 * torch.log10(power.clamp(min=1e-12))
    # Weak bands may not lift their noise to the level of the music.
    floor = torch.maximum(decibels.amax(0), decibels.max() - _FLOOR_DB / 2) - _FLOOR_DB
    level = (decibels - floor).clamp(min=0.0)
    before = torch.cat([level[:1], level[:1], level[:-2]])
    # A voice that glides into the next band begins nothing there.
    before = max_pool1d(before[None], 3, 1, 1)[0]
    rises = (level - before).clamp(min=0.0)
    is_bass = edges[1:] <= max(_BASS_HZ, float(edges[2]))
    return Onsets(rises.mean(1).double().numpy(), rises[:, is_bass].mean(1).double().numpy())


def beats_of(
    onsets: Onsets, mono: Tensor, sample_rate: int, cancelled: IsCancelled = never_cancelled
) -> Beats:
    """Beats from onsets; `mono` [N] is asked for its chords. Raises Cancelled."""
    accents = _accents(onsets.strength)
    if len(accents) < _SHORTEST * ONSET_RATE or not accents.any():
        return Beats()
    period, clarity = _tempo(accents)
    if clarity < _NOISE + _NOISE_SECONDS / (len(accents) / ONSET_RATE):
        return Beats()
    frames = _trim(_track(accents, period), accents)
    if len(frames) < _FEWEST_BEATS:
        return Beats()
    times = np.clip(_sharpen(frames, accents) / ONSET_RATE + _EARLY, 0.0, mono.shape[0] / sample_rate)
    first, certainty = _first_of_bar(times, frames, onsets.bass, mono, sample_rate, cancelled)
    beats = tuple(round(float(time), 4) for time in times)
    return Beats(round(60 / _mean_interval(times), 2), beats, beats[first::BEATS_PER_BAR], clarity, certainty)


def _accents(strength: Array) -> Array:
    """[T] -> [T]: what exceeds its surroundings of a second, as loud passages and quiet ones count alike."""
    above = np.maximum(strength - _smooth(strength, ONSET_RATE), 0.0)
    spread = np.sqrt(_smooth(above**2, 8 * ONSET_RATE))
    return above / np.maximum(spread, 0.2 * max(float(spread.max()), 1e-9))


def _smooth(values: Array, width: int) -> Array:
    """[T] -> [T]: mean of `width` frames around each, of fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - width // 2, 0), np.minimum(at + width // 2 + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _tempo(accents: Array) -> tuple[float, float]:
    """The period of the beat in frames, and how well the accents match themselves after 1, 2 and 4 (0..1)."""
    match = _autocorrelation(accents)
    periods = 60 * ONSET_RATE / np.geomspace(SLOWEST, FASTEST, 400)  # [P]
    lags = np.outer(_MULTIPLES, periods)
    inside = lags < len(match)
    matches = np.where(inside, np.interp(lags, np.arange(len(match)), match), 0.0)  # [3, P]
    known = np.maximum(inside.sum(0), 1)
    octaves = np.log2(60 * ONSET_RATE / periods / _USUAL_TEMPO)
    prior = np.exp(-0.5 * (octaves / _TEMPO_OCTAVES) ** 2)
    best = int(np.argmax(np.maximum(matches.sum(0) / known, 0.0) * prior))
    # Capped: a pulse of whole bars alone is no beat.
    clarity = np.clip(matches[:, best], 0.0, _FULL_MATCH).sum() / known[best] / _FULL_MATCH
    return float(periods[best]), round(float(clarity), 4)


def _autocorrelation(accents: Array) -> Array:
    """[T] -> [half of it, at most 10 s]: likeness of the accents to themselves after each lag, 1 for none."""
    centred = accents - accents.mean()
    kernel = np.hanning(7)
    centred = np.convolve(centred, kernel / kernel.sum(), "same")  # players are not exact
    spectrum = np.fft.rfft(centred, 2 * len(centred))
    match = np.fft.irfft(np.abs(spectrum) ** 2)[: min(len(centred) // 2, 10 * ONSET_RATE)]
    overlap = 1 - np.arange(len(match)) / len(centred)
    return np.asarray(match / overlap / max(match[0], 1e-12))


def _track(accents: Array, period: float) -> NDArray[np.int64]:
    """Frames of the row of beats with the most accents and intervals near `period` (dynamic programming).

    Blocks of half a period are done at once: no beat can follow another one sooner.
    """
    spread = accents / max(float(accents.std()), 1e-9)
    kernel = np.exp(-0.5 * (np.arange(-3, 4) / 1.5) ** 2)
    gain = np.convolve(spread, kernel, "same")
    shortest, longest = max(1, round(period / 2)), round(2 * period)
    lags = np.arange(shortest, longest + 1)
    cost = _TIGHTNESS * np.log(lags / period) ** 2
    score = np.concatenate([np.full(longest, -1e9), gain])
    previous = np.full(len(score), -1)
    for start in range(longest, len(score), shortest):
        at = np.arange(start, min(start + shortest, len(score)))
        came = score[at[:, None] - lags] - cost
        best = came.argmax(1)
        value = came[np.arange(len(at)), best]
        follows = value > 0  # else the row begins here
        score[at] += np.where(follows, value, 0.0)
        previous[at] = np.where(follows, at - lags[best], -1)
    last = len(score) - longest + int(score[-longest:].argmax())
    row = []
    while last >= 0:
        row.append(last - longest)
        last = int(previous[last])
    return np.array(row[::-1])


def _trim(frames: NDArray[np.int64], accents: Array) -> NDArray[np.int64]:
    """Without the beats before the first and after the last accent."""
    heard = np.array([accents[max(f - 3, 0) : f + 4].max() for f in frames])
    strong = np.flatnonzero(heard > 0.3 * np.median(heard))
    return frames[strong[0] : strong[-1] + 1] if len(strong) else frames[:0]


def _sharpen(frames: NDArray[np.int64], accents: Array) -> Array:
    """Frames with fractions: the top of the parabola through each peak and its neighbours."""
    at = np.clip(frames, 1, len(accents) - 2)
    left, top, right = accents[at - 1], accents[at], accents[at + 1]
    bend = left - 2 * top + right
    shift = np.where(bend < -1e-9, 0.5 * (left - right) / np.minimum(bend, -1e-9), 0.0)
    return np.where(frames == at, frames + np.clip(shift, -0.5, 0.5), frames)


def _mean_interval(times: Array) -> float:
    """Seconds from beat to beat, without the intervals that leave the tempo."""
    intervals = np.diff(times)
    usual = np.median(intervals)
    return float(intervals[np.abs(intervals / usual - 1) < 0.15].mean())


def _first_of_bar(
    times: Array,
    frames: NDArray[np.int64],
    bass: Array,
    mono: Tensor,
    sample_rate: int,
    cancelled: IsCancelled,
) -> tuple[int, float]:
    """Which of the first four beats begins a bar, and how clearly (0..1): chords change, the bass enters."""
    change = _chord_changes(times, mono, sample_rate, cancelled)
    low = np.array([bass[max(f - 4, 0) : f + 5].max() for f in frames])
    signs = _CHORD * _standard(change) + _BASS * _standard(low)
    means = np.array([signs[q::BEATS_PER_BAR].mean() for q in range(BEATS_PER_BAR)])
    best, second = np.sort(means)[::-1][:2]
    return int(means.argmax()), round(float(np.clip((best - second) / (_CHORD + _BASS), 0.0, 1.0)), 4)


def _chord_changes(times: Array, mono: Tensor, sample_rate: int, cancelled: IsCancelled) -> Array:
    """[beats]: how little the pitches of the beat that begins are those of the beat that ends (0..1)."""
    size = window_size(_CHROMA_SECONDS, sample_rate)
    frames = max(2, math.ceil(mono.shape[0] / sample_rate * _CHROMA_RATE))
    filters = pitch_filters(size, sample_rate)
    chroma = powers(mono, sample_rate, torch.arange(frames) / _CHROMA_RATE, filters, cancelled)
    rows = chroma.sqrt().double().numpy()
    sums = np.concatenate([np.zeros((1, 12)), np.cumsum(rows, 0)])
    grid = np.arange(frames + 1) / _CHROMA_RATE - 0.5 / _CHROMA_RATE
    step = _mean_interval(times)
    edges = np.concatenate([[times[0] - step], times, [times[-1] + step]])
    inside = np.stack([np.interp(edges, grid, column) for column in sums.T], 1)
    beats = np.diff(inside, axis=0)
    beats /= np.maximum(np.linalg.norm(beats, axis=1, keepdims=True), 1e-9)
    return np.asarray(1 - (beats[:-1] * beats[1:]).sum(1))


def _standard(values: Array) -> Array:
    return (values - values.mean()) / max(float(values.std()), 1e-9)
