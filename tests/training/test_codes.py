"""The ids of the three streams and what they mean."""

import numpy as np
import pytest

from songgen_core.text.phonetics import CONSONANTS, PHONES, VOWELS
from training import codes


def test_phones_lie_as_the_codes_need_them() -> None:
    assert ("SIL", *VOWELS, *CONSONANTS) == PHONES and len(PHONES) == 36


@pytest.mark.parametrize(
    ("count", "split", "join"),
    [
        (1152, codes.split_mixed, codes.mixed_code),
        (432, codes.split_vocal, codes.vocal_code),
        (1000, codes.split_bgm, codes.bgm_code),
    ],
)
def test_every_id_says_what_made_it(count, split, join) -> None:
    ids = np.arange(count)
    assert np.array_equal(join(*split(ids)), ids)
    with pytest.raises(ValueError, match=str(count)):
        split(count)


def test_ids_are_those_of_the_design() -> None:
    hh, iy = PHONES.index("HH"), PHONES.index("IY")
    assert codes.mixed_code(hh, 3, codes.BEAT) == (hh * 8 + 3) * 4 + 2
    assert codes.vocal_code(0, 0) == 0
    assert codes.vocal_code(PHONES.index("B"), 0) == 1 and codes.vocal_code(PHONES.index("ZH"), 60) == 24
    assert codes.vocal_code(iy, 60) == 25 + 7 * 37 + 17
    a_minor = codes.CHORDS.index("A minor")
    assert a_minor == 22 and codes.CHORDS.index("C major") == 1
    assert codes.bgm_code(a_minor, 1, 4, 3) == ((22 * 2 + 1) * 5 + 4) * 4 + 3
    assert codes.bgm_code(0, 0, 0, 0) == 0


def test_heard_ids_lie_behind_those_of_songs() -> None:
    phone, pulse = np.divmod(np.arange(36 * 4), 4)
    heard = codes.heard_code(phone, pulse)
    assert set(heard.tolist()) == set(range(1152, 1152 + 72)) and heard.max() < codes.CODEBOOK_SIZE
    again, is_pulse = codes.split_heard(heard)
    assert np.array_equal(again, phone) and np.array_equal(is_pulse, pulse > 0)


@pytest.mark.parametrize(
    ("function", "labels", "message"),
    [
        (codes.mixed_code, (36, 0, 0), "phone 36 is not one of 0 to 35"),
        (codes.mixed_code, (0, -1, 0), "k -1"),
        (codes.vocal_code, (1, 80), "pitch 37"),
        (codes.vocal_code, (1, 0), "pitch -43"),
        (codes.bgm_code, (25, 0, 0, 0), "chord 25"),
        (codes.bgm_code, (0, 0, 5, 0), "drum 5"),
    ],
)
def test_a_label_out_of_range_is_named(function, labels, message) -> None:
    with pytest.raises(ValueError, match=message):
        function(*labels)


def test_factor_tables_cover_the_codebook() -> None:
    mixed, vocal, bgm = codes.mixed_factors(), codes.vocal_factors(), codes.bgm_factors()
    assert mixed.shape == (1280, 3) and vocal.shape == (1280, 2) and bgm.shape == (1280, 4)
    assert np.array_equal(mixed[codes.mixed_code(7, 5, 3)], [7, 5, 3])
    assert np.array_equal(mixed[codes.heard_code(7, codes.BAR)], [7, -1, codes.BEAT])
    assert np.array_equal(mixed[codes.heard_code(7, 0)], [7, -1, 0])
    assert np.array_equal(vocal[codes.vocal_code(11, 79)], [11, 79])
    assert np.array_equal(bgm[codes.bgm_code(24, 0, 2, 3)], [24, 0, 2, 3])
    for table, used in ((mixed, 1152 + 72), (vocal, 432), (bgm, 1000)):
        assert (table[used:] == -1).all() and (table[:used, 0] >= 0).all()
