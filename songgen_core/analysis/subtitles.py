"""Timed lines as LRC and SRT, and back.

LRC knows only where a line begins; its end is written as an empty line, unless the next line begins there.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..errors import UserError
from ..text.doctor_times import LRC_STAMP, cue_times, stamp_seconds
from .lines import TimedLine

_LAST_LINE_SECONDS = 4.0  # how long the last line of an LRC stays if nothing says it

_LRC_OFFSET = re.compile(r"\s*\[offset:\s*([+-]?\d{1,7})\s*\]\s*", re.IGNORECASE)
# What players would not show: word times of LRC, styles of SRT and ASS.
_FORMATTING = re.compile(r"<\d+:\d+(?:[.:]\d+)?>|</?(?:[biu]|font)(?:\s[^<>]*)?>|\{\\[^{}]*\}", re.IGNORECASE)
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u2060\ufeff]")


def to_lrc(lines: Sequence[TimedLine]) -> str:
    """LRC text, times in hundredths of a second, one line per lyric line, "\\n" at each end.

    Lines without text are left out. `parse_lrc` gives the same times and texts back.
    """
    timed = [(round(line.start * 100), round(line.end * 100), text) for line, text in _shown(lines)]
    rows = []
    for number, (start, end, text) in enumerate(timed):
        following = timed[number + 1][0] if number + 1 < len(timed) else None
        end = max(end, start + 1)
        # A bracket at the beginning would be read as another time.
        rows.append(f"[{_lrc_clock(start)}]{' ' if text[0] == '[' else ''}{text}")
        if following is None or end < following:
            rows.append(f"[{_lrc_clock(end)}]")
    return "".join(row + "\n" for row in rows)


def to_srt(lines: Sequence[TimedLine]) -> str:
    """SRT text, times in milliseconds, "\\n" at each end of line; `parse_srt` gives the same back."""
    rows = []
    for number, (line, text) in enumerate(_shown(lines), 1):
        start = round(line.start * 1000)
        end = max(round(line.end * 1000), start + 1)
        text = text.replace("-->", "->")  # else it could be read as the times of a subtitle
        rows.append(f"{number}\n{_srt_clock(start)} --> {_srt_clock(end)}\n{text}\n")
    return "\n".join(rows)


def parse_subtitles(text: str) -> list[TimedLine]:
    """Lines of LRC or SRT, whichever it is, in the order of time; [] for a blank text. Raises UserError."""
    rows = _rows(text)
    if not any(map(str.strip, rows)):
        return []
    if any(map(cue_times, rows)):
        return parse_srt(text)
    if any(map(LRC_STAMP.match, rows)):
        return parse_lrc(text)
    raise UserError(
        "the subtitles are neither SRT (00:00:01,000 --> 00:00:03,000) nor LRC ([00:01.00]text); connect the"
        " output lrc or srt of Analyze Song"
    )


def parse_lrc(text: str) -> list[TimedLine]:
    """Lines of an LRC text in the order of time; rows without a time are notes and left out.

    A line ends where the next one begins, an empty one included; the last one after 4 s.
    """
    stamped: list[tuple[float, str]] = []
    shift = 0.0
    for row in _rows(text):
        if found := _LRC_OFFSET.fullmatch(row):
            shift = int(found[1]) / 1000
            continue
        moments, rest = [], row
        while match := LRC_STAMP.match(rest):
            moments.append(stamp_seconds(match))
            rest = rest[match.end() :]
            if rest.startswith(" "):  # the text begins, even with a bracket
                break
        stamped += [(moment, _plain(rest)) for moment in moments]
    stamped = sorted(((round(max(0.0, at - shift), 3), words) for at, words in stamped), key=lambda s: s[0])
    ends = [at for at, _ in stamped[1:]]
    if stamped:
        ends.append(stamped[-1][0] + _LAST_LINE_SECONDS)
    return [TimedLine(words, at, end) for (at, words), end in zip(stamped, ends) if words]


def parse_srt(text: str) -> list[TimedLine]:
    """Subtitles of an SRT or WebVTT text in the order of time; several rows of one stay apart by "\\n"."""
    found: list[TimedLine] = []
    body: list[str] = []
    for row in [*_rows(text), ""]:
        if times := cue_times(row):
            if body:  # no blank row ended the subtitle before; the number of this one may stand below it
                found[-1] = _with_rows(found[-1], body[:-1] if body[-1].isdecimal() else body)
            start, end = times
            found.append(TimedLine("", start, max(start, end)))
            body = []
        elif found and not row.strip():
            if body:
                found[-1] = _with_rows(found[-1], body)
            body = []
        elif found and not found[-1].text and (words := _plain(row)):
            body.append(words)
    return sorted((line for line in found if line.text), key=lambda line: line.start)


def line_at(lines: Sequence[TimedLine], seconds: float) -> TimedLine | None:
    """The line that is shown at a moment: of several, the one that began last."""
    shown = [line for line in lines if line.start <= seconds < line.end]
    return max(shown, key=lambda line: line.start, default=None)


def _with_rows(line: TimedLine, rows: Sequence[str]) -> TimedLine:
    return replace(line, text="\n".join(rows))


def _shown(lines: Iterable[TimedLine]) -> list[tuple[TimedLine, str]]:
    """Lines in the order of time with their texts in one row each, without those that have none."""
    ordered = sorted(lines, key=lambda line: line.start)
    return [(line, text) for line in ordered if (text := _plain(line.text))]


def _plain(text: str) -> str:
    """One row without formatting and control characters, blanks never in a row."""
    previous = None
    while previous != text:  # what is taken out may join its surroundings to formatting again
        previous, text = text, _FORMATTING.sub("", _INVISIBLE.sub("", text))
    return " ".join(text.split())


def _rows(text: str) -> list[str]:
    return re.sub("\r\n?", "\n", text.removeprefix("\ufeff")).split("\n")


def _lrc_clock(hundredths: int) -> str:
    minutes, rest = divmod(max(0, hundredths), 6000)
    return f"{minutes:02d}:{rest // 100:02d}.{rest % 100:02d}"


def _srt_clock(milliseconds: int) -> str:
    seconds, rest = divmod(max(0, milliseconds), 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d},{rest:03d}"
