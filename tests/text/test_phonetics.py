import gzip
import logging
import random

import pytest

from songgen_core.errors import CheckpointError
from songgen_core.text.east_asian import pinyin_syllable
from songgen_core.text.letters import sound_out
from songgen_core.text.numerals import chinese_number, english_number, english_ordinal
from songgen_core.text.phonetics import CONSONANTS, PHONES, VOWELS, Lexicon, Syllable
from songgen_core.text.syllables import syllabify

ENGLISH = {
    "hello": "HH AH L OW",
    "so": "S OW",
    "sleep": "S L IY P",
    "sing": "S IH NG",
    "love": "L AH V",
    "rose": "R OW Z",
    "cat": "K AE T",
    "run": "R AH N",
    "jump": "JH AH M P",
    "don't": "D OW N T",
    "'til": "T IH L",
    "you": "Y UW",
    "twenty": "T W EH N T IY",
    "four": "F AO R",
    "second": "S EH K AH N D",
    "nineteen": "N AY N T IY N",
    "ninety": "N AY N T IY",
    "nine": "N AY N",
    "and": "AH N D",
}
PINYIN = {"我": "wo", "爱": "ai", "你": "ni", "音": "yin", "乐": "le", "快": "kuai", "女": "nü", "天": "tian"}
LEXICON = Lexicon(ENGLISH, PINYIN, {"音乐": "yin yue", "快乐天": "kuai le tian"})


def read(line, lexicon=LEXICON):
    return " ".join("-".join(syllable.phones) for syllable in lexicon.syllables(line))


def test_phone_numbers_are_fixed():
    # Codes and tokens of trained models count on these.
    assert (len(PHONES), len(VOWELS), len(CONSONANTS)) == (36, 11, 24)
    assert [PHONES.index(phone) for phone in ("SIL", "AA", "YU", "B", "ZH")] == [0, 1, 11, 12, 35]


@pytest.mark.parametrize(
    ("phones", "sung"),
    [
        ("HH AH L OW", "HH-AH L-AO-W"),
        ("EH K S T R AH", "EH-K S-T-R-AH"),  # the longest cluster that may begin a word
        ("W IH N D OW", "W-IH-N D-AO-W"),
        ("S IH NG IH NG", "S-IH-NG IH-NG"),  # NG begins nothing
        ("G OW IH NG", "G-AO-W IH-NG"),  # a diphthong keeps its glide
        ("HH AE N D Z", "HH-AE-N-Z"),
        ("M AY N D", "M-AA-Y-N"),
        ("S T R EH NG K TH S", "S-T-R-EH-NG-S"),
        ("F S T R AA", "F-S-R-AA"),
        ("HH M", "HH-AH-M"),
        ("SH", "AH-SH"),
    ],
)
def test_syllables_of_english_phones(phones, sung):
    assert " ".join("-".join(s.phones) for s in syllabify(phones.split())) == sung


def test_what_is_no_syllable_is_refused():
    for wrong in ((("S", "T", "R", "W"), "AA", ()), ((), "B", ()), ((), "AY", ()), ((), "AA", ("AA",))):
        with pytest.raises(ValueError, match="no syllable"):
            Syllable(*wrong)


@pytest.mark.parametrize(
    ("line", "sung"),
    [
        ("Hello, HELLO!", "HH-AH L-AO-W HH-AH L-AO-W"),
        ("don't don’t 'til", "D-AO-W-N D-AO-W-N T-IH-L"),
        ("sooo sleeeep", "S-AO-W S-L-IY-P"),
        ("singin' loving running", "S-IH-NG IH-N L-AH V-IH-NG R-AH N-IH-NG"),
        ("cat's roses loves", "K-AE-T-S R-AO-W Z-IH-Z L-AH-V-Z"),
        ("jumped loved", "JH-AH-M-T L-AH-V-D"),
        ("you'll", "Y-UW AH-L"),
        ("24 2nd", "T-W-EH-N T-IY F-AO-R S-EH K-AH-N-D"),
        ("you & you", "Y-UW AH-N-D Y-UW"),
        ("TVQ", "T-IY V-IY K-Y-UW"),
        ("我爱你 you", "W-AO AA-Y N-IY Y-UW"),
        ("音乐 乐 快乐天", "IY-N Y-EH L-AH K-W-AA-Y L-AH T-Y-EH-N"),
        ("天々 24", "T-Y-EH-N T-Y-EH-N ER SH-IH S-IH"),
        ("しゃきょん ラーメン", "SH-AA K-Y-AO-N R-AA AA M-EH-N"),
        ("つづくっち ｶﾞ", "T-S-UW Z-UW K-UW CH-IY G-AA"),
        ("corazón baila", "K-AO R-AA S-AO-N B-AA-Y L-AA"),
        ("... -- ♪ ' 🎵", ""),
    ],
)
def test_lines(line, sung):
    assert read(line) == sung


def test_drawn_out_words_are_tried_in_the_likely_order():
    both = Lexicon({"god": "G AA D", "good": "G UH D", "so": "S OW", "soo": "S UW"})
    assert read("goooood sooo", both) == "G-UH-D S-AO-W"


def test_letters_that_cannot_be_read_are_named(caplog):
    with caplog.at_level(logging.WARNING, "songgen"):
        assert read("привет you 鑫") == "Y-UW"
    assert caplog.messages == ['"привет 鑫" cannot be read and is not sung']


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("night", "N AY T"),
        ("nation", "N EY SH AH N"),
        ("making", "M EY K IH NG"),
        ("picture", "P IH K CH ER"),
        ("table", "T AE B AH L"),
        ("quickly", "K W IH K L IY"),
        ("knights", "N AY T S"),
        ("phone", "F OW N"),
        ("dreamed", "D R IY M D"),
        ("wanted", "W AA N T IH D"),
        ("boxes", "B AA K S IH Z"),
        ("my", "M AY"),
        ("fly", "F L AY"),
        ("tie", "T AY"),
        ("city", "S IH T IY"),
    ],
)
def test_letter_rules(word, phones):
    assert " ".join(sound_out(word)) == phones


def test_no_word_is_lost():
    rng = random.Random(5)
    empty = Lexicon({})
    for _ in range(3000):
        word = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz'", k=rng.randint(1, 9)))
        for typed in (word, word.upper(), word + "é"):
            sung = empty.syllables(typed)
            assert sung or not typed.strip("'"), typed
            assert all(phone in PHONES[1:] for syllable in sung for phone in syllable.phones)


@pytest.mark.parametrize(
    ("pinyin", "sung"),
    [
        ("zhuang", "JH-W-AA-NG"),
        ("shi", "SH-IH"),
        ("si", "S-IH"),
        ("xi", "SH-IY"),
        ("ju", "JH-YU"),
        ("quan", "CH-Y-EH-N"),
        ("lü", "L-YU"),
        ("lüe", "L-YU"),
        ("yue", "Y-EH"),
        ("you", "Y-AO-W"),
        ("wen", "W-AH-N"),
        ("er", "ER"),
        ("ci", "T-S-IH"),
    ],
)
def test_pinyin(pinyin, sung):
    syllable = pinyin_syllable(pinyin)
    assert syllable is not None
    assert "-".join(syllable.phones) == sung


def test_what_is_no_pinyin():
    assert [pinyin_syllable(text) for text in ("", "hello", "zh", "ng", "v")] == [None] * 5


def test_numbers():
    assert english_number("0") == ["zero"]
    assert " ".join(english_number("1999")) == "nineteen ninety nine"
    assert " ".join(english_number("1905")) == "nineteen oh five"
    assert " ".join(english_number("2024")) == "two thousand twenty four"
    assert " ".join(english_number("1200000")) == "one million two hundred thousand"
    assert english_number("007") == ["zero", "zero", "seven"]
    assert [english_ordinal(n)[-1] for n in ("1", "20", "23", "12", "6")] == [
        *("first", "twentieth", "third", "twelfth", "sixth")
    ]
    read_as = {"15": "shi wu", "24": "er shi si", "105": "yi bai ling wu", "1000": "yi qian", "0": "ling"}
    assert {n: " ".join(chinese_number(n)) for n in read_as} == read_as
    assert " ".join(chinese_number("1005")) == "yi qian ling wu"


def test_a_file_comes_back_as_it_is(tmp_path):
    path = tmp_path / "lexicon.txt.gz"
    text = "# notice\n[english]\nlove L AH V\n[pinyin]\nwo 我沃\nai 爱\n[phrases]\n音乐 yin yue\n"
    path.write_bytes(gzip.compress(text.encode()))
    lexicon = Lexicon.read(path)
    assert lexicon.english == {"love": "L AH V"}
    assert lexicon.pinyin == {"我": "wo", "沃": "wo", "爱": "ai"}
    assert lexicon.phrases == {"音乐": "yin yue"}
    whole = path.read_bytes()
    for damaged in (
        b"",
        b"hello",
        whole[:-9],
        whole[:20] + b"xx" + whole[22:],
        gzip.compress(b"[english]\n"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="no lexicon"):
            Lexicon.read(path)


@pytest.mark.parametrize("text", ["にゃゃゃ", "ツュュ", "きゃゃゃゃ", "ヴュュュ"])
def test_small_kana_in_a_row_draw_the_vowel_out(text):
    (syllable,) = Lexicon({}).syllables(text)
    assert len(syllable.onset) <= 3


def test_signs_between_letters_and_letters_behind_others_are_read_as_they_stand():
    assert read("zorlunde × 2")[: len(read("zorlunde"))] == read("zorlunde")
    assert read("яabc") == read("abc") and read("한글abc") == read("abc")
    assert read("þorn") == "T-AO-R-N"


def test_long_figures_are_read_one_by_one():
    assert len(english_number("1" * 5000)) == len(chinese_number("1" * 5000)) == 5000


def test_a_lexicon_with_other_phones_is_refused(tmp_path):
    path = tmp_path / "lexicon.txt.gz"
    path.write_bytes(gzip.compress(b"[english]\nhello HH AH0 L OW1\n[pinyin]\n[phrases]\n"))
    with pytest.raises(CheckpointError, match="unknown phones: AH0 OW1"):
        Lexicon.read(path)
