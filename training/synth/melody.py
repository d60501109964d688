"""Which pitch each syllable gets: small steps on the scale, chord notes on the beats."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from random import Random

from .harmony import scale_notes
from .request import Key

# The voices share no note, so that a frame's pitch tells whose formants it has.
RANGES = {"female": (62, 76), "male": (48, 61)}
FEMALE_FROM = RANGES["female"][0]
_CENTRES = {"female": (65, 69), "male": (51, 55)}
_LIFTED = "chorus"
_STEPS = (-2, -1, -1, 0, 0, 1, 1, 2)
_LONGEST_PATTERN = 16


@dataclass(frozen=True)
class Melody:
    """The tune of one song: two phrases for each kind of section, which its lines take turns to sing."""

    key: Key
    gender: str
    centre: int
    lift: int  # semitones that the chorus lies above the rest
    phrases: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]  # steps on the scale, by tag

    def line(self, tag: str, number: int, chords: Sequence[tuple[Sequence[int], bool]]) -> list[int]:
        """MIDI pitches of line `number` in its section: one for each of `chords`.

        Each entry of `chords` holds the pitch classes that sound with the syllable, and whether it falls on a
        beat. The last syllable gets a chord note as well.
        """
        lowest, highest = RANGES[self.gender]
        centre = self.centre + (self.lift if tag == _LIFTED else 0)
        notes = scale_notes(self.key, max(lowest, centre - 5), min(highest, centre + 7))
        middle, top = bisect_left(notes, centre), len(notes) - 1
        place, out = middle, list[int]()
        for (classes, on_beat), step in zip(chords, cycle(self.phrases[tag][number % 2])):
            # Turn round at the edge of the range.
            place += step if 0 <= place + step <= top else -step
            if on_beat or len(out) == len(chords) - 1:
                place = _nearest(notes, classes, place)
            out.append(notes[place])
        return out


def new_melody(rng: Random, key: Key, gender: str) -> Melody:
    """Draw a tune."""
    low, high = _CENTRES[gender]
    phrases = {tag: (_phrase(rng), _phrase(rng)) for tag in ("verse", "chorus", "bridge")}
    return Melody(
        key,
        gender,
        low + int(rng.random() * (high - low + 1)),
        2 + int(rng.random() * 3),
        phrases,
    )


def _phrase(rng: Random) -> tuple[int, ...]:
    """Steps that lean back to where the phrase began."""
    steps, place = [], 0
    for _ in range(_LONGEST_PATTERN):
        step = _STEPS[int(rng.random() * len(_STEPS))]
        if abs(place + step) > 4:
            step = -step
        place += step
        steps.append(step)
    return tuple(steps)


def _nearest(notes: Sequence[int], classes: Sequence[int], place: int) -> int:
    """The place of the chord note nearest to `place`; the lower one of two."""
    for distance in range(len(notes)):
        for near in (place - distance, place + distance):
            if 0 <= near < len(notes) and notes[near] % 12 in classes:
                return near
    raise AssertionError(f"no note of {classes} among {notes}")
