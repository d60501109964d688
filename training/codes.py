"""What the codes of the mini model mean: every id of the three streams carries labels.

    mixed    phone, number of the syllable mod 8, pulse: ((phone * 8 + k) * 4 + pulse)
    vocal    0 silence, 1..24 consonants, then vowel x pitch: 25 + vowel * 37 + (midi - 43)
    bgm      chord, whether it is struck, drum, timbre: ((chord * 2 + struck) * 5 + drum) * 4 + timbre

The mixed encoder hears phone and pulse in a recording but no number of a syllable, so it has ids of its own
behind those of songs. Functions take and return integers or integer arrays of one shape.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from songgen_core.text.musical_key import KEYS
from songgen_core.text.phone_tokens import SYLLABLE_CYCLE
from songgen_core.text.phonetics import CONSONANTS, PHONES, VOWELS

Ints = NDArray[np.int64]

CODEBOOK_SIZE = 1280

PULSES = ("none", "off-beat", "beat", "bar")  # the strongest that starts in a frame
OFF_BEAT, BEAT, BAR = 1, 2, 3
NUM_MIXED = len(PHONES) * SYLLABLE_CYCLE * len(PULSES)
FIRST_HEARD = NUM_MIXED
NUM_HEARD = len(PHONES) * 2

LOWEST_MIDI, HIGHEST_MIDI = 43, 79
NUM_PITCHES = HIGHEST_MIDI - LOWEST_MIDI + 1
FIRST_VOWEL_CODE = 1 + len(CONSONANTS)
NUM_VOCAL = FIRST_VOWEL_CODE + len(VOWELS) * NUM_PITCHES

CHORDS = ("none", *KEYS)  # major on C..B, then minor
DRUMS = ("none", "kick", "snare", "hat", "kick and hat")  # what starts in a frame
TIMBRES = ("piano", "guitar", "synthesizer", "strings")
NUM_BGM = len(CHORDS) * 2 * len(DRUMS) * len(TIMBRES)

PHONE_IDS = {phone: number for number, phone in enumerate(PHONES)}
FIRST_VOWEL, FIRST_CONSONANT = PHONE_IDS[VOWELS[0]], PHONE_IDS[CONSONANTS[0]]


def mixed_code(phone: ArrayLike, k: ArrayLike, pulse: ArrayLike) -> Ints:
    """Id of the mixed stream; raises ValueError for a label out of range, as all functions here do."""
    sung = _labels("phone", phone, len(PHONES)) * SYLLABLE_CYCLE + _labels("k", k, SYLLABLE_CYCLE)
    return sung * len(PULSES) + _labels("pulse", pulse, len(PULSES))


def split_mixed(code: ArrayLike) -> tuple[Ints, Ints, Ints]:
    """phone, k and pulse of ids that songs have."""
    sung, pulse = np.divmod(_labels("mixed code", code, NUM_MIXED), len(PULSES))
    phone, k = np.divmod(sung, SYLLABLE_CYCLE)
    return phone, k, pulse


def heard_code(phone: ArrayLike, pulse: ArrayLike) -> Ints:
    """Id that the mixed encoder gives to a frame of a recording; of the pulse only whether there is one."""
    is_pulse = _labels("pulse", pulse, len(PULSES)) > 0
    return FIRST_HEARD + _labels("phone", phone, len(PHONES)) * 2 + is_pulse


def split_heard(code: ArrayLike) -> tuple[Ints, Ints]:
    """phone, and 1 where a pulse was heard."""
    phone, pulse = np.divmod(_labels("heard code", np.asarray(code) - FIRST_HEARD, NUM_HEARD), 2)
    return phone, pulse


def vocal_code(phone: ArrayLike, midi: ArrayLike) -> Ints:
    """Id of the vocal stream; `midi` counts only where `phone` is a vowel."""
    phones = _labels("phone", phone, len(PHONES))
    is_vowel = (phones >= FIRST_VOWEL) & (phones < FIRST_CONSONANT)
    pitch = _labels("pitch", np.where(is_vowel, np.asarray(midi) - LOWEST_MIDI, 0), NUM_PITCHES)
    vowel = FIRST_VOWEL_CODE + (phones - FIRST_VOWEL) * NUM_PITCHES + pitch
    return np.where(is_vowel, vowel, np.maximum(phones - FIRST_CONSONANT + 1, 0))


def split_vocal(code: ArrayLike) -> tuple[Ints, Ints]:
    """phone and midi; midi is 0 for silence and consonants."""
    codes = _labels("vocal code", code, NUM_VOCAL)
    vowel, pitch = np.divmod(codes - FIRST_VOWEL_CODE, NUM_PITCHES)
    is_vowel = codes >= FIRST_VOWEL_CODE
    consonant = np.where(codes > 0, codes - 1 + FIRST_CONSONANT, 0)
    return np.where(is_vowel, vowel + FIRST_VOWEL, consonant), np.where(is_vowel, pitch + LOWEST_MIDI, 0)


def bgm_code(chord: ArrayLike, struck: ArrayLike, drum: ArrayLike, timbre: ArrayLike) -> Ints:
    """Id of the accompaniment stream."""
    played = _labels("chord", chord, len(CHORDS)) * 2 + _labels("struck", struck, 2)
    played = played * len(DRUMS) + _labels("drum", drum, len(DRUMS))
    return played * len(TIMBRES) + _labels("timbre", timbre, len(TIMBRES))


def split_bgm(code: ArrayLike) -> tuple[Ints, Ints, Ints, Ints]:
    """chord, struck, drum and timbre."""
    played, timbre = np.divmod(_labels("bgm code", code, NUM_BGM), len(TIMBRES))
    played, drum = np.divmod(played, len(DRUMS))
    chord, struck = np.divmod(played, 2)
    return chord, struck, drum, timbre


def mixed_factors() -> Ints:
    """[1280, 3]: phone, k, pulse of every id; -1 for what an id does not tell, all -1 where it is not used.

    Heard ids have no k, and every pulse that was heard counts as a beat.
    """
    table = np.full((CODEBOOK_SIZE, 3), -1)
    table[:NUM_MIXED] = np.stack(split_mixed(np.arange(NUM_MIXED)), 1)
    heard = np.arange(FIRST_HEARD, FIRST_HEARD + NUM_HEARD)
    phone, pulse = split_heard(heard)
    table[heard[:, None], [0, 2]] = np.stack([phone, pulse * BEAT], 1)
    return table


def vocal_factors() -> Ints:
    """[1280, 2]: phone and midi (0 unless a vowel) of every id; -1 where it is not used."""
    return _table(np.stack(split_vocal(np.arange(NUM_VOCAL)), 1))


def bgm_factors() -> Ints:
    """[1280, 4]: chord, struck, drum, timbre of every id; -1 where it is not used."""
    return _table(np.stack(split_bgm(np.arange(NUM_BGM)), 1))


def _table(used: Ints) -> Ints:
    return np.concatenate([used, np.full((CODEBOOK_SIZE - len(used), used.shape[1]), -1)])


def _labels(name: str, values: ArrayLike, count: int) -> Ints:
    array = np.asarray(values, np.int64)
    if array.size and (array.min() < 0 or array.max() >= count):
        wrong = array[(array < 0) | (array >= count)].flat[0]
        raise ValueError(f"{name} {wrong} is not one of 0 to {count - 1}")
    return array
