"""When nobody should sing: what the tags of the lyrics promise, laid over a song without trusting its voice.

The tags tell lengths only loosely: models mean bars or seconds by "short". So only what every reading shares
is held against a song: a short instrumental section lasts two bars at least, a medium one four, a long one
six. Those at the start and at the end of a song have their place; one in the middle gets the benefit of the
doubt, which is the stretch with the least voice near the place where its turn comes.

T frames of a hundredth of a second.
"""

from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from ..analysis.beats import BEATS_PER_BAR
from ..analysis.lines import count_syllables
from ..text.lyrics import Section, Song
from .pitch import PITCH_RATE

Flags = NDArray[np.bool_]

# Tag ending -> bars that a section lasts at least, and seconds at most.
_BARS = {"short": 2, "medium": 4, "long": 6, "silence": 1}
_MOST_SECONDS = {"short": 10.0, "medium": 20.0, "long": 30.0, "silence": 5.0}
_PLAYED_SHORT = 0.75  # of its least bars, with which a section still counts as kept
_GRACE = 0.12  # seconds at either end: breaths, upbeats, the edges of a codec's frames
_FARTHEST = 0.3  # of all the voice that a section in the middle may come too early or too late


@dataclass(frozen=True)
class Instrumental:
    """Neighbouring sections without lyrics, taken together.

    `start` to `end` in seconds is where nobody should sing; `length` how long nobody does there; `shortest`
    to `longest` what the tags promise.
    """

    tags: tuple[str, ...]
    start: float
    end: float
    length: float
    shortest: float
    longest: float

    @property
    def kept(self) -> bool:
        """Whether the length is the promised one."""
        return self.shortest <= self.length <= self.longest


def bar_seconds(asked: float, heard: float | None) -> float:
    """Seconds of a bar in four, by the quicker of two tempi: a wrong one is not held against the sections."""
    return 60 * BEATS_PER_BAR / max(asked, heard or 0.0)


def find_instrumentals(
    song: Song, seconds: float, ended: bool, bar: float, voiced: Flags
) -> list[Instrumental]:
    """Where nobody should sing in a song of `seconds`, from where voices are heard [T]; `bar` in seconds.

    A song that was cut off (not `ended`) is judged by its start alone. Nothing is told of a song without a
    voice, nor of lyrics that have no instrumental section or nothing else.
    """
    times = np.flatnonzero(voiced) / PITCH_RATE
    if len(times) == 0 or not any(section.is_vocal for section in song.sections):
        return []
    found = []
    groups = _groups(song)
    total = sum(syllables for _, syllables in groups if syllables) or 1
    sung = 0
    for number, (sections, syllables) in enumerate(groups):
        if syllables:
            sung += syllables
            continue
        least = sum(_BARS[_ending(section)] for section in sections) * bar
        most = max(sum(_MOST_SECONDS[_ending(section)] for section in sections), 1.5 * least)
        if number == 0:
            start, length = 0.0, float(times[0])
        elif not ended:
            continue
        elif number == len(groups) - 1:
            start, length = max(0.0, seconds - least), seconds - float(times[-1]) - 1 / PITCH_RATE
        else:
            start, length = _quietest(voiced, least, sung / total)
        place = start + _GRACE, min(start + least, seconds) - _GRACE
        found.append(
            Instrumental(
                tuple(section.tag for section in sections),
                round(place[0], 3),
                round(max(place), 3),
                round(length, 3),
                round(_PLAYED_SHORT * least, 3),
                round(most, 3),
            )
        )
    return found


def inside(instrumentals: list[Instrumental], frames: int) -> Flags:
    """[T]: which frames lie where nobody should sing."""
    flags = np.zeros(frames, bool)
    for part in instrumentals:
        flags[round(part.start * PITCH_RATE) : round(part.end * PITCH_RATE)] = True
    return flags


def _groups(song: Song) -> list[tuple[tuple[Section, ...], int]]:
    """Neighbouring sections that are all sung or all not, with their syllables; 0 for those that are not."""
    groups: list[tuple[tuple[Section, ...], int]] = []
    for is_vocal, neighbours in groupby(song.sections, lambda section: section.is_vocal):
        group = tuple(neighbours)
        syllables = sum(count_syllables(line) for section in group for line in section.lines)
        groups.append((group, syllables if is_vocal else 0))
    return groups


def _ending(section: Section) -> str:
    return section.tag.rpartition("-")[2]


def _quietest(voiced: Flags, length: float, share: float) -> tuple[float, float]:
    """Start of the stretch of `length` seconds with the least voice where about `share` of all voice is over.

    And the length of the longest pause that it touches. It lies between the first and the last voice.
    """
    sung = np.flatnonzero(voiced)
    first, last = int(sung[0]), int(sung[-1]) + 1
    frames = min(round(length * PITCH_RATE), last - first)
    before = np.concatenate([[0], np.cumsum(voiced[first:last])])
    within = before[frames:] - before[: len(before) - frames]
    # Half of the voice inside counts as before: the place of a stretch that is sung through is its middle.
    far = np.abs((before[: len(within)] + within / 2) / len(sung) - share)
    candidates = np.where(far <= max(_FARTHEST, far.min()), within, len(voiced) + 1)
    # Of equally quiet ones the middle one, so that it lies inside its pause.
    best = np.flatnonzero(candidates == candidates.min())
    start = first + int(best[len(best) // 2])
    pauses = [
        int(after - before)
        for before, after in pairwise(sung)
        if after - before > 1 and after > start and before < start + frames
    ]
    return start / PITCH_RATE, max((pause - 1 for pause in pauses), default=0) / PITCH_RATE
