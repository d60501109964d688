"""Phones and the syllables that they make: what a voice sings on one note.

English comes as the CMU dictionary's phones. Their diphthongs end in glides here (AY = AA Y), so that every
syllable has exactly one vowel, which can be held.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


VOWELS = _names("AA AE AH AO EH ER IH IY UH UW YU")  # YU: the vowel of Mandarin nü
CONSONANTS = _names("B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH")
PHONES = ("SIL", *VOWELS, *CONSONANTS)  # the index is the phone's number in codes and tokens
MAX_ONSET, MAX_CODA = 3, 2

_DIPHTHONGS = {"AY": ("AA", "Y"), "AW": ("AA", "W"), "EY": ("EH", "Y"), "OW": ("AO", "W"), "OY": ("AO", "Y")}
_NUCLEI = frozenset((*VOWELS, *_DIPHTHONGS))
CMU_PHONES = _NUCLEI | frozenset(CONSONANTS)  # without stress marks
_GLIDES = ("W", "Y")
# Clusters that begin English words; any single consonant but NG does too.
_CLUSTERS = frozenset(
    tuple(cluster.split("+"))
    for cluster in _names(
        "B+L B+R B+Y D+R D+W F+L F+R F+Y G+L G+R G+W G+Y HH+W HH+Y K+L K+R K+W K+Y M+Y N+Y P+L P+R P+Y S+F "
        "S+K S+L S+M S+N S+P S+T S+W SH+R T+R T+W TH+R TH+W V+Y "
        "S+K+L S+K+R S+K+W S+K+Y S+P+L S+P+R S+P+Y S+T+R"
    )
)


@dataclass(frozen=True)
class Syllable:
    """At most 3 consonants, one vowel, at most 2 consonants; raises ValueError for anything else."""

    onset: tuple[str, ...]
    vowel: str
    coda: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        around = (*self.onset, *self.coda)
        fits = len(self.onset) <= MAX_ONSET and len(self.coda) <= MAX_CODA
        if not fits or self.vowel not in VOWELS or any(phone not in CONSONANTS for phone in around):
            raise ValueError(f"{self.onset} {self.vowel} {self.coda} is no syllable")

    @property
    def phones(self) -> tuple[str, ...]:
        """All phones in the order they are sung."""
        return (*self.onset, self.vowel, *self.coda)


def syllabify(phones: Iterable[str]) -> list[Syllable]:
    """Syllables of one word in CMU phones without stress, consonants going to the next vowel where they can.

    A word without a vowel ("hmm") gets AH before its last consonant. Clusters that are too long lose
    consonants from their inside.
    """
    sounds = list(phones)
    if not _NUCLEI.intersection(sounds):
        sounds.insert(max(0, len(sounds) - 1), "AH")
    nuclei = [index for index, phone in enumerate(sounds) if phone in _NUCLEI]
    # starts[i] is where the onset of syllable i begins; one more at the end of the word.
    starts = [0]
    for left, right in pairwise(nuclei):
        starts.append(right - _onset_length(sounds[left + 1 : right]))
    starts.append(len(sounds))
    return [
        _syllable(sounds[begin:nucleus], sounds[nucleus], sounds[nucleus + 1 : end])
        for begin, nucleus, end in zip(starts, nuclei, starts[1:])
    ]


def _onset_length(between: list[str]) -> int:
    """How many of the consonants between two vowels begin the second syllable."""
    for length in range(min(MAX_ONSET, len(between)), 1, -1):
        if tuple(between[-length:]) in _CLUSTERS:
            return length
    return 1 if between and between[-1] != "NG" else 0


def _syllable(onset: list[str], nucleus: str, coda: list[str]) -> Syllable:
    vowel, *glide = _DIPHTHONGS.get(nucleus, (nucleus,))
    return Syllable(_onset(onset), vowel, _coda([*glide, *coda]))


def _onset(consonants: list[str]) -> tuple[str, ...]:
    """The cluster, its inside shortened: its beginning and the consonant at the vowel stay."""
    extra = len(consonants) - MAX_ONSET
    return tuple(consonants if extra <= 0 else [*consonants[: MAX_ONSET - 1], consonants[-1]])


def _coda(consonants: list[str]) -> tuple[str, ...]:
    """Two of the consonants: "hands" is sung "hanz"; a glide keeps its neighbour, "mind" is sung "mine"."""
    if len(consonants) <= MAX_CODA:
        return tuple(consonants)
    return consonants[0], consonants[1 if consonants[0] in _GLIDES else -1]
