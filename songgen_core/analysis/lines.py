"""When each line of the lyrics is sung: a guess from its length, mended by the voice where that is known."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..text.lyrics import Song
from .beats import Array
from .sections import SongSection
from .voice import VOICE_RATE, voice_starts

BY_LENGTH = "share of the section"
BY_VOICE_SPAN = "share of the voice"
BY_VOICE_START = "start of the voice"

# How far a method is to be trusted: an order, not a probability.
_CONFIDENCE = {BY_LENGTH: 0.2, BY_VOICE_SPAN: 0.35, BY_VOICE_START: 0.6}
_BREATH = 0.6  # syllables' worth of pause after a line
_FARTHEST_SNAP, _SNAP_SHARE = 1.5, 0.45  # seconds, and of the mean line of the section
_SHORTEST_LINE = 0.2  # seconds
_LEAST_VOICE = 0.2  # of a section; with less, the stem says nothing about it

_SMALL_KANA = "ゃゅょぁぃぅぇぉゎャュョァィゥェォヮー"  # part of the syllable before them
_WORDS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d")
_VOWELS = re.compile("[aeiouyæœøıαεηιουωаеёиоуыэюя]+", re.IGNORECASE)


@dataclass(frozen=True)
class TimedLine:
    """A line from `start` to `end` in seconds, how that was found, and how far to trust it (0..1)."""

    text: str
    start: float
    end: float
    confidence: float = 1.0
    method: str = "given"


def count_syllables(text: str) -> int:
    """Syllables of a line, at least 1: groups of vowels in alphabets, characters in Han, kana and Hangul."""
    plain = unicodedata.normalize("NFC", text)
    syllabic = sum(_is_syllabic(char) for char in plain)
    spoken = "".join(" " if _is_syllabic(char) or char in _SMALL_KANA else char for char in plain)
    return max(1, syllabic + sum(map(_syllables_of_word, _WORDS.findall(spoken))))


def time_lines(song: Song, sections: Sequence[SongSection], voiced: Array | None = None) -> list[TimedLine]:
    """The lines of `song` within its `sections` (as `sections_of_song` returns them), in order, apart.

    Lines share their section by syllables. With `voiced` [T] (0 or 1, 50 per second) they share what lies
    between the first and the last voice in it, and begin where a voice begins, if one does nearby.
    """
    assert len(sections) == len(song.sections), (len(sections), len(song.sections))
    timed: list[TimedLine] = []
    for section, place in zip(song.sections, sections):
        if section.is_vocal and section.lines:
            timed += _time_section(section.lines, place, voiced)
    return timed


def _time_section(lines: Sequence[str], place: SongSection, voiced: Array | None) -> list[TimedLine]:
    start, end, method = place.start, place.end, BY_LENGTH
    starts_of_voice = np.zeros(0)
    if voiced is not None and (span := _voice_span(voiced, start, end)) is not None:
        start, end, method = *span, BY_VOICE_SPAN
        starts_of_voice = voice_starts(voiced)
    weights = np.array([count_syllables(line) + _BREATH for line in lines])
    bounds = start + np.concatenate([[0.0], np.cumsum(weights)]) / weights.sum() * (end - start)
    starts, snapped = _snap_to_voice(bounds, starts_of_voice)
    timed = []
    for number, line in enumerate(lines):
        until = starts[number + 1] if number + 1 < len(lines) else end
        if voiced is not None and method != BY_LENGTH:
            until = _last_voice(voiced, starts[number], until)
        how = BY_VOICE_START if snapped[number] else method
        timed.append(TimedLine(line, round(starts[number], 3), round(until, 3), _CONFIDENCE[how], how))
    return timed


def _voice_span(voiced: Array, start: float, end: float) -> tuple[float, float] | None:
    """From the first to the last voice within a section, or None where hardly any is heard."""
    first = round(start * VOICE_RATE)
    inside = np.flatnonzero(voiced[first : round(end * VOICE_RATE)])
    if len(inside) < _LEAST_VOICE * (end - start) * VOICE_RATE:
        return None
    low, high = (first + inside[0]) / VOICE_RATE, (first + inside[-1] + 1) / VOICE_RATE
    return max(start, float(low)), min(end, float(high))


def _snap_to_voice(bounds: Array, starts_of_voice: Array) -> tuple[list[float], list[bool]]:
    """Starts of the lines, moved to the start of a voice nearby, and which of them were."""
    starts: list[float] = []
    snapped: list[bool] = []
    reach = min(_FARTHEST_SNAP, _SNAP_SHARE * float(np.diff(bounds).mean()))
    for at, following in pairwise(bounds.tolist()):
        earliest = starts[-1] + _SHORTEST_LINE if starts else at - 1e-6
        is_near = (np.abs(starts_of_voice - at) <= reach) & (starts_of_voice >= earliest)
        near = starts_of_voice[is_near & (starts_of_voice < following - _SHORTEST_LINE)]
        starts.append(float(near[np.abs(near - at).argmin()]) if len(near) else at)
        snapped.append(bool(len(near)))
    return starts, snapped


def _last_voice(voiced: Array, start: float, end: float) -> float:
    """The end of the last voice between `start` and `end`, or `end` if there is none."""
    first = round(start * VOICE_RATE)
    inside = np.flatnonzero(voiced[first : round(end * VOICE_RATE)])
    if len(inside) == 0:
        return end
    return max(min(end, (first + float(inside[-1]) + 1) / VOICE_RATE), min(end, start + _SHORTEST_LINE))


def _is_syllabic(char: str) -> bool:
    """Whether a character is sung as one syllable by itself."""
    return char not in _SMALL_KANA and (
        "\u3041" <= char <= "\u30fa"
        or "\u3400" <= char <= "\u9fff"
        or "\uac00" <= char <= "\ud7a3"
        or "\uf900" <= char <= "\ufaff"
        or "\U00020000" <= char <= "\U0003ffff"
    )


def _syllables_of_word(word: str) -> int:
    """Groups of vowels; a silent e at the end of a longer word does not count."""
    bare = "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))
    groups = len(_VOWELS.findall(bare))
    silent = len(word) > 2 and re.search(r"[^aeiouyl]e$", word, re.IGNORECASE) is not None
    return max(1, groups - (silent and groups > 1))
