"""Drum sounds: one fixed stereo sample for each drum, from the frame in which it is struck."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from songgen_core.configs import SAMPLE_RATE

from ..codes import DRUMS
from .waves import FRAME, Wave, decay, rise, shaped_noise

_KICK_LEVEL, _SNARE_LEVEL, _HAT_LEVEL = 1.0, 0.75, 0.3
_CLICK = 96  # samples over which a sample begins


def play_drums(drum: NDArray[np.int64]) -> Wave:
    """[2, N] from the labels [T] of what is struck; a kick begins with amplitude 1."""
    out = np.zeros((2, len(drum) * FRAME), np.float32)
    for frame in np.flatnonzero(drum):
        sample = drum_sample(DRUMS[drum[frame]])
        place = out[:, frame * FRAME : frame * FRAME + sample.shape[-1]]
        place += sample[:, : place.shape[-1]]
    return out


@cache
def drum_sample(name: str) -> Wave:
    """[2, samples] of "kick", "snare", "hat" or "kick and hat"."""
    if name == "kick and hat":
        both = drum_sample("kick").copy()
        hat = drum_sample("hat")
        both[:, : hat.shape[-1]] += hat
        return both
    wave, pan = {"kick": (_kick, 0.5), "snare": (_snare, 0.45), "hat": (_hat, 0.6)}[name]
    sample = wave()
    sample[:_CLICK] *= rise(_CLICK)
    sample[-FRAME // 2 :] *= rise(FRAME // 2)[::-1]
    return np.stack([2 * (1 - pan) * sample, 2 * pan * sample])


def _kick() -> Wave:
    """A sine that falls from 140 to 48 Hz."""
    samples = 5 * FRAME
    frequency = 48 + 92 * decay(samples, 0.6)
    phase = 2 * np.pi * np.cumsum(frequency, dtype=np.float64) / SAMPLE_RATE
    return _KICK_LEVEL * (np.sin(phase) * decay(samples, 1.8)).astype(np.float32)


def _snare() -> Wave:
    """A tone of 190 Hz under rattling wires."""
    samples = 4 * FRAME
    tone = np.sin(2 * np.pi * 190 * np.arange(samples) / SAMPLE_RATE) * decay(samples, 0.9)
    wires = shaped_noise(101, samples, ((1800, 900, 0.7), (4200, 1600, 1.0))) * decay(samples, 1.1)
    return _SNARE_LEVEL * (0.6 * tone + 0.35 * wires).astype(np.float32)


def _hat() -> Wave:
    samples = 2 * FRAME
    return _HAT_LEVEL * shaped_noise(102, samples, ((8000, 1500, 1.0),)) * decay(samples, 0.45)
