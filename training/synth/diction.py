"""How the frames of a syllable are shared out among its phones."""

from collections.abc import Sequence
from functools import lru_cache

from songgen_core.text.phonetics import Syllable

from ..codes import PHONE_IDS

_SHORTEST_VOWEL = 2
_LONG = 10  # frames from which on closing consonants take two

# Sung with a pitch; the others are noise alone.
VOICED_IDS = frozenset(
    PHONE_IDS[phone]
    for phone in ("M", "N", "NG", "L", "R", "W", "Y", "B", "D", "G", "V", "Z", "ZH", "DH", "JH")
)


@lru_cache(maxsize=1 << 16)
def share_out(syllable: Syllable, frames: int) -> tuple[int, ...]:
    """Phone ids of the `frames` of a syllable: consonants a frame each, the vowel has the rest.

    The vowel keeps at least two frames; consonants from the inside of a cluster give way.
    """
    assert frames > _SHORTEST_VOWEL, f"{frames} frames are too few for a syllable"
    onset, coda = list(syllable.onset), list(syllable.coda)
    closing = 2 if frames >= _LONG else 1
    while len(onset) + closing * len(coda) > frames - _SHORTEST_VOWEL:
        _drop_one(onset if len(onset) > len(coda) else coda)
    vowel = frames - len(onset) - closing * len(coda)
    ids = _ids(onset) + [PHONE_IDS[syllable.vowel]] * vowel
    return tuple(ids + [phone for phone in _ids(coda) for _ in range(closing)])


def _drop_one(cluster: list[str]) -> None:
    """From the inside if it has one, else the first."""
    del cluster[1 if len(cluster) > 2 else 0]


def _ids(phones: Sequence[str]) -> list[int]:
    return [PHONE_IDS[phone] for phone in phones]
