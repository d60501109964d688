"""Where the sections of a song are: from its lyrics, or roughly from the sound alone.

Letters: N samples, T frames, D features, S sections, G places where a section may begin.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..audio.resample import check_recording
from ..progress import IsCancelled, never_cancelled
from ..text.lyrics import Section, Song, estimate_seconds
from .beats import Array
from .spectra import SILENCE, band_filters, log_edges, pitch_filters, powers, to_mono, window_size
from .voice import VOICE_RATE

FROM_LYRICS = "from lyrics"
FROM_LYRICS_AND_VOICE = "from lyrics and voice"
APPROXIMATE = "approximate"

_FARTHEST_SNAP = 2.5  # seconds
# Cost of a second of voice in an instrumental, and of one of silence in a sung section: singers breathe.
_WRONG_VOICE, _WRONG_SILENCE = 4.0, 1.0
_GRID_SECONDS = 0.5  # where sections may begin if no downbeats are known
_MOST_PLACES = 600

_NOVELTY_RATE = 2  # frames per second
_KERNEL_SECONDS = 16.0
_SHORTEST_PART = 8.0  # seconds
_PROMINENT = 0.12  # of the novelty where everything changes


@dataclass(frozen=True)
class SongSection:
    """A part of a song from `start` to `end` in seconds; `source` tells how far it can be trusted.

    "from lyrics": order and tags are right, times are shares of the length, moved to downbeats. "from
    lyrics and voice": likewise, and moved to where the voice comes and goes. "approximate": the sound
    changes there; nothing is known about what the part is.
    """

    tag: str
    start: float
    end: float
    source: str


def sections_of_song(
    song: Song, seconds: float, downbeats: Sequence[float] = (), voiced: Array | None = None
) -> list[SongSection]:
    """The sections of the lyrics laid over `seconds`, one after the other, without gaps.

    Their shares are those of `estimate_seconds`; every boundary moves to the nearest downbeat, if that is
    not far. With `voiced` [T] (0 or 1, 50 per second) they also move to where the voice begins or ends.
    """
    if not song.sections or seconds <= 0:
        return []
    shares = np.array([estimate_seconds(Song((section,))) for section in song.sections])
    lengths = shares / shares.sum() * seconds
    if voiced is not None and voiced.any() and any(s.is_vocal for s in song.sections):
        bounds = _fit_to_voice(song.sections, lengths, _places(seconds, downbeats), voiced)
        source = FROM_LYRICS_AND_VOICE
    else:
        bounds, source = _snap(np.concatenate([[0.0], np.cumsum(lengths)]), downbeats), FROM_LYRICS
    bounds = [0.0, *bounds[1:-1], seconds]
    return [
        SongSection(section.tag, round(start, 3), round(end, 3), source)
        for section, start, end in zip(song.sections, bounds, bounds[1:])
    ]


def _snap(bounds: Array, downbeats: Sequence[float]) -> list[float]:
    """Boundaries at the nearest downbeats, as long as they stay apart and in order."""
    snapped = [float(bounds[0])]
    for at, after in zip(bounds[1:-1].tolist(), bounds[2:].tolist()):
        near = _nearest(downbeats, at)
        reach = min(_FARTHEST_SNAP, (after - at) / 2)
        fits = near is not None and abs(near - at) <= reach and near > (snapped[-1] + at) / 2
        snapped.append(near if fits and near is not None else at)
    return [*snapped, float(bounds[-1])] if len(bounds) > 1 else snapped


def _nearest(times: Sequence[float], at: float) -> float | None:
    """The one of ascending `times` that is nearest to `at`."""
    place = bisect_left(times, at)
    return min(times[max(place - 1, 0) : place + 1], key=lambda time: abs(time - at), default=None)


def _places(seconds: float, downbeats: Sequence[float]) -> Array:
    """[G] where a section may begin, from 0 to `seconds`."""
    inside = [time for time in downbeats if 0.25 < time < seconds - 0.25]
    if len(inside) < 2:
        inside = np.arange(_GRID_SECONDS, seconds - 0.25, _GRID_SECONDS).tolist()
    stride = max(1, math.ceil(len(inside) / _MOST_PLACES))
    return np.array([0.0, *inside[::stride], seconds])


def _fit_to_voice(sections: Sequence[Section], lengths: Array, places: Array, voiced: Array) -> list[float]:
    """Boundaries [S + 1] at `places` [G] that cost least (dynamic programming over the sections).

    A section costs the share by which it is longer or shorter than expected, squared, in seconds; and each
    second of voice where none is sung, or of silence where something is.
    """
    if len(places) <= len(sections):
        return np.concatenate([[0.0], np.cumsum(lengths)]).tolist()
    sung = np.concatenate([[0.0], np.cumsum(voiced)]) / VOICE_RATE
    until = np.interp(places, np.arange(len(sung)) / VOICE_RATE, sung)  # seconds of voice before a place
    span = places[None, :] - places[:, None]  # [G, G] from row to column
    voice = until[None, :] - until[:, None]
    total = np.where(np.arange(len(places)) == 0, 0.0, math.inf)
    came = []
    for section, expected in zip(sections, lengths):
        wrong = _WRONG_SILENCE * (span - voice) if section.is_vocal else _WRONG_VOICE * voice
        cost = (span - expected) ** 2 / expected + wrong
        cost = np.where(span > 0, cost, math.inf) + total[:, None]
        came.append(cost.argmin(0))
        total = cost.min(0)
    at, bounds = len(places) - 1, [float(places[-1])]
    for row in reversed(came):
        at = int(row[at])
        bounds.append(float(places[at]))
    return bounds[::-1]


def novelty_sections(
    audio: Tensor, sample_rate: int, cancelled: IsCancelled = never_cancelled
) -> list[SongSection]:
    """Parts of audio [C, N] between the moments at which its chords and colours change; empty for silence.

    Only approximate: about half of the boundaries are within 3 s of those a person would name.
    """
    check_recording(audio, sample_rate)
    seconds = audio.shape[1] / sample_rate
    mono = to_mono(audio)
    if float(mono.square().mean()) < SILENCE:
        return []
    bounds = [0.0, *_changes(_features(mono, sample_rate, cancelled), seconds), seconds]
    return [
        SongSection("part", round(start, 3), round(end, 3), APPROXIMATE) for start, end in pairwise(bounds)
    ]


def _features(mono: Tensor, sample_rate: int, cancelled: IsCancelled) -> Array:
    """[N] -> [T, D] of length 1: the chord and the colour of each half second, from finer frames."""
    fine = 5
    size = window_size(0.19, sample_rate)
    frames = max(1, math.ceil(mono.shape[0] / sample_rate * _NOVELTY_RATE))
    edges = log_edges(60.0, 8000.0, 24, sample_rate)
    filters = torch.cat([pitch_filters(size, sample_rate), band_filters(size, sample_rate, edges)], 1)
    moments = (torch.arange(frames * fine, dtype=torch.float64) + 0.5) / (_NOVELTY_RATE * fine)
    power = powers(mono, sample_rate, moments, filters, cancelled)
    mean = power.reshape(frames, fine, -1).mean(1)
    chroma = mean[:, :12].sqrt()
    chroma = chroma / chroma.norm(dim=1, keepdim=True).clamp(min=1e-5)
    level = 10 * torch.log10(mean[:, 12:].clamp(min=1e-12))
    timbre = (level - level.max() + 60).clamp(min=0.0) / 20 / math.sqrt(24)
    rows = torch.cat([chroma, timbre], 1).double()
    rows = rows - rows.mean(0)
    return np.asarray((rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-9)).numpy())


def _changes(rows: Array, seconds: float) -> list[float]:
    """Times in seconds at which the frames before and after are alike among themselves, but not mutually."""
    half = round(min(_KERNEL_SECONDS, seconds / 4) * _NOVELTY_RATE / 2)
    if half < 2:
        return []
    ahead = np.arange(2 * half) - half + 0.5
    taper = np.exp(-0.5 * (2 * ahead / half) ** 2)
    kernel = np.sign(np.outer(ahead, ahead)) * np.outer(taper, taper)
    kernel /= np.abs(kernel).sum()
    novelty = np.zeros(len(rows))
    for at in range(half, len(rows) - half + 1):
        near = rows[at - half : at + half]
        novelty[at : at + 1] = (near @ near.T * kernel).sum()
    picked: list[int] = []
    apart = _SHORTEST_PART * _NOVELTY_RATE
    for at in np.argsort(-novelty, kind="stable").tolist():
        if novelty[at] < _PROMINENT:
            break
        if min(at, len(rows) - at, *(abs(at - other) for other in picked)) >= apart:
            picked.append(at)
    return [at / _NOVELTY_RATE for at in sorted(picked)]
