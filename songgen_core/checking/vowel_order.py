"""How many vowels of the lyrics are heard, in their order, and how many would be by chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..text.lyrics import Song
from ..text.phonetics import Lexicon

_SHUFFLES = 20


@dataclass(frozen=True)
class VowelScore:
    """Shares (0..1) of vowels that are right: of the lyrics, and of the same lyrics in any other order.

    Counted are the pairs of the best alignment, divided by the longer of both rows: what is left out and what
    is sung too much cost alike. `read` is how many vowels the lyrics have, `heard` how many were sung.
    """

    right: float
    chance: float
    read: int
    heard: int


def lyric_vowels(song: Song, lexicon: Lexicon) -> list[str]:
    """The vowels of the lyrics in the order they are to be sung."""
    lines = [line for section in song.sections if section.is_vocal for line in section.lines]
    return [syllable.vowel for line in lines for syllable in lexicon.syllables(line)]


def score_vowels(heard: Sequence[str], read: Sequence[str], seed: int = 0) -> VowelScore | None:
    """None for lyrics without a vowel."""
    if not read:
        return None
    rng = np.random.default_rng(seed)
    shuffled = [[read[n] for n in rng.permutation(len(read))] for _ in range(_SHUFFLES)]
    longer = max(len(heard), len(read))
    chance = float(np.mean([matches(heard, order) for order in shuffled])) / longer
    return VowelScore(round(matches(heard, read) / longer, 4), round(chance, 4), len(read), len(heard))


def matches(heard: Sequence[str], read: Sequence[str]) -> int:
    """Equal pairs of the alignment with the fewest edits; of several the one with the most pairs."""
    # Cost of an edit is a whole, and each pair takes off less than all of them together can sum up to.
    unit = len(heard) + len(read) + 1
    row = [number * unit for number in range(len(read) + 1)]
    for first in heard:
        diagonal, row[0] = row[0], row[0] + unit
        for number, second in enumerate(read, 1):
            pair = diagonal + (-1 if first == second else unit)
            diagonal = row[number]
            row[number] = min(pair, row[number] + unit, row[number - 1] + unit)
    return -row[-1] % unit
