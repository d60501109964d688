"""Lyrics as people paste them become what the model sings, and nothing is lost on the way."""

import random
import re
import time

import pytest

from songgen_core.text.doctor import MendedLyrics, mend_lyrics
from songgen_core.text.lyrics import MAX_CHARACTERS, Song, problems_in

SUNO = """\
My Great Song

[Intro: soft piano]

[Verse 1: Anna]
Walking down the empty street…
(ooh, ooh) I feel the beat
“Don’t go,” you said

[Pre-Chorus]
And I rise *whispers*

[Chorus x2]
We are the fire (we are the fire)
Burning higher x2

[Guitar Solo]

[Verse 2]
[Male Vocal]
Second verse, here we go — again

[Chorus]

[Outro]
Fade away
[Fade Out]
[End]
"""
CHATGPT = """\
Sure! Here's a song about rain:

**Verse 1**
1. Rain is falling; down
2. On my window

## Chorus
- Oh the rain
- Oh the *cold* rain

Bridge:
Let it fall

CHORUS

Would you like me to adjust the lyrics?
"""
PLAIN = """\
One two three
four five six

Sing it loud tonight
sing with me

Seven eight nine
ten eleven

Sing it loud tonight
sing with me

Now the quiet part

Sing it loud tonight
sing with me!
"""
LRC = """\
[ti:Song]
[ar:Me]
[offset:0]
[00:12.34]First line
[00:16.00]Second <00:17.00>line
[00:20.10][01:25.00]Chorus comes
[00:35.00]Back again
[00:39.00]
[01:05.50]Once more
"""
SRT = """\
1
00:00:08,000 --> 00:00:10,000
♪ Hello world ♪

2
00:00:10,500 --> 00:00:12,000
second <i>line</i>

3
00:00:40,000 --> 00:00:42,000
[Music]

4
00:00:50,000 --> 00:00:52,000
- after all
"""
VTT = "WEBVTT\n\n00:01.000 --> 00:02.000\nHi there\n\n00:20.000 --> 00:22.000\nOnce &amp; again\n"
CHORDS = """\
{title: River}
Words: Bob

[Verse]
C     G     Am   F/A
I walk [C]along the ri[Gmaj7]ver (Am7)
Dm7  G7

{soc}
| C | G |
La la my love
{eoc}
"""
SITE = """\
12 ContributorsMy Song Lyrics
[Verse 1: Kendrick & SZA]
Hello &amp; goodbye<br>again
You might also like[Hook]
See it at https://example.com/song
What?!?! No... way
Lyrics by Bob Smith
All rights reserved. © 2024
Good night12Embed
"""
CHINESE = """\
歌名：夜雨
作词：张三

【前奏】

主歌1：
夜里的雨，下个不停。
【女声】我们走过…那条街

副歌
星光为我守候！
（啦啦啦）

间奏

第二段
男：你好吗
重复副歌

尾奏
"""
JAPANESE = (
    "作詞：花子\n\nイントロ\n\nAメロ\n夜の空、さくら\n「君」と歩く\n\n"
    "サビ\n光れ・星よ\n\n間奏\n\nサビ\n\nアウトロ"
)
KOREAN = (
    "작사: 김\n\n1절\n너를 사랑해\n비가 내린다\n\n후렴\n노래해 (예예)\n\n간주\n\n2절\n다시 만나\n\n후렴 x2"
)
SPANISH = (
    "Verso 1\nCamino solo por la ciudad\n\nPre-Coro\nYa viene\n\nCoro\nCanta conmigo (oh oh)\n\n"
    "Puente:\n¿Dónde estás?\n\n(Repetir coro)\n"
)
GERMAN_FRENCH = (
    "Strophe 1\nIch gehe heim\n\nRefrain\nWir sind frei\n\nCouplet 2\nJe marche\n\nPont\nSeul\n\nREFRAIN"
)
CONTROL = "\ufeff[Verse]\r\nTabs\there\u200b now\r\nＦｕｌｌ ｗｉｄｔｈ\x00\r\n~ ♪ party 🎉👩\u200d🎤\r\n"

# Sample -> the song in the form of the model.
SAMPLES = {
    "suno": (
        SUNO,
        "[intro-short] ; [verse] Walking down the empty street. ooh, ooh I feel the beat. "
        '"Don\'t go," you said. ; '
        "[verse] And I rise. ; [chorus] We are the fire, we are the fire. Burning higher. Burning higher. ; "
        "[chorus] We are the fire, we are the fire. Burning higher. Burning higher. ; [inst-medium] ; "
        "[verse] Second verse, here we go - again. ; "
        "[chorus] We are the fire, we are the fire. Burning higher. Burning higher. ; "
        "[verse] Fade away. ; [outro-short]",
    ),
    "chatgpt": (
        CHATGPT,
        "[verse] Rain is falling, down. On my window. ; [chorus] Oh the rain. Oh the cold rain. ; "
        "[bridge] Let it fall. ; [chorus] Oh the rain. Oh the cold rain.",
    ),
    "plain": (
        PLAIN,
        "[verse] One two three. four five six. ; [chorus] Sing it loud tonight. sing with me. ; "
        "[verse] Seven eight nine. ten eleven. ; [chorus] Sing it loud tonight. sing with me. ; "
        "[bridge] Now the quiet part. ; [chorus] Sing it loud tonight. sing with me!.",
    ),
    "lrc": (
        LRC,
        "[intro-short] ; [verse] First line. Second line. Chorus comes. ; [inst-short] ; "
        "[verse] Back again. ; "
        "[inst-medium] ; [verse] Once more. ; [inst-short] ; [verse] Chorus comes.",
    ),
    "srt": (SRT, "[intro-short] ; [verse] Hello world. second line. ; [inst-medium] ; [verse] after all."),
    "vtt": (VTT, "[verse] Hi there. ; [inst-short] ; [verse] Once & again."),
    "chords": (CHORDS, "[verse] I walk along the river. ; [chorus] La la my love."),
    "site": (
        SITE,
        "[verse] Hello & goodbye again. ; [chorus] What? No, way. Good night.",
    ),
    "chinese": (
        CHINESE,
        "[intro-short] ; [verse] 夜里的雨,下个不停.我们走过, 那条街 ; [chorus] 星光为我守候!.啦啦啦 ; "
        "[inst-medium] ; [verse] 你好吗 ; [chorus] 星光为我守候!.啦啦啦 ; [outro-short]",
    ),
    "japanese": (
        JAPANESE,
        '[intro-short] ; [verse] 夜の空,さくら."君"と歩く ; [chorus] 光れ 星よ ; [inst-medium] ; '
        "[chorus] 光れ 星よ ; [outro-short]",
    ),
    "korean": (
        KOREAN,
        "[verse] 너를 사랑해. 비가 내린다. ; [chorus] 노래해, 예예. ; [inst-medium] ; [verse] 다시 만나. ; "
        "[chorus] 노래해, 예예. ; [chorus] 노래해, 예예.",
    ),
    "spanish": (
        SPANISH,
        "[verse] Camino solo por la ciudad. ; [verse] Ya viene. ; [chorus] Canta conmigo, oh oh. ; "
        "[bridge] ¿Dónde estás?. ; [chorus] Canta conmigo, oh oh.",
    ),
    "german and french": (
        GERMAN_FRENCH,
        "[verse] Ich gehe heim. ; [chorus] Wir sind frei. ; [verse] Je marche. ; [bridge] Seul. ; "
        "[chorus] Wir sind frei.",
    ),
    "control characters": (CONTROL, "[verse] Tabs here now. Full width. ~ party."),
    "one line": (
        "[Intro] ; [Verse 1] hello world. foo，bar. ; [chorus] sing it ; twice [Instrumental Break]",
        "[intro-short] ; [verse] hello world. foo, bar. ; [chorus] sing it, twice. ; [inst-medium]",
    ),
}
WORDS = ["light", "river", "falling", "we", "stand", "niño", "星光", "夜里的雨", "さくら", "사랑"]
GARBAGE = [
    *"[](){}*_#;.,:!?\n\r\t\0 '\"-~x29aé我の🎵，。！？；：“”（）…【】♪·",
    *"\u0301\u200b\u200d\ud800\ufeff\u2028\u3000\x1f\x85",
    *("[Verse 1]\n", "Chorus\n", "(x2)", " x3", "\n\n", "[00:12.00]", "[00:59.5]", "<b>", "&amp;", "(ooh)"),
    *("*soft piano*", "[Male Vocal]", "# ", "- ", "1. ", "C G Am\n", "[Am]", "https://a.b/c", "Bridge:"),
    *("[Outro]\n", "[Intro: x]", "[End]", "00:00:01,000 --> 00:00:02,000\n", "3\n", "...", "!?!?", "Mr. X"),
    *("3.5", "U.S.A.", "la la", "{soc}", "【副歌】", "主歌", "サビ", "후렴", "word\n", "other line\n"),
    *("Lyrics by Me\n", "(Repeat chorus)", "[Chorus]\n", "[verse]", "[chorus x9]\n", "|", "`", "&#0;"),
]


def mended(text: str) -> MendedLyrics:
    """Mend, and check what is true of every result."""
    result = mend_lyrics(text)
    again = mend_lyrics(result.text)
    assert again.text == result.text and again.changes == ()
    assert result.text == text or result.changes
    if not result.problems:
        Song.parse(result.text)
        assert problems_in(result.text) == []
    lines = original_lines(text)
    for change in result.changes:
        assert 1 <= change.line <= len(lines) and len(str(change).splitlines()) == 1
    assert all(problem.line is None or problem.line <= len(lines) for problem in result.problems)
    return result


def original_lines(text: str) -> list[str]:
    return re.sub("\r\n?|\u2028|\u2029", "\n", text.removeprefix("\ufeff")).split("\n")


def formatted(text: str) -> str:
    return Song.parse(mended(text).text).format()


def letters(text: str) -> str:
    return re.sub(r"\W", "", re.sub(r"\[[^\]]*\]", "", text))


@pytest.mark.parametrize("name", SAMPLES)
def test_what_people_paste(name):
    text, expected = SAMPLES[name]
    assert formatted(text) == expected


@pytest.mark.parametrize("name", SAMPLES)
def test_every_line_is_in_the_result_or_among_the_changes(name):
    text = SAMPLES[name][0]
    result = mended(text)
    named = {change.line for change in result.changes if change.before}
    for number, line in enumerate(original_lines(text), 1):
        typed_tag = re.fullmatch(r"\s*\[[^\]]*\]\s*", line)
        assert number in named or typed_tag or letters(line) in letters(result.text), line


def test_typed_form_with_tags_on_their_own_lines():
    assert mended("Verse 1:\nla\n\nChorus\nlo").text == "[verse]\nla\n\n[chorus]\nlo"


def test_changes_tell_line_and_both_sides():
    told = [str(change) for change in mended(SUNO).changes]
    for expected in (
        'line 1: "My Great Song" removed (it looks like the title)',
        'line 5: "[Verse 1: Anna]" became [verse] (a heading)',
        'line 11: "And I rise *whispers*" became "And I rise" ("whispers" is a remark)',
        'line 13: "[Chorus x2]" became [chorus] (a heading), sung twice',
        'line 15: "Burning higher x2" became "Burning higher" "Burning higher" (sung twice)',
        'line 20: "[Male Vocal]" removed ("Male Vocal" is a remark)',
        'line 23: "[Chorus]" became [chorus] with the words of the earlier one',
        'line 25: "[Outro]" moved behind the words below it',
        'line 26: added [verse] above "Fade away"',
    ):
        assert expected in told
    assert [change.line for change in mended(SUNO).changes] == sorted(c.line for c in mended(SUNO).changes)


def test_performance_notes_are_hints_for_the_style():
    assert mended(SUNO).style_hints == ("soft piano", "whispers", "Male Vocal")
    assert mended("Genre: pop, 90 bpm\n\n[Verse]\nla\n[Mood: sad]").style_hints == (
        *("Genre: pop, 90 bpm", "Mood: sad"),
    )
    assert mended("[verse]\n【女声】我来了").style_hints == ("女声",)


CORRECT = [
    "[intro-short] ; [verse] Lights go down. We drive. ; [chorus] 星光.夜里的雨 ; [outro-long]",
    "[Intro]\r\n\r\n[ Verse ]\r\nLine one,\r\nLine two.\r\n[inst - medium]\r\n[outro]\r\n[outro]",
    "[verse] a ;[chorus] b;",
    "[verse]\nChorus of angels, break my heart\nthe end of the road\nI told you 3 times",
    "[verse]\nLet me know if you love me\nMusic by my side\nHere is my song\nA B C\nsolo\n[silence]",
    '[verse]\n"Hold on," she said - la-la, don\'t go!\nWhy? R&B & soul <3\n[chorus]\n你好 baby!\nさくら',
    "[verse] 我们.1999.1999 ; [inst-short]",
    "[verse]\nVoice: she whispers low\nKey: you hold the door\nEnergy: it fills my soul\nI walk alone",
    "[verse]\nSource: my heart\nLa: la la la\n曲: 是你写给我的\nBy: the river, we're free",
    "[verse]\nHere is what I know:\nOf course, he said:\nlove\n[chorus]\nHere is what I know:\nlove",
    "[verse]\nGive me a\nB\nA\nB\nY\nand hold me tight tonight\nG\n[chorus]\nE\noh\nE",
    "[verse]\nBridge over water\nHook - line and sinker\nHook - Line and Sinker\nBridge - Over Water",
]


@pytest.mark.parametrize("text", CORRECT)
def test_correct_lyrics_come_back_as_they_are(text):
    assert mended(text) == MendedLyrics(text)


@pytest.mark.parametrize(
    ("heading", "tag"),
    [
        *(("[Verse 1]", "verse"), ("[Hook]", "chorus"), ("[Refrain]", "chorus"), ("[Post-Chorus]", "chorus")),
        *(("[Drop]", "chorus"), ("(Verse)", "verse"), ("**Verse 1**", "verse"), ("## Chorus", "chorus")),
        *(("Verse 1:", "verse"), ("CHORUS", "chorus"), ("Chorus x1", "chorus"), ("**Chorus:**", "chorus")),
        *(("【副歌】", "chorus"), ("主歌", "verse"), ("副歌2", "chorus"), ("桥段", "bridge")),
        *(("サビ", "chorus"), ("Aメロ", "verse"), ("Bメロ", "verse"), ("Cメロ", "bridge")),
        *(("Verso 2", "verse"), ("Coro", "chorus")),
        *(("Estribillo", "chorus"), ("Puente", "bridge"), ("Strophe", "verse"), ("Couplet 1", "verse")),
        *(("1절", "verse"), ("후렴", "chorus"), ("브릿지", "bridge"), ("Pré-Refrain", "verse")),
        *(("[chrous]", "chorus"), ("[Final Chorus - Powerful]", "chorus"), ("[Verse", "verse")),
        *(("Verse II", "verse"), ("Second Verse", "verse"), ("[Rap Verse 2: MC]", "verse")),
        *(("Refrão", "chorus"), ("Куплет 1", "verse"), ("Припев", "chorus"), ("[Middle 8]", "bridge")),
    ],
)  # fmt: skip
def test_headings_of_sung_sections(heading, tag):
    assert formatted(f"{heading}\nlove is here\n") == f"[{tag}] love is here."


@pytest.mark.parametrize(
    ("heading", "tag"),
    [
        *(("Verse 1 (John)", "verse"), ("Chorus (All):", "chorus"), ("Verse 2 - John", "verse")),
        *(("VERSE 3 – MALE", "verse"), ("**Verse 1 (John):**", "verse"), ("(Chorus - Both)", "chorus")),
        *(
            ("主歌1（男）", "verse"),
            ("副歌（合）", "chorus"),
            ("サビ（全員）", "chorus"),
            ("2절 (여)", "verse"),
        ),
        *(("Verse 1 (Anna & Emma)", "verse"), ("Bridge - Both", "bridge"), ("Chorus - John", "chorus")),
        *(
            ("VERSE 1 - ANNA AND BEN", "verse"),
            ("Verse 2 (feat. J. Cole)", "verse"),
            ("## Rap (MC)", "verse"),
        ),
        *(("[Verse 1] (John)", "verse"), ("[Chorus] (All):", "chorus"), ("【副歌】（男女）", "chorus")),
    ],
)
def test_headings_say_who_sings(heading, tag):
    assert formatted(f"{heading}\nlove is here\n") == f"[{tag}] love is here."


@pytest.mark.parametrize(
    "words",
    [
        *("ooh ooh", "Oh", "Lalala", "Woohoo", "love me now", "All of us", "I Love You", "Hallelujah"),
        *("Tonight", "john", "我爱你"),
    ],
)
def test_what_is_sung_in_brackets_beside_a_heading_is_no_singer(words):
    song = Song.parse(mended(f"[Chorus] ({words})\nlove is here").text)
    assert [(section.tag, section.lines) for section in song.sections] == [
        ("chorus", (words, "love is here"))
    ]


def test_a_word_that_may_be_sung_needs_more_than_a_name_beside_it():
    assert formatted("[verse]\nlove\nBreak (Free)\nSolo (John)") == "[verse] love. Break, Free. Solo, John."
    assert formatted("[verse]\nlove\nSolo (John):\nRap 2 (John)\nla love") == (
        "[verse] love. ; [inst-medium] ; [verse] la love."
    )


@pytest.mark.parametrize(
    ("text", "song"),
    [
        ("[Chorus] (Bang Bang)\nhey", "[chorus] Bang Bang. hey."),
        ("[Chorus] (Jolene)\nhey", "[chorus] Jolene. hey."),
        ("[Bridge] (Mama)\nhey", "[bridge] Mama. hey."),
        ("[Verse 1]\nHook (Captain)\nCome and get me", "[verse] Hook, Captain. Come and get me."),
        ("[Verse]\nBridge (London)\nFalling down", "[verse] Bridge, London. Falling down."),
    ],
)
def test_one_name_alone_may_be_sung(text, song):
    assert formatted(text) == song


def test_who_sings_is_told():
    assert [str(change) for change in mended("[Verse 1] (John)\nla\nChorus (Both)\nlo").changes] == [
        'line 1: "[Verse 1] (John)" became [verse] ("John" says who sings, a heading)',
        'line 3: "Chorus (Both)" became [chorus] (a heading)',
    ]
    assert mended("[Verse 1] (Male Vocal)\nla\nVerse 2 - Female Vocal\nlo").style_hints == (
        *("Male Vocal", "Female Vocal"),
    )


@pytest.mark.parametrize(
    ("heading", "chorus"),
    [
        *(("[Pré-Refrão]", "[Refrão]"), ("[Pre-Ritornello]", "[Ritornello]"), ("[Vorrefrain]", "[Refrain]")),
        *(("Pre-Hook", "Hook"), ("[Soft Pre-Coro 2]", "[Coro]"), ("Предприпев", "Припев")),
    ],
)
def test_what_leads_to_the_chorus_is_not_the_chorus(heading, chorus):
    text = f"{heading}\nVem comigo\n\n{chorus}\nCanta\n\n{chorus}\n\n{heading}"
    assert formatted(text) == (
        "[verse] Vem comigo. ; [chorus] Canta. ; [chorus] Canta. ; [verse] Vem comigo."
    )


def test_an_empty_chorus_has_the_words_of_a_chorus_before_those_of_a_drop():
    assert formatted("[Drop]\nJump\n\n[Chorus]\nCanta\n\n[Chorus]") == (
        "[chorus] Jump. ; [chorus] Canta. ; [chorus] Canta."
    )
    assert formatted("[Post-Chorus]\nJump\n\n[Chorus]") == "[chorus] Jump. ; [chorus] Jump."


@pytest.mark.parametrize(
    ("heading", "tag"),
    [
        *(("[Intro]", "intro-short"), ("[Long Intro]", "intro-medium"), ("前奏", "intro-short")),
        *(("[Instrumental]", "inst-medium"), ("[Guitar Solo]", "inst-medium"), ("Interlude", "inst-medium")),
        *(("(instrumental break)", "inst-medium"), ("[Break]", "inst-short"), ("间奏", "inst-medium")),
        *(("[Outro]", "outro-short"), ("[End]", "outro-short"), ("[Fade Out]", "outro-short")),
        *(
            ("尾奏", "outro-short"),
            ("结尾", "outro-short"),
            ("イントロ", "intro-short"),
            ("간주", "inst-medium"),
        ),
        *(("[Piano Intro]", "intro-short"), ("[Short Instrumental Intro]", "intro-short")),
        *(("[Verse 2]", "inst-short"), ("[Drop]", "inst-medium")),
    ],
)
def test_headings_of_sections_without_words(heading, tag):
    assert formatted(f"[verse]\nlove\n\n{heading}\n") == f"[verse] love. ; [{tag}]"


def test_words_of_instrumental_sections_become_a_verse():
    assert formatted("[Intro]\nla love\n[Solo]\n[Verse]\nx y") == (
        "[intro-short] ; [verse] la love. ; [inst-medium] ; [verse] x y."
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Chorus x3]\nlove", "[chorus] love. ; [chorus] love. ; [chorus] love."),
        ("[Chorus]\nlove\n(x2)", "[chorus] love. ; [chorus] love."),
        ("[Chorus] [x2]\nlove", "[chorus] love. ; [chorus] love."),
        ("[Verse]\nlove me (2x)\nbye", "[verse] love me. love me. bye."),
        ("[Verse]\nlove me ×2", "[verse] love me. love me."),
        ("[Chorus]\nlove\n[Chorus]\n(Repeat chorus)", "[chorus] love. ; [chorus] love."),
        (
            "[Chorus]\nlove\n[Verse]\na b\nRepeat Chorus x2",
            "[chorus] love. ; [verse] a b. ; [chorus] love. ; [chorus] love.",
        ),
        ("[Verse]\nlove x99", "[verse] " + "love. " * 7 + "love."),
    ],
)  # fmt: skip
def test_repeats_are_written_out(text, expected):
    assert formatted(text) == expected


CHORUS_TWICE = [
    *("[chorus] x2", "[Chorus] x2", "[Chorus x2]", "[Chorus] (x2)", "[Chorus]: x2", "2x [Chorus]"),
    *("[Chorus] [x2]", "(Chorus x2):"),
    *("(Chorus) x2", "(Chorus) (x2)", "(Chorus): x2", "(Chorus:) 2x", "(Chorus x2)", "(2x) Chorus"),
    "(Chorus)*2",
    *("Chorus x2", "Chorus (x2)", "Chorus: x2", "## (Chorus) x2", "**Chorus** x2", "(Chorus) twice"),
    *("【副歌】x2", "【副歌】（x2）", "(副歌)x2", "副歌 ×2", "（サビ）×2", "(Chorus 2) x2"),
    "(Repeat Chorus) x2",
]  # fmt: skip


@pytest.mark.parametrize("heading", CHORUS_TWICE)
def test_a_heading_says_how_often_its_section_is_sung(heading):
    text = f"{heading}\nOh baby\nSing along\n\n[verse]\nla love\n\n[Chorus]"
    chorus = "[chorus] Oh baby. Sing along."
    assert formatted(text) == f"{chorus} ; {chorus} ; [verse] la love. ; {chorus}"
    told = [str(change) for change in mended(text).changes]
    assert [change for change in told if change.startswith("line 1: ")] == told[:1]
    assert told[0].startswith(f'line 1: "{heading}" became [chorus]') and told[0].endswith(", sung twice")


@pytest.mark.parametrize("last", CHORUS_TWICE)
@pytest.mark.parametrize(
    "first", ["[chorus]", "(Chorus)", "(Chorus) x2", "[Hook x3]", "【副歌】x2", "(サビ)"]
)
def test_a_last_chorus_without_words_has_those_of_the_earlier_one(first, last):
    text = f"{first}\nOh baby\n\n[verse]\nla love\n\n{last}\n"
    assert formatted(text).endswith(
        "[chorus] Oh baby. ; [verse] la love. ; [chorus] Oh baby. ; [chorus] Oh baby."
    )
    told = [str(change) for change in mended(text).changes]
    assert told[-1] == f'line 7: "{last}" became [chorus] with the words of the earlier one, sung twice'


@pytest.mark.parametrize("seed", range(150))
def test_no_line_beside_repeat_marks_is_lost_silently(seed):
    """Every line is in the result or told, wherever repeat marks stand."""
    rng = random.Random(seed)
    rows = [
        *(
            *CHORUS_TWICE,
            "[verse]",
            "[Solo]",
            "[Outro]",
            "(Intro) x2",
            "(x2)",
            "（x2）",
            "x3",
            "[x2]",
            "",
            "",
        ),
        *("la love", "my love x2", "(oh my) x2", "your love (x3)", "our love x1", "Verse 2: love x2"),
        "(x2) (softly)",
    ]
    text = "\n".join(rng.choice(rows) for _ in range(rng.randint(1, 12)))
    result = mended(text)
    named = {change.line for change in result.changes if change.before}
    for number, line in enumerate(original_lines(text), 1):
        typed_tag = re.fullmatch(r"\[[^\]]*\]", line)
        assert number in named or typed_tag or letters(line) in letters(result.text), line


def test_words_in_brackets_before_a_repeat_mark_are_sung():
    assert formatted("[verse]\nlove\n(oh baby) x2\n(Chorus of angels) x2") == (
        "[verse] love. oh baby. oh baby. Chorus of angels. Chorus of angels."
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[chorus]\nlove\n(x2)", 'line 3: "(x2)" means that [chorus] is sung twice'),
        ("[chorus]\nlove\n（x3）", 'line 3: "（x3）" means that [chorus] is sung 3 times'),
        ("[chorus]\nlove\n(x99)", 'line 3: "(x99)" means that [chorus] is sung 4 times'),
        ("[inst-short]\n(x2)\n[verse]\nla", 'line 2: "(x2)" means that [inst-short] is played twice'),
        ("(x2)\n[verse]\nla", 'line 1: "(x2)" removed (nothing to repeat)'),
        ("[verse]\nla love x1", 'line 2: "la love x1" became "la love" (sung once)'),
        (
            "[verse]\nla love x99",
            'line 2: "la love x99" became ' + '"la love" ' * 8 + "(sung 8 times)",
        ),
        (
            "[verse] x2 ; [chorus] x3\nla",
            'line 1: "[verse] x2 ; [chorus] x3" became [inst-short] (there are no',
        ),
    ],
)
def test_repeats_are_told_as_what_is_sung(text, expected):
    told = [str(change) for change in mended(text).changes]
    assert any(change.startswith(expected) for change in told), told
    assert not any("written out" in change for change in told)


def test_a_repeat_that_is_too_long_is_told():
    lines = "la love my love\n" * 1100
    told = [str(change) for change in mended(f"[chorus]\n{lines}(x2)").changes]
    assert 'line 1102: "(x2)" removed (the lyrics would become too long)' in told


def test_a_paragraph_with_a_repeat_mark_is_not_joined_to_the_next():
    text = "[verse]\nla\n[Solo]\n\nmy love\n(x2)\n\nyour love\n\nour love"
    assert formatted(text) == (
        "[verse] la. ; [inst-medium] ; [verse] my love. ; [verse] my love. ; [verse] your love. our love."
    )


def test_subtitles_without_blank_rows_keep_their_words():
    text = (
        "WEBVTT\n\nfirst-cue\n00:02.000 --> 00:05.000\nLine one\nline two\n"
        "00:06.000 --> 00:08.000\nHi\n3\n00:00:09,000 --> 00:00:11,000\nLine four"
    )
    assert formatted(text) == "[verse] Line one. line two. Hi. Line four."
    told = [str(change) for change in mended(text).changes]
    assert 'line 3: "first-cue" removed (number of a subtitle)' in told
    assert 'line 9: "3" removed (number of a subtitle)' in told


def test_a_stamp_with_two_colons_has_no_hours():
    text = "[00:12:00]a\n[00:16:50] [00:24:99]b\n[00:20:10]c"
    assert formatted(text) == "[intro-short] ; [verse] a. b. c. b."
    assert (
        formatted(text.replace("[00:12:00]", "[00:01:99]")) == "[verse] a. ; [inst-short] ; [verse] b. c. b."
    )


def test_credits_are_no_words_that_one_waits_for():
    credits = "[00:01.00]作词 : 张三\n[00:02.00]作曲：李四\n[00:03.00]℗ 2001\n"
    words = "[00:20.00]words\n[00:24.00]more words"
    assert formatted(credits + words) == "[intro-short] ; [verse] words. more words."
    text = f"[00:00.00]晴天 - 周杰伦\n{credits}{words}"
    assert formatted(text) == "[intro-short] ; [verse] words. more words."
    assert str(mended(text).changes[0]) == (
        'line 1: "[00:00.00]晴天 - 周杰伦" removed (it looks like the title)'
    )
    assert formatted(f"[00:00.00]Hook - line\n{words}").startswith("[verse] Hook - line.")


def test_about_the_song_below_a_heading():
    told = "Genre: Pop\nKey: C major\nVocals: female, soft\nMood: sad and lonely\n风格：流行，抒情\n"
    credits = "Lyrics by Bob\nArtist: Florence and the Machine\n作词：张三\n"
    assert formatted(f"[verse]\n{told}{credits}love") == "[verse] love."
    assert formatted("Title: I will\nVoice: she whispers\n[verse]\nlove\n(Key: C)") == "[verse] love."
    assert formatted("[verse]\nlove\n(Voice: she whispers)") == "[verse] love. Voice: she whispers."


@pytest.mark.parametrize(
    "sheet",
    [
        "Am  F\nwalking slowly\nG\nalong the river",
        "G\nwalking slowly\nD\nalong the river",
        "walking slowly\nB\nalong the river\nC/G",
    ],
)
def test_a_letter_among_chords_is_a_chord(sheet):
    assert formatted(f"[verse]\n{sheet}") == "[verse] walking slowly. along the river."


def test_chatter_is_outside_the_song():
    assert formatted("Here is your song:\n[verse]\nlove me\nLet me know if I should tweak it") == (
        "[verse] love me."
    )


def test_one_long_block_is_cut_into_verses():
    song = Song.parse(
        mended("\n".join(f"this is line {'abcdefghijklmnopqrstu'[i]}b" for i in range(21))).text
    )
    assert [len(section.lines) for section in song.sections] == [7, 7, 7]
    spaced = "\n\n".join(f"this is line {'abcdefghij'[i]}b" for i in range(10))
    assert [len(section.lines) for section in Song.parse(mended(spaced).text).sections] == [5, 5]


def test_paragraphs_that_are_nearly_alike_are_the_chorus():
    chorus = "Oh carry me over the sea\nhome tonight"
    text = f"a bird\nflies\n\n{chorus}\n\nb road\nends\n\n{chorus.replace('Oh', 'So,')}!!"
    assert [s.tag for s in Song.parse(mended(text).text).sections] == ["verse", "chorus", "verse", "chorus"]


def test_a_long_line_is_split_at_punctuation():
    sentence = (
        "This goes on and on, with a comma here and there, because nobody ever pressed the enter key, "
        "not even once in all those years"
    )
    assert all(len(s) <= 120 for s in Song.parse(mended(f"[verse]\n{sentence}").text).sections[0].lines)
    assert formatted(f"[verse]\n{sentence}").replace(".", "") == f"[verse] {sentence}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Dear Mr. Smith", "Dear Mr Smith"),
        ("a 3.5 mile road in the U.S.A.", "a 3 point 5 mile road in the USA"),
        ("wait... what", "wait, what"),
        ("what?!?! no!!!", "what? no!"),
        ("love [ooh ooh] you [and I will always]", "love ooh ooh you and I will always"),
        ("**bold** and _slanted_ (walk)ing", "bold and slanted walking"),
        ("see you at www.example.com my love", "see you at my love"),
        ("12) love you", "love you"),
        ("love ] you (maybe", "love you maybe"),
    ],
)
def test_lines(line, expected):
    assert Song.parse(mended(f"[verse]\nla\n{line}").text).sections[0].lines == ("la", expected)


@pytest.mark.parametrize("text", ["", " \n\t", "🎵🎵", "[Male Vocal]", "C G Am F", "https://x.y/z"])
def test_nothing_to_sing_is_a_problem(text):
    assert "there are no lyrics" in str(mended(text).problems[0])


def test_a_title_is_not_sung_and_a_first_line_is():
    assert formatted("Twinkle\n\n[Verse]\nla love") == "[verse] la love."
    assert formatted("Twinkle\n[Verse]\nla love") == "[verse] Twinkle. ; [verse] la love."


@pytest.mark.parametrize("seed", range(150))
def test_every_word_that_is_sung_survives(seed):
    """Words between headings, notes and marks of all kinds come out in order, none more and none less."""
    rng = random.Random(seed)
    sung, rows = [], []
    heads = [
        "[Verse 1]",
        "Verse 2:",
        "**Bridge**",
        "[Chorus: Anna]",
        "【主歌】",
        "[Outro]",
        "[Intro]",
        "",
        "---",
    ]
    for _ in range(rng.randint(1, 8)):
        # What follows an outro is sung before it, and one line above the first heading would be a title.
        rows += [rng.choice(heads), rng.choice(["", "[Male Vocal]", "C  G  Am", "(soft piano)", "🎵"])]
        for _ in range(rng.randint(2, 6)):
            words = [rng.choice(WORDS) for _ in range(rng.randint(2, 7))]
            sung += words
            form = rng.choice(
                ["{}", "{}.", "- {}", "  {} ♪", "({})", "*{}*", "“{}”", "{}…", "[Am]{}", "{}！"]
            )
            rows.append(form.format(" ".join(words)))
    result = mended("\n".join(rows))
    assert not result.problems
    assert re.findall(r"\w+", re.sub(r"\[[^\]]*\]", "", result.text)) == sung


@pytest.mark.parametrize("seed", range(400))
def test_garbage_never_raises_and_is_stable(seed):
    rng = random.Random(seed)
    kinds = rng.sample(GARBAGE, rng.randint(1, 6))
    result = mended("".join(rng.choice(kinds) for _ in range(rng.randint(0, 40))))
    assert all(str(problem) for problem in result.problems)


def test_random_bytes_never_raise():
    rng = random.Random(0)
    for _ in range(50):
        mended(rng.randbytes(300).decode("latin-1"))
        mended(rng.randbytes(300).decode("utf-8", "replace"))
        mended("".join(chr(rng.randrange(0x110000)) for _ in range(200)))


UNITS = [
    *("[", "(", "*", "x2 ", "(x2)\n", "[Chorus x9]\nla\n", "Chorus: ", "<a", "&am", ".", "!?", "我，"),
    *("[00:01.00]", "[00:01.00]la\n", "1. ", "la la la\n\n", "((a", "a\u200d ", "ooh ah"),
    *("[Chorus]\nlove you\n", "hello there my friend\n"),
]


@pytest.mark.parametrize("unit", UNITS)
def test_long_texts_take_linear_time(unit):
    start = time.process_time()
    result = mend_lyrics((unit * MAX_CHARACTERS)[:MAX_CHARACTERS])
    assert time.process_time() - start < 1.5  # a third of it on an idle machine
    assert len(result.text) < 2 * MAX_CHARACTERS


def test_a_whole_book_is_refused_at_once():
    start = time.process_time()
    result = mend_lyrics("hello there\n" * 100_000)
    assert time.process_time() - start < 0.5
    assert "too many" in str(result.problems[0]) and result.changes == ()
