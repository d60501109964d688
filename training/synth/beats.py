"""Bars, beats and drum patterns in frames."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..codes import BAR, BEAT, OFF_BEAT

BEATS_PER_BAR = 4
EIGHTHS_PER_BAR = 8

_NONE, _KICK, _SNARE, _HAT, _BOTH = range(5)
# What starts on each eighth of a bar.
_PATTERNS = {
    "pop": (_KICK, _HAT, _SNARE, _HAT, _KICK, _HAT, _SNARE, _HAT),
    "rock": (_BOTH, _HAT, _SNARE, _KICK, _BOTH, _KICK, _SNARE, _HAT),
    "electronic": (_KICK, _HAT, _BOTH, _HAT, _KICK, _HAT, _BOTH, _HAT),
    "ballad": (_HAT, _NONE, _HAT, _NONE, _HAT, _NONE, _HAT, _NONE),
}

# The weakest pulse on which each instrument strikes the chord; those of the bar hold it.
STRUCK_BY = {"piano": BEAT, "guitar": OFF_BEAT, "synthesizer": BAR, "strings": BAR}


def eighth_frame(number: int, frames_per_beat: int) -> int:
    """The frame in which eighth `number` of a song starts."""
    beat, off = divmod(number, 2)
    return beat * frames_per_beat + off * (frames_per_beat // 2)


def eighths_per_syllable(frames_per_beat: int) -> int:
    """1, or 2 where an eighth is shorter than six frames."""
    return 1 if frames_per_beat // 2 >= 6 else 2


@lru_cache(maxsize=64)
def bar_pulse(frames_per_beat: int) -> NDArray[np.int64]:
    """Pulse labels of a bar."""
    return _on_eighths((BAR, OFF_BEAT, BEAT, OFF_BEAT, BEAT, OFF_BEAT, BEAT, OFF_BEAT), frames_per_beat)


@lru_cache(maxsize=256)
def bar_drums(genre: str, frames_per_beat: int) -> NDArray[np.int64]:
    """Drum labels of a bar."""
    return _on_eighths(_PATTERNS[genre], frames_per_beat)


def _on_eighths(labels: tuple[int, ...], frames_per_beat: int) -> NDArray[np.int64]:
    out = np.zeros(BEATS_PER_BAR * frames_per_beat, np.int64)
    for number, label in enumerate(labels):
        out[eighth_frame(number, frames_per_beat)] = label
    out.flags.writeable = False
    return out
