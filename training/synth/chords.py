"""The chords and the bass in four timbres: plucked on beats or eighths, or held for a bar."""

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from .waves import FRAME, GRID, Wave, decay, grid_steps, periodic, rise, unroll

_LOWEST = 53  # MIDI; the three notes of a chord lie in the octave from here
_LOWEST_BASS = 36
_PANS = (0.4, 0.5, 0.6)  # of the notes from low to high; 1 is right
_RELEASE = FRAME // 8  # samples over which a chord ends when the next is struck


@dataclass(frozen=True)
class _Timbre:
    """How an instrument sounds: the body of its tone, and what is bright for a moment after each stroke.

    Amplitudes of harmonic h fall as h ** -slope, and as exp(-f / muffled) with the frequency f in Hz. Decays
    are in frames, infinite for what is held.
    """

    slope: float
    muffled: float
    body_decay: float
    bright_level: float
    bright_decay: float
    attack: float  # frames
    even: float = 1.0  # level of even harmonics


_TIMBRES = (
    _Timbre(1.6, 2500, 11.0, 0.5, 2.5, 0.1),
    _Timbre(1.1, 2000, 6.0, 0.8, 1.2, 0.05),
    _Timbre(1.0, 1600, np.inf, 0.0, 1.0, 0.4, even=0.35),
    _Timbre(1.5, 1200, np.inf, 0.0, 1.0, 4.0),
)


def play_chords(chord: NDArray[np.int64], struck: NDArray[np.int64], timbre: int) -> Wave:
    """[2, N] from labels [T]; a chord with its bass has RMS 1 when it is struck."""
    out = np.zeros((2, len(chord) * FRAME), np.float32)
    starts = np.flatnonzero((struck > 0) | (np.diff(chord, prepend=0) != 0))
    for start, end in zip(starts, [*starts[1:], len(chord)]):
        if chord[start] > 0:
            samples = slice(start * FRAME, end * FRAME)
            out[:, samples] = _stroke(int(chord[start]), timbre, samples.start, samples.stop)
    return out


def _stroke(chord: int, timbre: int, start: int, end: int) -> Wave:
    """[2, end - start]: a chord that is struck at sample `start` of the song."""
    body, bright = _periods(chord, timbre)
    body_envelope, bright_envelope = _envelopes(timbre, end - start)
    wave = unroll(body, start, end) * body_envelope
    if len(bright_envelope):
        heard = len(bright_envelope)
        wave[:, :heard] += unroll(bright, start, start + heard) * bright_envelope
    wave[:, -_RELEASE:] *= rise(_RELEASE)[::-1]
    return wave


@lru_cache(maxsize=256)
def _envelopes(timbre: int, samples: int) -> tuple[Wave, Wave]:
    """Of body and brightness from the stroke on; that of the brightness ends where it is gone."""
    sound = _TIMBRES[timbre]
    attack = int(sound.attack * FRAME)
    body = decay(samples, sound.body_decay)
    body[:attack] *= rise(attack)[:samples]
    if not sound.bright_level:
        return body, body[:0]
    bright = sound.bright_level * decay(min(samples, int(6 * sound.bright_decay * FRAME)), sound.bright_decay)
    bright[:attack] *= rise(attack)
    return body, bright


def chord_notes(chord: int) -> tuple[int, ...]:
    """MIDI numbers of a chord label: the bass, then three notes from low to high."""
    minor, root = divmod(chord - 1, 12)
    third = 3 if minor else 4
    notes = sorted(_LOWEST + (root + step - _LOWEST) % 12 for step in (0, third, 7))
    return (_LOWEST_BASS + root, *notes)


@cache
def _periods(chord: int, timbre: int) -> tuple[Wave, Wave]:
    """Body and brightness [2, PERIOD] of a chord."""
    sound = _TIMBRES[timbre]
    bass, *notes = chord_notes(chord)
    body = np.stack([_tone(bass, sound, 0.0)] * 2)
    bright = np.zeros_like(body)
    for note, pan in zip(notes, _PANS):
        sides = np.array([[2 * (1 - pan)], [2 * pan]], np.float32) * 0.6
        body += sides * _tone(note, sound, 0.0)
        bright += sides * _tone(note, sound, 0.8)
    level = np.sqrt(np.mean(body**2))
    return body / level, bright / level


def _tone(midi: int, sound: _Timbre, flatter: float) -> Wave:
    """One period of a note, RMS 1; `flatter` takes from the slope and opens what muffles."""
    steps = grid_steps(midi)
    harmonic = np.arange(1, int(6000 / (steps * GRID)) + 1)
    frequency = harmonic * steps * GRID
    amplitudes = harmonic ** -(sound.slope - flatter) * np.exp(-frequency / (sound.muffled * (1 + flatter)))
    amplitudes[1::2] *= sound.even
    return periodic(harmonic * steps, amplitudes / np.sqrt(0.5 * np.sum(amplitudes**2)))
