"""LRC and SRT: written, read back, and read as others write them."""

import random

import pytest

from songgen_core.analysis.lines import TimedLine
from songgen_core.analysis.subtitles import line_at, parse_lrc, parse_srt, parse_subtitles, to_lrc, to_srt
from songgen_core.errors import UserError

LINES = [
    TimedLine("Hello, world!", 0.0, 1.5),
    TimedLine("你好，世界", 1.5, 3.25),
    TimedLine("[00:12.00] looks like a time", 10.0, 12.0),
    TimedLine("1", 61.01, 65.0),
    TimedLine("été \U0001f3b5 שלום", 3599.99, 3600.5),
    TimedLine("a < b > c & d --", 6000.0, 6001.0),
]


def facts(lines):
    return [(line.text, line.start, line.end) for line in lines]


def test_what_is_written():
    assert to_lrc(LINES[:2]) == "[00:00.00]Hello, world!\n[00:01.50]你好，世界\n[00:03.25]\n"
    assert to_srt(LINES[:2]) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello, world!\n\n2\n00:00:01,500 --> 00:00:03,250\n你好，世界\n"
    )
    assert to_lrc([]) == to_srt([]) == ""
    assert "\r" not in to_lrc(LINES) + to_srt(LINES)


def test_what_was_written_is_read_back():
    assert facts(parse_srt(to_srt(LINES))) == facts(LINES)
    assert facts(parse_lrc(to_lrc(LINES))) == facts(LINES)
    assert facts(parse_subtitles(to_srt(LINES))) == facts(parse_subtitles(to_lrc(LINES))) == facts(LINES)


ALPHABET = [
    "a",
    "Zz",
    " ",
    "[",
    "]",
    "[00:01.00]",
    "<i>",
    "</b>",
    "<00:01.00>",
    "{\\an8}",
    "-->",
    "\n",
    "\r\n",
    "\t",
]
ALPHABET += [
    "你",
    "é",
    "\U0001f3b5",
    "\u2028",
    "\u200b",
    "\x00",
    "0",
    "12",
    ":",
    "[ti:x]",
    "<",
    ">",
    "{",
    "}",
    "00:00:01,000",
]


@pytest.mark.parametrize("seed", range(300))
def test_any_text_comes_back_as_it_was_written(seed):
    rng = random.Random(seed)
    lines, at = [], 0
    for _ in range(rng.randint(1, 6)):
        start = at + rng.choice([0, 1, 700])
        at = start + rng.randint(2, 90000)
        text = "".join(rng.choice(ALPHABET) for _ in range(rng.randint(0, 9)))
        lines.append(TimedLine(text, start / 100, at / 100))
    for write, read in ((to_lrc, parse_lrc), (to_srt, parse_srt)):
        once = read(write(lines))
        assert facts(read(write(once))) == facts(once)
        assert write(once) == write(lines)
        assert {(line.start, line.end) for line in once} <= {(line.start, line.end) for line in lines}
        letters = [c for line in lines for c in line.text if c in "Zz你é\U0001f3b5"]
        plain = "".join(line.text for line in once)
        assert [c for c in plain if c in "Zz你é\U0001f3b5"] == letters


def test_files_of_others_are_read():
    lrc = (
        "\ufeff[ti:Song]\r\n[offset:+500]\r\n[00:02.5][00:10.250]<00:02.60>Twice\r\n[0:05]Once\r\nno time\r\n"
    )
    assert facts(parse_subtitles(lrc)) == [("Twice", 2.0, 4.5), ("Once", 4.5, 9.75), ("Twice", 9.75, 13.75)]
    srt = (
        "1\r\n00:00:01,0 --> 00:00:02,000 X1:0\r\n<i>Two</i>\r\nrows\r\n\r\n\r\n"
        "00:00:00.500 --> 00:00:00.9\r\n{\\an8}First\r\n\r\n7\r\n00:00:03,000 --> 00:00:04,000\r\n\r\n"
    )
    assert facts(parse_subtitles(srt)) == [("First", 0.5, 0.9), ("Two\nrows", 1.0, 2.0)]


def test_subtitles_without_blank_rows_are_read():
    srt = (
        "1\n00:00:01,000 --> 00:00:02,000\nHello\nyou\n2\n00:00:03,000 --> 00:00:04,000\nBye\n"
        "00:00:05,000 --> 00:00:06,000\n4\n00:00:07,000 --> 00:00:08,000\nAgain"
    )
    assert facts(parse_subtitles(srt)) == [
        ("Hello\nyou", 1.0, 2.0),
        ("Bye", 3.0, 4.0),
        ("Again", 7.0, 8.0),
    ]


def test_times_of_webvtt_have_hours_or_not():
    vtt = "WEBVTT\n\n00:12.000 --> 01:15.500 align:start\nHello\n\nname\n00:01:16.000 --> 01:00:00.000\nBye\n"
    assert facts(parse_subtitles(vtt)) == [("Hello", 12.0, 75.5), ("Bye", 76.0, 3600.0)]


def test_the_last_part_of_a_stamp_is_a_fraction():
    lrc = "[00:12:00]a\n[00:16:50]b\n[00:20.5]c"
    assert facts(parse_subtitles(lrc)) == [("a", 12.0, 16.5), ("b", 16.5, 20.5), ("c", 20.5, 24.5)]


def test_blank_and_foreign_texts():
    assert parse_subtitles(" \n\r\n") == []
    with pytest.raises(UserError, match="neither SRT"):
        parse_subtitles("Dear diary,")


def test_the_line_of_a_moment():
    assert line_at(LINES, 1.5) is LINES[1] and line_at(LINES, 5.0) is None
    assert line_at([TimedLine("long", 0, 9), TimedLine("later", 2, 3)], 2.5).text == "later"
