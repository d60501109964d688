"""Texts of a model that reads phones: ids, their layout, and what descriptions are taken to mean."""

import gzip

import pytest

from songgen_core.configs import FRAME_RATE
from songgen_core.text.bpe import QWEN2_FOLDER, load_tokenizers, read_vocab_size
from songgen_core.text.lyrics import STRUCTURE_TAGS, Song
from songgen_core.text.musical_key import KEYS, find_key, is_key_tag
from songgen_core.text.phone_tokens import (
    END_OF_LINE,
    FRAMES_PER_BEAT,
    FRAMES_PER_MINUTE,
    KEYWORDS,
    SUNG_PHONES,
    WORDS,
    find_keywords,
    frames_per_beat,
    line_ids,
    phone_id,
)
from songgen_core.text.request import prompt_texts
from songgen_core.text.special_tokens import IM_START, MUSICALITY_TAGS, QWEN_TOKENS
from songgen_core.text.tags import TAG_VOCABULARY, Description

TEXT = "[english]\nlove L AH V\nme M IY\nhold HH OW L D\n[pinyin]\nwo 我\nai 爱\n[phrases]\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini")
    (folder / "lexicon.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    return folder


@pytest.fixture(scope="module")
def tokenizers(folder):
    return load_tokenizers(folder, "v2")


def words_of(ids, added=()):
    names = (*WORDS, *QWEN_TOKENS, *added)
    return " ".join(names[number] for number in ids)


def lyric_words(tokenizers, text):
    return words_of(tokenizers.lyrics.encode(text), [f"[{tag}]" for tag in STRUCTURE_TAGS])


def test_the_layout_is_that_of_the_published_tokenizers(folder, tokenizers):
    published = load_tokenizers(QWEN2_FOLDER, "v2")
    vocab_size, published_size = read_vocab_size(folder), read_vocab_size(QWEN2_FOLDER)
    assert (vocab_size, len(set(WORDS))) == (len(WORDS), len(WORDS))
    assert tokenizers.pad_id == tokenizers.description.pad_id == vocab_size
    assert tokenizers.lyrics.size - vocab_size == published.lyrics.size - published_size
    assert tokenizers.description.size - vocab_size == published.description.size - published_size
    assert load_tokenizers(folder, "v1").description.size == vocab_size + len(QWEN_TOKENS)
    for text in (*(f"[{tag}]" for tag in STRUCTURE_TAGS), None, ""):
        ids = [number - vocab_size for number in tokenizers.lyrics.encode(text)]
        assert ids == [number - published_size for number in published.lyrics.encode(text)]
    for tag in MUSICALITY_TAGS:
        (_, mine), (_, theirs) = tokenizers.description.encode(tag), published.description.encode(tag)
        assert mine - vocab_size == theirs - published_size


def test_phones_carry_the_number_of_their_syllable(tokenizers):
    text = "[intro-short] ; [verse] Love me, love me. Hold me. ; [chorus] Me me me me me."
    assert lyric_words(tokenizers, text) == (
        f"{IM_START} [intro-short] [verse] L0 AH0 V0 M1 IY1 L2 AH2 V2 M3 IY3 {END_OF_LINE} "
        f"HH4 AO4 W4 L4 M5 IY5 {END_OF_LINE} [chorus] M6 IY6 M7 IY7 M0 IY0 M1 IY1 M2 IY2 {END_OF_LINE}"
    )


def test_a_line_ends_with_or_without_a_full_stop(tokenizers):
    # Chinese lyrics have no full stop behind the last line of a section.
    song = Song.parse("[verse]\n我爱\n爱我\n[chorus]\n我").format()
    assert song == "[verse] 我爱.爱我 ; [chorus] 我"
    assert lyric_words(tokenizers, song) == (
        f"{IM_START} [verse] W0 AO0 AA1 Y1 {END_OF_LINE} AA2 Y2 W3 AO3 {END_OF_LINE} "
        f"[chorus] W4 AO4 {END_OF_LINE}"
    )


@pytest.mark.parametrize("text", [None, "", ".", " . .; ", "[nonsense", "?!"])
def test_no_sound_is_no_line(tokenizers, text):
    expected = 1 if text != "[nonsense" else 1 + len(line_ids(tokenizers.lyrics.lexicon.syllables(text), 0))
    assert len(tokenizers.lyrics.encode(text)) == expected


def test_structure_of_each_position(tokenizers):
    ids = tokenizers.lyrics.encode("[intro-short] ; [chorus] Me.")
    intro, chorus = (STRUCTURE_TAGS.index(tag) + 1 for tag in ("intro-short", "chorus"))
    assert tokenizers.structure(ids) == [0, intro, chorus, chorus, chorus, chorus]


def test_ids_for_training_are_those_of_the_text(tokenizers):
    syllables = tokenizers.lyrics.lexicon.syllables("love me")
    assert tokenizers.lyrics.encode("[verse] love me.")[2:] == line_ids(syllables, 0)
    assert line_ids(syllables, 7)[:3] == [phone_id(phone, 7) for phone in ("L", "AH", "V")]
    assert line_ids(syllables, 7)[3] == phone_id("M", 8) == phone_id("M", 0)
    every = [phone_id(phone, k) for phone in SUNG_PHONES for k in range(8)]
    assert every == list(range(280)) and WORDS[280] == END_OF_LINE


def test_the_description_that_the_pipeline_writes(tokenizers):
    def read(typed, output="mixed"):
        text = prompt_texts("[verse] Me.", typed, "v2", output).description
        return words_of(tokenizers.description.encode(text), MUSICALITY_TAGS).split(" ", 1)[1]

    assert read("Female, dark, Pop, happy, piano and drums, the bpm is 120, the key is A minor.") == (
        "[Musicality-very-high] gender: female genre: pop emotion: sad instrument: piano "
        "tempo: 13 frames a beat key: A minor"
    )
    assert read(None) == "[Musicality-very-high]"
    assert read("pop", "bgm") == "[Musicality-very-high] [Pure-Music] genre: pop"
    null = prompt_texts("[verse] Me.", "pop", "v2").null_description
    assert words_of(tokenizers.description.encode(null), MUSICALITY_TAGS) == (
        f"{IM_START} [Musicality-very-low]"
    )
    assert words_of(tokenizers.description.encode(None)) == IM_START


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hip-hop", ["genre: electronic"]),
        ("folk", ["genre: pop"]),
        ("synth-pop", ["genre: electronic"]),  # neither the synthesizer nor pop
        ("folk rock", ["genre: rock"]),
        ("r&b", ["genre: ballad"]),
        ("rock, pop", ["genre: rock"]),  # the first of a kind
        ("female", ["gender: female"]),
        ("acoustic guitar", ["instrument: guitar"]),
        ("poppy rocker kazoo", []),
        ("male, strings, sad, electronic", [*("gender: male", "genre: electronic"), "emotion: sad"]),
        ("in C# major", ["key: C# major"]),
        ("db major, 75 bpm", ["tempo: 20 frames a beat", "key: C# major"]),
    ],
)
def test_keywords(text, found):
    assert find_keywords(text)[: len(found) or None] == found


def test_all_suggested_genders_and_own_keywords_are_known():
    for kind, keywords in KEYWORDS.items():
        for keyword in keywords:
            assert find_keywords(keyword) == [f"{kind}: {keyword}"]
            assert keyword in TAG_VOCABULARY["instruments" if kind == "instrument" else kind]


def test_tempo_is_the_nearest_and_half_time_counts_as_the_same():
    for frames in FRAMES_PER_BEAT:
        assert frames_per_beat(FRAMES_PER_MINUTE / frames) == frames
        assert frames_per_beat(round(FRAMES_PER_MINUTE / frames)) == frames
    assert FRAMES_PER_MINUTE == 60 * FRAME_RATE
    assert [frames_per_beat(bpm) for bpm in (120, 60, 240, 73, 155, 0, 300)] == [13, 13, 13, 20, 10, 12, 10]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("the key is a minor", "A minor"),
        ("the key is B flat major.", "A# major"),
        ("key: f#", "F# major"),
        ("key of cb minor", "B minor"),
        ("bb minor", "A# minor"),
        ("b minor", "B minor"),
        ("happy, in C sharp minor, rock", "C# minor"),
        ("e maj", "E major"),
        ("the key is a", "A major"),
        ("the key is a, and slow", "A major"),
        ("in the key of A and slow", "A major"),
        ("the key is a mystery", None),
        ("a minor key", None),
        ("the major, a minority, key change", None),
        ("piano", None),
    ],
)
def test_keys(text, key):
    assert find_key(text) == find_key(text.lower()) == key
    assert key is None or key in KEYS


def test_a_key_is_no_sentence():
    described = Description.parse("female, the key is F# minor, in d major")
    assert described.format() == "female, the key is f# minor, in d major."
    assert ["is followed by models that read phones" in line for line in described.warnings()] == [True, True]
    assert not is_key_tag("a minor mistake") and not is_key_tag("guitar in c major")


def test_a_tempo_beyond_all_bounds_is_some_tempo():
    assert len(find_keywords("the bpm is " + "9" * 400)) == 1
