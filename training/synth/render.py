"""From a score to its sound: nothing but the labels decides, and equal scores sound equal."""

import numpy as np

from .chords import play_chords
from .drums import play_drums
from .score import Score
from .voice import sing
from .waves import Wave

_VOICE, _CHORDS, _DRUMS = 0.12, 0.08, 0.28


def render(score: Score) -> tuple[Wave, Wave]:
    """vocal and bgm, each [2, T * 1920] float32 at 48 kHz; their sum stays within +-1."""
    voice = _VOICE * sing(score.phone, score.midi)
    band = play_chords(score.chord, score.struck, score.timbre)
    band *= _CHORDS
    band += _DRUMS * play_drums(score.drum)
    return np.stack([voice, voice]), band
