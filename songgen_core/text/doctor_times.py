"""The times of LRC files and subtitles: how they are read, and what they tell about a song.

`analysis.subtitles` reads the same times with the same patterns.
"""

import re
from collections.abc import Iterable

from . import doctor_marks as marks
from .doctor_sections import Change, Row
from .lyrics import MAX_CHARACTERS

_MOST_STAMPS = 12

LRC_STAMP = re.compile(r"\s*\[(\d{1,4}):(\d{1,2})(?:[.:](\d{1,3}))?\]")
_STAMPED = re.compile(rf"(?:{LRC_STAMP.pattern}){{1,200}}")
_METADATA = re.compile(r"\s*\[(?:ar|ti|al|by|au|lr|la|re|ve|id|length|offset|tool|#)\s*:[^\[\]]*\]\s*", re.I)
_OFFSET = re.compile(r"\s*\[offset\s*:\s*([-+]?\d{1,7})", re.I)
_CLOCK = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2})[,.](\d{1,3})"
_CUE = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s.*)?")
_TITLE_AND_ARTIST = re.compile(r".{1,80} - .{1,80}")


def stamp_seconds(stamp: re.Match[str]) -> float:
    """The time of an `LRC_STAMP`; what follows the seconds is their fraction, behind a colon too."""
    minutes, seconds, fraction = stamp.groups()
    return _seconds(0, minutes, seconds, fraction or "0")


def cue_times(row: str) -> tuple[float, float] | None:
    """Begin and end in a row `00:00:01,000 --> 00:00:02,000`, hours or not, None for any other row."""
    cue = _CUE.fullmatch(row)
    if cue is None:
        return None
    parts = cue.groups()
    return _seconds(*parts[:4]), _seconds(*parts[4:])


def _seconds(hours: str | int | None, minutes: str, seconds: str, fraction: str) -> float:
    whole = 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds)
    return round(whole + int(fraction.ljust(3, "0")) / 1000, 3)


def without_times(rows: list[Row], changes: list[Change]) -> list[Row]:
    """Return rows without the time stamps of LRC files and subtitles; long waits become instrumental tags."""
    if any(cue_times(row.text) for row in rows):
        return _without_cues(rows, changes)
    if any(_STAMPED.match(row.text) for row in rows):
        return _without_stamps(rows, changes)
    return rows


def _without_stamps(rows: list[Row], changes: list[Change]) -> list[Row]:
    offset = 0.0
    loose: list[Row] = []
    timed: list[tuple[float, Row]] = []
    spare = MAX_CHARACTERS
    for row in rows:
        stamped = _STAMPED.match(row.text)
        if _METADATA.fullmatch(row.text):
            match = _OFFSET.match(row.text)
            offset = -int(match[1]) / 1000 if match else offset
            changes.append(Change(row.number, row.text.strip(), "removed (about the file)"))
        elif stamped is None:
            loose += [] if timed else [row]
            if timed:
                timed.append((timed[-1][0], row))
        else:
            words = row.text[stamped.end() :].strip()
            times = [stamp_seconds(stamp) for stamp in LRC_STAMP.finditer(stamped[0])]
            spare -= len(words) * (len(times) - 1)
            kept = times[:_MOST_STAMPS] if spare > 0 else times[:1]
            stripped = Row(row.number, words, row.text, "time stamps")
            timed += [(seconds, stripped) for seconds in kept]
            if not words:
                changes.append(Change(row.number, row.text.strip(), "removed (a time without words)"))
    timed.sort(key=lambda entry: entry[0])
    return [*loose, *_with_waits(_without_title(timed, changes), offset, changes)]


def _without_title(timed: list[tuple[float, Row]], changes: list[Change]) -> list[tuple[float, Row]]:
    """Drop a first row `title - artist`, as players show it; it is one where credits follow."""
    filled = [(row, line) for _, row in timed[:_MOST_STAMPS] if (line := marks.clean(row.text, []))]
    if len(filled) < 2 or not marks.is_credit(filled[1][1]) or not _TITLE_AND_ARTIST.fullmatch(filled[0][1]):
        return timed
    title = filled[0][0]
    changes.append(Change(title.number, title.source, "removed (it looks like the title)"))
    return [(seconds, row) for seconds, row in timed if row is not title]


def _with_waits(timed: list[tuple[float, Row]], offset: float, changes: list[Change]) -> Iterable[Row]:
    """Put instrumental tags where nobody sings for long, and at the start, whatever is told there."""
    last: float | None = None
    for seconds, row in timed:
        sung = _is_sung(row.text)
        if sung:
            yield from _wait(seconds + offset if last is None else seconds - last, row, last is None, changes)
        last = seconds if sung or last is not None else last
        yield row


def _is_sung(text: str) -> bool:
    line = "" if marks.is_copyright(text) else marks.clean(text, [])
    return bool(line) and not marks.no_lyric(line) and not marks.is_style(line)


def _wait(seconds: float, row: Row, first: bool, changes: list[Change]) -> Iterable[Row]:
    if seconds < (5 if first else 10):
        return
    tag = "intro-short" if first else "inst-short" if seconds < 20 else "inst-medium"
    changes.append(Change(row.number, "", f"added [{tag}] ({seconds:.0f} s without words)"))
    yield Row(row.number, f"[{tag}]")


def _without_cues(rows: list[Row], changes: list[Change]) -> list[Row]:
    kept: list[Row] = []
    last: float | None = None
    texts = ["", *(row.text.strip() for row in rows), ""]
    for before, row, after in zip(texts, rows, texts[2:]):
        if cue := cue_times(row.text):
            begin, end = cue
            wait = begin - (last or 0.0)
            changes.append(Change(row.number, row.text.strip(), "removed (times of a subtitle)"))
            kept += [Row(row.number, "")] if wait >= 4 else []
            kept += _wait(wait, row, last is None, changes)
            last = end
        elif row.text.strip() and cue_times(after) and _names_cue(row.text.strip(), before):
            changes.append(Change(row.number, row.text.strip(), "removed (number of a subtitle)"))
        elif row.text.strip():
            kept.append(row)
    return kept


def _names_cue(text: str, before: str) -> bool:
    """Whether a row above times is their number, or their name: one word below a blank row."""
    return text.isdecimal() or (not before and text.isascii() and " " not in text)
