"""Random requests to learn from: English and Chinese lines, and styles of which something is left open."""

from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import TypeVar

import numpy as np

from songgen_core.configs import FRAME_RATE
from songgen_core.text.lyrics import VOCAL_TAGS
from songgen_core.text.phone_tokens import FRAMES_PER_BEAT
from songgen_core.text.phonetics import Lexicon

from .beats import BEATS_PER_BAR, EIGHTHS_PER_BAR, eighths_per_syllable
from .compose import PLAYED_BARS, part_bars
from .request import EMOTIONS, GENDERS, GENRES, INSTRUMENTS, Key, Line, Part, Request

T = TypeVar("T")

SHORTEST, LONGEST = 6.0, 32.0  # seconds
# The middle of a song: singing and playing in any order, as people write it.
_MIDDLE = ("verse", "verse", "verse", "chorus", "chorus", "chorus", "bridge", "inst", "inst")
_MOST_MIDDLE = 6
_INTRO_SHARE = _OUTRO_SHARE = 0.5
_UNSUNG_SHARE = 0.04  # songs of instrumental sections alone
_PLAYED_LENGTHS = {"short": 6, "medium": 3, "long": 1}  # of instrumental sections, and how common they are
_CHINESE_SHARE = 0.35
_COMMON_SHARE = 0.5
_FEWEST, _MOST = 3, 13  # syllables of a line
_LONGEST_WORD = 4  # syllables
_TOLD = 0.7  # how often each part of a style is told, if anything is
_NOTHING_TOLD = 0.1

# Of words that are made up.
_ONSETS = "b ch d f g h j k l m n p r s sh st t th tr v w y z"
_NUCLEI = "a e i o u ee oo ai ow oy er"
_CODAS = "n ng l m t s k"

# Half of the words of a line are drawn from these, as in songs.
_COMMON = (
    "a about after again all alone always and another any are around arms as at away baby back be because "
    "been before believe better blue body break bring broken burn but by call came can cannot change close "
    "cold come could cry dance dark day days deep did do down dream dreams every everything eyes face fall "
    "far feel feeling find fire fly follow for forever found free from girl give go going gone good got "
    "hand hands hard have he hear heart heaven her here high him his hold home hope how i if in into is it "
    "just keep kiss know leave let life light like little live long look lose lost love lover make man "
    "maybe me mind moment moon more morning much music my need never new night no nothing now of oh on one "
    "only open or our out over pain place play rain remember ride right river road run said say see shadow "
    "she shine should show sing sky slow smile so some someone something song soul stars stay still stop "
    "street strong summer sun sweet take tears tell than that the them then there they thing think this "
    "through time to today together tomorrow tonight too touch true try turn under until up us voice wait "
    "walk want was water way we well were what when where who why will wind wish with without wonder words "
    "world would you young your"
)


@dataclass(frozen=True)
class _Words:
    """What lines are made of: words by their number of syllables, and Chinese characters if there are any."""

    common: dict[int, list[str]]
    all: dict[int, list[str]]
    characters: list[str]


def random_request(
    rng: np.random.Generator, lexicon: Lexicon | None, seconds: float | None = None
) -> Request:
    """A request for a song of at most `seconds` (any from 6 to 32 if None), and two bars at least.

    Without a lexicon its words are made up. The lyrics, read with the same lexicon, are its syllables.
    """
    draws = Random(int(rng.integers(2**63)))
    if seconds is None:
        seconds = draws.uniform(SHORTEST, LONGEST)
    fpb = draws.choice(FRAMES_PER_BEAT)
    bars = max(2, int(seconds * FRAME_RATE / (BEATS_PER_BAR * fpb)))
    parts = _parts(draws, lexicon or _rules_only(), bars, fpb)
    key = Key(draws.randrange(12), draws.random() < 0.5)
    chance = 0.0 if draws.random() < _NOTHING_TOLD else _TOLD

    def told(value: T) -> T | None:
        return value if draws.random() < chance else None

    return Request(
        parts,
        gender=told(draws.choice(GENDERS)),
        genre=told(draws.choice(GENRES)),
        emotion=told(EMOTIONS[key.minor]),
        instrument=told(draws.choice(INSTRUMENTS)),
        bpm=told(round(60 * FRAME_RATE / fpb)),
        key=told(key),
        longest=max(seconds, bars * BEATS_PER_BAR * fpb / FRAME_RATE),
    )


def _parts(draws: Random, lexicon: Lexicon, bars: int, fpb: int) -> tuple[Part, ...]:
    """Sections of `bars` bars together; instrumental ones alone may take fewer."""
    names = _names(draws, bars)
    spare = bars - sum(map(_fewest_bars, names))
    share = 2 if any(name in VOCAL_TAGS for name in names) else 1  # the rest is for the sung sections
    played: list[Part] = []
    for name in names:
        if name not in VOCAL_TAGS:
            played.append(Part(f"{name}-{_played_length(draws, spare // share)}"))
            spare -= part_bars(played[-1], fpb) - _fewest_bars(name)
    left = bars - sum(part_bars(part, fpb) for part in played)
    unsung = len(names) - len(played)
    chinese = bool(_words(lexicon).characters) and draws.random() < _CHINESE_SHARE
    parts: list[Part] = []
    for name in names:
        if name not in VOCAL_TAGS:
            parts.append(played.pop(0))
            continue
        before = next((part for part in parts if part.tag == name == "chorus"), None)
        if before is None or part_bars(before, fpb) > left - unsung + 1:
            before = Part(name, _lines(draws, lexicon, left // unsung, fpb, chinese))
        parts.append(before)
        left, unsung = left - part_bars(before, fpb), unsung - 1
    return tuple(parts)


def _names(draws: Random, bars: int) -> list[str]:
    """Sections in any order, an intro only first and an outro only last, as many as there is room for."""
    middle = draws.choices(_MIDDLE, k=draws.randint(1, _MOST_MIDDLE))
    if draws.random() < _UNSUNG_SHARE:
        middle = ["inst"] * len(middle)
    elif not any(name in VOCAL_TAGS for name in middle):
        middle[draws.randrange(len(middle))] = draws.choice(("verse", "chorus"))
    intro = ["intro"] if draws.random() < _INTRO_SHARE else []
    outro = ["outro"] if draws.random() < _OUTRO_SHARE else []
    names = [*intro, *middle, *outro]
    while sum(map(_fewest_bars, names)) > bars and len(names) > 1:
        sung = [name in VOCAL_TAGS for name in names]
        names.pop(draws.choice([n for n, is_sung in enumerate(sung) if not is_sung or sum(sung) > 1]))
    return names


def _fewest_bars(name: str) -> int:
    return 1 if name in VOCAL_TAGS else PLAYED_BARS["short"]


def _played_length(draws: Random, spare: int) -> str:
    """A length that takes no more than the `spare` bars."""
    (length,) = draws.choices(list(_PLAYED_LENGTHS), list(_PLAYED_LENGTHS.values()))
    return length if PLAYED_BARS[length] - PLAYED_BARS["short"] <= spare else "short"


def _lines(draws: Random, lexicon: Lexicon, bars: int, fpb: int, chinese: bool) -> tuple[Line, ...]:
    """One line or more that fill `bars` bars."""
    step = eighths_per_syllable(fpb)
    lines: list[Line] = []
    while bars > 0:
        most = min(_MOST, bars * EIGHTHS_PER_BAR // step)
        count = draws.randint(_FEWEST, most)
        text = _chinese_line(draws, lexicon, count) if chinese else _english_line(draws, lexicon, count)
        lines.append(Line(text, tuple(lexicon.syllables(text))))
        bars -= part_bars(Part("verse", (lines[-1],)), fpb)
    return tuple(lines)


def _chinese_line(draws: Random, lexicon: Lexicon, count: int) -> str:
    return "".join(draws.choices(_words(lexicon).characters, k=count))


def _english_line(draws: Random, lexicon: Lexicon, count: int) -> str:
    """Words of `count` syllables together."""
    words, out = _words(lexicon), list[str]()
    while count > 0:
        pools = words.common if draws.random() < _COMMON_SHARE else words.all
        length = draws.choice([n for n in (1, 1, 2, 2, 3, 4) if n <= count and pools.get(n)] or [1])
        out.append(draws.choice(pools[length]))
        count -= length
    return " ".join(out).capitalize()


@lru_cache(maxsize=1)
def _rules_only() -> Lexicon:
    return Lexicon({})


@lru_cache(maxsize=4)
def _words(lexicon: Lexicon) -> _Words:
    words = [word for word in lexicon.english if word.isalpha() and len(word) > 1] or _made_up_words()
    common = [word for word in _COMMON.split() if word in lexicon.english] or words
    return _Words(_by_length(common, lexicon), _by_length(words, lexicon), _characters(lexicon))


def _by_length(words: list[str], lexicon: Lexicon) -> dict[int, list[str]]:
    pools: dict[int, list[str]] = {}
    for word in words:
        pools.setdefault(_count_syllables(word, lexicon), []).append(word)
    return {length: pool for length, pool in pools.items() if length <= _LONGEST_WORD}


def _count_syllables(word: str, lexicon: Lexicon) -> int:
    """Known words by the vowels of their phones: reading a whole dictionary takes seconds."""
    if word not in lexicon.english:
        return len(lexicon.syllables(word))
    return max(1, sum(phone[0] in "AEIOU" for phone in lexicon.english[word].split()))


def _made_up_words() -> list[str]:
    """A thousand words that rules can read, one to three syllables long."""
    draws, onsets, nuclei, codas = Random(0), _ONSETS.split(), _NUCLEI.split(), ["", "", *_CODAS.split()]
    words = {
        "".join(
            draws.choice(onsets) + draws.choice(nuclei) + draws.choice(codas)
            for _ in range(draws.randint(1, 3))
        )
        for _ in range(1000)
    }
    return sorted(words)


def _characters(lexicon: Lexicon) -> list[str]:
    """The commonest characters, which are the first level of GB 2312, as far as the lexicon has them."""
    rows = range(0xB0, 0xD8)
    level = (bytes((row, cell)).decode("gb2312", "ignore") for row in rows for cell in range(0xA1, 0xFF))
    return [char for char in level if char in lexicon.pinyin]
