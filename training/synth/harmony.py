"""Keys, scales and four-bar chord progressions."""

from functools import cache, lru_cache
from random import Random

from .request import Key

_SCALE = {False: (0, 2, 4, 5, 7, 9, 11), True: (0, 2, 3, 5, 7, 8, 10)}

# Degrees from 0, one per bar. All begin on the tonic, and many come back to it: so the key can be heard.
_PROGRESSIONS = {
    False: ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 0), (0, 3, 0, 4), (0, 4, 3, 0)),  # I V vi IV and friends
    True: ((0, 5, 2, 6), (0, 3, 4, 0), (0, 6, 5, 0), (0, 3, 5, 0), (0, 5, 3, 4)),  # i VI III VII and friends
}


@lru_cache(maxsize=256)
def triad(key: Key, degree: int) -> tuple[int, tuple[int, int, int]]:
    """Label of the triad on a degree of the scale (1..12 major on C..B, 13..24 minor), and its pitch classes.

    Degrees 0 to 5 of major and 0, 2..6 of minor only: the others are diminished.
    """
    scale = _SCALE[key.minor]
    root, third, fifth = (
        (key.tonic + scale[(degree + step) % 7] + 12 * ((degree + step) // 7)) for step in (0, 2, 4)
    )
    assert fifth - root == 7, f"degree {degree} of {key} is diminished"
    return 1 + root % 12 + 12 * (third - root == 3), (root % 12, third % 12, fifth % 12)


@cache
def scale_notes(key: Key, lowest: int, highest: int) -> tuple[int, ...]:
    """The notes of the scale from `lowest` to `highest`, as MIDI numbers."""
    classes = {(key.tonic + step) % 12 for step in _SCALE[key.minor]}
    return tuple(midi for midi in range(lowest, highest + 1) if midi % 12 in classes)


def progression(rng: Random, key: Key) -> tuple[int, ...]:
    """Four degrees, a bar each."""
    choices = _PROGRESSIONS[key.minor]
    return choices[int(rng.random() * len(choices))]
