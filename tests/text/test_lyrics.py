import random
import re
import time

import pytest

from songgen_core.errors import LyricsError
from songgen_core.text.lyrics import (
    INSTRUMENTAL_TAGS,
    MAX_CHARACTERS,
    STRUCTURE_TAGS,
    VOCAL_TAGS,
    Section,
    Song,
    detect_language,
    estimate_seconds,
    problems_in,
)

ENGLISH = [
    "light",
    "don't",
    "I'm",
    "river,",
    "(oh)",
    "night?",
    "rain!",
    "la-la",
    "1999",
    "café",
    "niño",
    '"go"',
]
CHINESE = ["星光", "夜里的雨", "我们走过", "那一条街", "你的声音", "再见"]
JAPANESE = ["さくら", "夜の空", "カタカナー", "君と歩く"]
GARBAGE = [
    *"[];.,\n\r\t\0 \"'()aZ9é我の🎵，。！？；：“”‘’、～（）…【】［］",
    *"\u0301\u200b\u200d\ud800\ufeff\u2028\u3000\x1f\x85",
    "[[",
    ";;;",
    "]]",
    " ; ",
    "[verse]",
    "[Chorus]\n",
    "[intro]",
    "[x2]",
    "[]",
    "👩‍🎤",
    "e\u0301\u0327",
    "\r\n",
    "...",
    "hello world",
]


def random_line(rng: random.Random, words: list[str], joint: str) -> str:
    return joint.join(rng.choice(words) for _ in range(rng.randint(1, 7)))


def random_song(rng: random.Random) -> Song:
    sections = []
    for _ in range(rng.randint(1, 9)):
        tag = rng.choice(STRUCTURE_TAGS)
        words, joint = rng.choice([(ENGLISH, " "), (CHINESE, ""), (JAPANESE, ""), (ENGLISH + CHINESE, " ")])
        lines = [random_line(rng, words, joint) for _ in range(rng.randint(1, 6))]
        sections.append(Section(tag, tuple(lines) if tag in VOCAL_TAGS else ()))
    return Song(tuple(sections))


def typed_form(song: Song, rng: random.Random) -> str:
    """The song as a person could have typed it into a text file."""
    rows = []
    for section in song.sections:
        tag = rng.choice([section.tag, section.tag.upper(), f"  {section.tag.title()} "])
        rows += [
            f"[{tag}]",
            *(rng.choice(["", "  "]) + line + rng.choice(["", ".", " "]) for line in section.lines),
        ]
        rows += [""] * rng.randint(0, 2)
    return rng.choice(["\n", "\r\n"]).join(rows)


def error_of(text: str) -> str:
    with pytest.raises(LyricsError) as caught:
        Song.parse(text)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_tags_are_in_vocabulary_order():
    assert (
        *("verse", "chorus", "bridge", "intro-short", "intro-medium", "intro-long", "outro-short"),
        *("outro-medium", "outro-long", "inst-short", "inst-medium", "inst-long", "silence"),
    ) == STRUCTURE_TAGS
    assert VOCAL_TAGS + INSTRUMENTAL_TAGS == STRUCTURE_TAGS


def test_typed_english_becomes_the_published_form():
    text = "[Intro]\n\n[ Verse ]\nLine one\nLine two.\n\n[CHORUS] Sing it. Now\n\n[Inst - Medium]\n[outro]"
    assert Song.parse(text).format() == (
        "[intro-short] ; [verse] Line one. Line two. ; [chorus] Sing it. Now. ; [inst-medium] ; [outro-short]"
    )


@pytest.mark.parametrize(
    "lines", [("夜里的雨", "我们走过"), ("夜の空", "さくら"), ("走吧 baby", "再见我的爱")]
)
def test_chinese_and_japanese_have_no_blank_and_no_final_full_stop(lines):
    assert Song((Section("verse", lines), Section("inst-short"))).format() == (
        f"[verse] {lines[0]}.{lines[1]} ; [inst-short]"
    )


def test_a_fifth_of_han_or_kana_makes_a_section_chinese():
    assert Section("verse", ("我abcd",)).is_cjk and Section("verse", ("さ ab cd",)).is_cjk
    assert not Section("verse", ("我abcde",)).is_cjk and not Section("silence").is_cjk


def test_the_form_is_chosen_for_each_section():
    assert Song.parse("[verse]\n你好\n世界\n[chorus]\nhello\nworld").format() == (
        "[verse] 你好.世界 ; [chorus] hello. world."
    )


@pytest.mark.parametrize("seed", range(200))
def test_round_trip_of_both_forms(seed):
    rng = random.Random(seed)
    song = random_song(rng)
    assert song.validate() == []
    assert Song.parse(song.format()) == song
    assert Song.parse(song.format()).format() == song.format()
    assert Song.parse(typed_form(song, rng)) == song


def test_published_one_line_form_is_a_fixed_point():
    text = "[intro-short] ; [verse] Lights go down. We drive. ; [chorus] 星光.夜里的雨 ; [outro-long]"
    assert Song.parse(text).format() == text


@pytest.mark.parametrize(
    "text", ["[verse] a ;[chorus] b;", "[verse] a [chorus] b", "[verse]\na\n;\n[chorus]\nb\n;"]
)
def test_sloppy_separators(text):
    assert Song.parse(text) == Song((Section("verse", ("a",)), Section("chorus", ("b",))))


def test_line_numbers_are_kept_and_not_compared():
    song = Song.parse("\ufeff\n[verse]\n\nfirst. second\r\nthird\r\r[chorus]\u2028x")
    assert song.sections[0].source_line == 2
    assert song.sections[0].source_lines == (4, 4, 5)
    assert (song.sections[1].source_line, song.sections[1].source_lines) == (7, (8,))
    assert song.sections[0] == Section("verse", ("first", "second", "third"))


@pytest.mark.parametrize(
    ("text", "place", "remedy"),
    [
        ("hello\n[verse]\na", "line 1", "put a tag such as [verse] above"),
        ("just words", "line 1", "put a tag such as [verse] above"),
        ("[verse]\na\n[chrous]\nb", "section 2 [chrous], line 3", "did you mean [chorus]?"),
        ("[Verse 1]\na", "section 1 [verse 1], line 1", "did you mean [verse]?"),
        ("[Guitar Solo]", "section 1 [guitar solo], line 1", "did you mean [inst-medium]?"),
        ("[outro-medum]", "section 1 [outro-medum], line 1", "did you mean [outro-medium]?"),
        ("[qqqq]", "section 1 [qqqq], line 1", "allowed: [verse] [chorus]"),
        ("[verse] a ; [inst] ; [inst]\nla la", "section 3 [inst-short], line 2", 'move "la la" below a'),
        ("[silence] hush", "section 1 [silence], line 1", 'move "hush" below'),
        ("[verse]\n\n[chorus]\na", "section 1 [verse], line 1", "write at least one line"),
        ("[verse] ...!?", "section 1 [verse], line 1", "write at least one line"),
        ("[verse]\none; two", "section 1 [verse], line 2", 'use ","'),
        ("[verse]\none ; two", "section 1 [verse], line 2", "put a tag"),
        ("[verse]\none]\n", "section 1 [verse], line 2", "remove it"),
        ("[verse\none", "line 1", "write tags like [verse]"),
        ("[verse]\none\x00", "U+0000", "delete it"),
        ("[verse]\none\ntwo\x0b", "section 1 [verse], line 3", "delete it"),
        ("[verse]\na\u200bb", "U+200B (zero width space)", "delete it"),
        ("[verse]\na\ud800b", "U+D800", "delete it"),
        ("【verse】\na", "line 1", 'use "["'),
    ],
)  # fmt: skip
def test_problems_name_place_and_remedy(text, place, remedy):
    message = error_of(text)
    assert place in message
    assert remedy in message


@pytest.mark.parametrize(
    ("char", "name", "half"),
    [
        ("，", "fullwidth comma", '","'),
        ("。", "ideographic full stop", '"."'),
        ("！", "fullwidth exclamation mark", '"!"'),
        ("？", "fullwidth question mark", '"?"'),
        ("；", "fullwidth semicolon", '","'),
        ("：", "fullwidth colon", '":"'),
        ("“", "left double quotation mark", '" instead'),
        ("’", "right single quotation mark", '"\'"'),
        ("、", "ideographic comma", '","'),
        ("～", "fullwidth tilde", '"~"'),
        ("（", "fullwidth left parenthesis", '"("'),
        ("…", "horizontal ellipsis", '"."'),
        ("—", "em dash", '"-"'),
        ("・", "katakana middle dot", "a blank"),
        ("Ａ", "fullwidth latin capital letter a", '"A"'),
        ("〽", "", ""),
    ],
)
def test_full_width_punctuation_is_named_with_its_replacement(char, name, half):
    message = error_of(f"[intro]\n[chorus]\nla la\n我{char}们")
    assert "section 2 [chorus], line 4" in message
    assert f'"{char}"' in message and name in message and f"use {half}" in message


@pytest.mark.parametrize("text", ["", "   \n\t", ";;;", " ; "])
def test_empty_lyrics_say_what_to_write(text):
    assert "write a tag such as [verse]" in error_of(text)


def test_too_long_text_is_refused_with_its_count():
    message = error_of("[verse] " + "a" * MAX_CHARACTERS)
    assert str(MAX_CHARACTERS + 8) in message and "shorten" in message
    Song.parse("[verse] " + "a" * (MAX_CHARACTERS - 8))


def test_all_problems_are_listed_in_order_of_the_text():
    found = problems_in("[verse]\n你好，世界\n[chorus]\n[solo]\n[bridge]\na;b")
    assert [(p.section, p.tag, p.line) for p in found] == [
        (1, "verse", 2),
        (2, "chorus", 3),
        (3, "solo", 4),
        (4, "bridge", 6),
    ]
    assert "(and 3 more problems)" in error_of("[verse]\n你好，世界\n[chorus]\n[solo]\n[bridge]\na;b")
    assert problems_in("[verse]\na") == []


@pytest.mark.parametrize("text", ["one\ntwo\nthree", "[verse]\na\n;\nb\nc\nd"])
def test_one_mistake_is_reported_once(text):
    assert len(problems_in(text)) == 1


@pytest.mark.parametrize(
    "section",
    [
        Section("intro"),
        Section("inst-short", ("a",)),
        Section("verse"),
        Section("verse", ("a.b",)),
        Section("verse", ("a ; b",)),
        Section("verse", ("[chorus]",)),
        Section("verse", ("a", "")),
        Section("verse", (" a",)),
        Section("verse", ("a  b",)),
        Section("verse", ("a\nb",)),
        Section("verse", ("a\u3000b",)),
    ],
)
def test_songs_that_would_read_back_differently_are_not_formatted(section):
    song = Song((Section("intro-short"), section))
    assert len(song.validate()) >= 1
    with pytest.raises(LyricsError, match=rf"section 2 \[{section.tag}\]"):
        song.format()


def test_a_song_without_sections_is_refused():
    with pytest.raises(LyricsError):
        Song(()).check()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[inst-short]", "nothing will be sung"),
        ("[verse] a ; [silence]", "section 2 [silence], line 1"),
        ("[verse] a\n[outro-long]", "section 2 [outro-long], line 2"),
        ("[verse]\n" + "la la\n" * 68, "272 seconds"),
        ("[verse]\nwait... what", '".."'),
        ("[verse]\na 3.5 mile road", '"3.5" ends a lyric line'),
        ("[verse]\nDear Mr. Smith", '"Mr." ends a lyric line'),
        ("[verse]\nparty 🎉", '"🎉" cannot be sung'),
    ],
)
def test_unusual_songs_are_sung_with_a_warning(text, expected):
    warnings = Song.parse(text).warnings()
    assert any(expected in warning for warning in warnings), warnings


def test_an_ordinary_song_has_no_warnings():
    assert (
        Song.parse("[intro]\n[verse]\nOne, two.\nThree?\n[chorus]\n你好.世界\n[outro-medium]").warnings()
        == []
    )


def test_estimate_seconds():
    song = Song.parse("[intro] ; [verse] a. b. ; [chorus] 你好.世界 ; [inst-medium] ; [outro-long]")
    assert estimate_seconds(song) == pytest.approx(7.5 + 2 * 4 + 2 * 3.5 + 15 + 25)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("", "en"),
        ("hello", "en"),
        ("我abcd", "zh"),
        ("我abcde", "en"),
        ("さくら", "en"),
        ("[verse] 我们走", "zh"),
    ],
)
def test_detect_language_counts_han_among_all_characters(text, language):
    assert detect_language(text) == language


@pytest.mark.parametrize("seed", range(500))
def test_garbage_is_read_completely_or_refused(seed):
    rng = random.Random(seed)
    # Few kinds of garbage at a time, else nearly every text is refused and the reading is not tested.
    kinds = rng.sample(GARBAGE, rng.randint(1, 4))
    text = rng.choice(["", "[verse] a"]) + "".join(rng.choice(kinds) for _ in range(rng.randint(0, 40)))
    try:
        song = Song.parse(text)
    except LyricsError as error:
        assert re.match(r"(section \d+ \[.*\], )?line \d+: |lyrics: ", str(error))
        assert len(str(error).splitlines()) == 1 and str(error).encode()
        return
    assert Song.parse(song.format()) == song
    # Whatever is neither blank, separator nor tag must still be there, in the same order.
    kept = re.sub(r"[\s.;\ufeff\[\]]", "", re.sub(r"\[[^\]]*\]", "", text))
    assert "".join(line for section in song.sections for line in section.lines).replace(" ", "") == kept


def test_the_largest_text_is_read_quickly():
    start = time.perf_counter()
    problems_in("[verse]\n" + "我，\n" * 6000)
    problems_in("[verse]\n" + "a\n" * 9000)
    problems_in("[x]" * 6000)
    assert time.perf_counter() - start < 10
