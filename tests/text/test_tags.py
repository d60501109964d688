import itertools
import random

import pytest

from songgen_core.errors import UserError
from songgen_core.text import tags
from songgen_core.text.tags import MAX_CHARACTERS, TAG_VOCABULARY, Description, keywords_in

EXTRAS = [
    "kazoo",
    "80s",
    "r.n.b",
    "sun-drenched",
    "piano and kazoo",
    "a song about my dog",
    "冰冷",
    "[verse]",
    "🎵",
]
GARBAGE = [
    *"[];.,\n\r\t\0 '()&aZ9é我女，。、；：\u0301\u200b\u200d\ud800\u2028\u3000\x1f\x85İΣ-",
    "[[",
    ";;;",
    "👩‍🎤",
    "[verse]",
    "bpm ",
    "90",
    "bpm 90",
    " and ",
    "piano",
    "Female, ",
    "钢琴",
    "the bpm is ",
    "٣",
]


def random_description(rng: random.Random) -> Description:
    def pick(words, most=3):
        return tuple(rng.sample(words, rng.randint(0, min(most, len(words)))))

    words = {name: pick(vocabulary) for name, vocabulary in TAG_VOCABULARY.items()}
    return Description(**words, bpm=rng.choice([None, 20, 125, 300]), extra=pick(EXTRAS))


def warned(text: str) -> str:
    return "\n".join(Description.parse(text).warnings())


def test_vocabulary_is_lower_case_english_and_each_word_has_one_dimension():
    words = list(itertools.chain(*TAG_VOCABULARY.values()))
    assert len(words) == len(set(words))
    assert all(word.isascii() and word == word.lower().strip() and "," not in word for word in words)
    sizes = {name: len(vocabulary) for name, vocabulary in TAG_VOCABULARY.items()}
    assert sizes["gender"] == 2 and min(sizes[name] for name in list(sizes)[1:]) >= 25


def test_every_alias_leads_to_a_known_tag():
    known = set(itertools.chain(*TAG_VOCABULARY.values()))
    assert len(tags._aliases()) >= 60
    assert {tag for tag in tags._aliases().values() if tag not in known} == set()
    assert known.isdisjoint(tags._aliases())


def test_published_form():
    text = "female, dark, pop, sad, piano and drums, the bpm is 125."
    description = Description.parse(text)
    assert description == Description(("female",), ("dark",), ("pop",), ("sad",), ("piano", "drums"), 125)
    assert description.format() == text
    assert description.warnings() == []


def test_typed_in_any_order_case_and_spacing():
    text = "BPM: 90,  Piano,ROCK and Roll , sad\nMale; drum and bass, and violin. deep"
    assert Description.parse(text).format() == (
        "male, deep, rock and roll, drum and bass, sad, piano and violin, the bpm is 90."
    )


@pytest.mark.parametrize("seed", range(300))
def test_round_trip(seed):
    description = random_description(random.Random(seed))
    assert Description.parse(description.format()) == description


def test_round_trip_of_every_pair_of_instruments():
    for pair in itertools.permutations(TAG_VOCABULARY["instruments"], 2):
        assert Description.parse(Description(instruments=pair).format()).instruments == pair


@pytest.mark.parametrize("text", ["", " ", ".", ",,;"])
def test_nothing_typed(text):
    assert Description.parse(text) == Description()
    assert Description().format() == ""


@pytest.mark.parametrize(
    "text", ["the bpm is 96", "bpm 96", "BPM=96", "96 bpm", "96bpm", "tempo: 96 BPM", "at 96 bpm"]
)
def test_ways_to_write_bpm(text):
    assert Description.parse(f"pop, {text}.") == Description(genre=("pop",), bpm=96)


def test_labels_in_front_of_keywords_do_not_count():
    typed = (
        "Genre: Pop\nMood: sad, Instruments: piano and drums; Vocals : female, 曲风：爵士, Tempo: 90, Style:"
    )
    same = Description.parse("pop, sad, piano and drums, female, jazz, the bpm is 90")
    assert Description.parse(typed) == same
    assert Description.parse("in the style: of").extra == ("in the style: of",)


@pytest.mark.parametrize("value", ["0", "19", "301", "-90", "92.5", "9" * 5000])
def test_impossible_bpm_names_the_value(value):
    text = f"bpm {value}"[:MAX_CHARACTERS]
    with pytest.raises(UserError) as caught:
        Description.parse(text)
    assert value[:50] in str(caught.value) and "from 20 to 300" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_bpm_is_checked_in_code_too():
    with pytest.raises(UserError, match="bpm 301"):
        Description(bpm=301)
    assert Description(bpm=20).bpm == 20 and Description(bpm=300).bpm == 300


def test_two_different_bpm_are_refused():
    with pytest.raises(UserError, match="bpm 90 and bpm 100"):
        Description.parse("bpm 90, pop, 100 bpm")
    assert Description.parse("bpm 90, 90 bpm").bpm == 90


def test_unknown_words_are_kept_in_order_and_misspellings_noticed():
    description = Description.parse("kazoo, pop, femal, zither")
    assert description.extra == ("kazoo", "femal", "zither")
    assert description.format() == "pop, kazoo, femal, zither."
    assert 'did you mean "female"?' in "\n".join(description.warnings())
    assert len(description.warnings()) == 3


def test_a_sentence_is_kept_and_its_keywords_shown():
    text = "A sad song about rain with a female singer at 90 bpm"
    assert keywords_in(text) == Description(gender=("female",), emotion=("sad",), bpm=90)
    assert Description.parse(text).extra == (text.lower(),)
    assert "reads like a sentence" in warned(text)
    assert '"female, sad, the bpm is 90."' in warned(text)


def test_keywords_in_takes_the_longest_and_whole_words_only():
    found = keywords_in("Electric guitar over popcorn beats, a brassy bass line, then alternative rock.")
    assert found == Description(genre=("alternative rock",), instruments=("electric guitar", "bass"))
    assert keywords_in("一首悲伤的女声钢琴曲") == Description(
        ("female",), emotion=("sad",), instruments=("piano",)
    )
    assert keywords_in("some folk rock tune").genre == ("folk rock",)
    assert keywords_in("nothing to see") == Description()


def test_keywords_in_refuses_an_impossible_bpm_and_warnings_only_tell():
    with pytest.raises(UserError, match="bpm 900"):
        keywords_in("a fast song at 900 bpm")
    assert "bpm 900" in warned("a very fast song running at 900 bpm")


@pytest.mark.parametrize(
    "text", ["warm pop", "rock and roll", "heavy metal, acoustic guitar", "late night drive"]
)
def test_keywords_are_not_taken_for_sentences(text):
    assert "sentence" not in warned(text)


@pytest.mark.parametrize("tag", ["[Musicality-very-high]", "[verse]", "[Pure-Music]"])
def test_model_tags_are_kept_as_text_with_a_warning(tag):
    description = Description.parse(f"{tag} female, pop")
    assert description == Description(("female",), genre=("pop",), extra=(tag.lower(),))
    assert f'"{tag.lower()}" is ignored as a tag' in "\n".join(description.warnings())


def test_full_width_commas_and_chinese_words_are_converted_and_told():
    text = "女声，钢琴、悲伤。流行"
    assert Description.parse(text).format() == "female, pop, sad, piano."
    for expected in (
        '"，" is full-width',
        '"、" is full-width',
        '"女声" is read as "female"',
        '"流行" is read as "pop"',
    ):
        assert expected in warned(text)


@pytest.mark.parametrize("text", ["p[q;[verse] ][r, pop]s", "pop[", "[a. b]c, [", "][, [x][y]"])
def test_brackets_without_partner_are_kept(text):
    description = Description.parse(text)
    assert Description.parse(description.format()) == description
    assert sorted(c for c in description.format() if c in "[]") == sorted(c for c in text if c in "[]")


def test_a_repeated_bracket_tag_does_not_join_its_neighbours():
    description = Description.parse("[x], p[a[x]b]")
    assert description.extra == ("[x]", "p[a", "b]")
    assert Description.parse(description.format()) == description


def test_unknown_foreign_words_are_kept():
    assert Description.parse("冰冷").extra == ("冰冷",)
    assert "not English" in warned("冰冷")


def test_control_characters_and_long_texts_are_refused():
    with pytest.raises(UserError, match=r"U\+0000"):
        Description.parse("pop\0")
    with pytest.raises(UserError, match=r"2001 characters"):
        Description.parse("a" * 2001)


@pytest.mark.parametrize("seed", range(500))
def test_garbage_is_kept_or_refused(seed):
    rng = random.Random(seed)
    # Few kinds of garbage at a time, else nearly every text is refused and the reading is not tested.
    kinds = rng.sample(GARBAGE, rng.randint(1, 12))
    text = "".join(rng.choice(kinds) for _ in range(rng.randint(0, 40)))
    try:
        description = Description.parse(text)
        keywords_in(text)
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and str(error).encode()
        return
    assert Description.parse(description.format()) == description
    assert all(len(warning.splitlines()) == 1 for warning in description.warnings())
