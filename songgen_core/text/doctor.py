"""Turns lyrics as people have them into the format that `Song.parse` reads, and says what it changed.

Suno headings, chord sheets, subtitles, web pages: a row of the text becomes a heading, lyric lines, or
nothing with a reason. Then headings and lines become sections, and the whole is read again until nothing
changes any more, so that mended lyrics stay as they are.
"""

import re
from dataclasses import dataclass, field, replace

from ..errors import LyricsError
from . import doctor_marks as marks
from .doctor_headings import Heading, heading_in_brackets, heading_of_line, is_singer
from .doctor_sections import Again, Change, Mark, Row, Sections, often
from .doctor_times import without_times
from .lyrics import MAX_CHARACTERS, LyricsProblem, Song, problems_in

LONGEST_TEXT = 5 * MAX_CHARACTERS  # a subtitle file or web page holds more than its lyrics
_LONGEST_LINE = 120
_MOST_PASSES = 12
_MOST_LINE_REPEATS = 8

_MARKUP = re.compile(r"(?:#{1,6} *|>+ *|[-+•·*–—●○▪■◆] +|[-•·–—](?=\w)|\d{1,3}[.)] +(?=\S))+")
_SINGER = re.compile(r"(?i:(?:男|女|合|男女|齐|both|all|male|female|man|woman|him|her)\s?:\s*)(?=\S)")
_SINGER_AFTER = re.compile(r"(\[([^\[\]]{1,60})\]) ?\(([^()]{1,30})\) ?:?")
_BRACKETS = re.compile(r"(\[[^\[\]]*\])")
_INNER = re.compile(r"\(([^()]*)\)|(\*{1,3}|_{1,2}|~~|`)([^*_~`]+)\2")
_SEPARATOR = re.compile(r" ?; ?(?=\[|$|;)")
_HEADING_AND_TIMES = re.compile(r"\(([^()]{1,40})\) ?:? ?([^()]{1,12}|\([^()]{1,12}\))")
_TIMES_AND_HEADING = re.compile(r"\(([^()]{1,12})\) ?([^()]{1,40})")


@dataclass(frozen=True)
class MendedLyrics:
    """Lyrics that `Song.parse` reads, unless `problems` is not empty, and what was done to them.

    `problems` name lines of the original text. `style_hints` are performance notes that were taken out:
    they belong into the description of the song.
    """

    text: str
    changes: tuple[Change, ...] = ()
    problems: tuple[LyricsProblem, ...] = ()
    style_hints: tuple[str, ...] = ()


def mend_lyrics(text: str) -> MendedLyrics:
    """Return any lyrics in the typed form of `Song.parse`; correct ones come back as they are.

    Every line that is not blank is in the result or in `changes`. Raises nothing: what cannot be mended is
    in `problems`.
    """
    if len(text) > LONGEST_TEXT:
        return MendedLyrics(text, problems=tuple(problems_in(text)))
    lines = re.sub("\r\n?|\u2028|\u2029", "\n", text.removeprefix("\ufeff")).split("\n")
    rows = [Row(number, line) for number, line in enumerate(lines, 1)]
    known, changes, hints, changed = _song(text), [], dict[str, None](), False
    for _ in range(_MOST_PASSES):
        reader = _Reader(rows)
        mended = reader.read()
        song = _song(_text(mended))
        same = song == known if song is not None else not reader.changes
        if same or _text(mended) == _text(rows):
            break
        changes += reader.changes
        hints.update(dict.fromkeys(reader.hints))
        rows, known, changed = mended, song, True
    if not changed:
        return MendedLyrics(text, problems=tuple(problems_in(text)))
    problems = () if known else _problems(rows)
    return MendedLyrics(_text(rows), tuple(changes), problems, tuple(hints))


def _song(text: str) -> Song | None:
    """The song that a text holds, None if it has problems."""
    try:
        return Song.parse(text)
    except LyricsError:
        return None


def _text(rows: list[Row]) -> str:
    return "\n".join(row.text for row in rows)


def _problems(rows: list[Row]) -> tuple[LyricsProblem, ...]:
    """What is still wrong, by the lines of the original text."""
    numbers = dict(enumerate((row.number for row in rows), 1))
    return tuple(replace(p, line=numbers.get(p.line or 0)) for p in problems_in(_text(rows)))


@dataclass
class _RowReading:
    """What one row became, and why it is not what it was."""

    marks: list[Mark] = field(default_factory=list)
    why: list[str] = field(default_factory=list)
    times: int = 1

    def outcome(self) -> str:
        shown = [
            f"[{mark.tag}]" if isinstance(mark, Heading) else f'"{mark}"'
            for mark in self.marks
            if not isinstance(mark, Again)
        ]
        reasons = ", ".join(dict.fromkeys(self.why))
        return f"{' '.join(shown)} ({reasons})" if shown else f"removed ({reasons})"


class _Reader:
    """One pass over the rows of a text."""

    def __init__(self, rows: list[Row]) -> None:
        self.changes: list[Change] = []
        self.hints: list[str] = []
        self._rows = without_times(rows, self.changes)
        self._titled = self._rows is rows  # a title of its own row; files with times have a field for it
        self._at_start = True
        self._below_heading = False
        self._spare = MAX_CHARACTERS - sum(len(row.text) + 1 for row in rows)  # for repeated lines
        self._reading = _RowReading()

    def read(self) -> list[Row]:
        """Return the rows of the mended text."""
        filled = [index for index, row in enumerate(self._rows) if row.text.strip()]
        letters = marks.letters_among_chords([row.text for row in self._rows])
        sections = Sections(self.changes, self._spare, titled=self._titled)
        for index, row in enumerate(self._rows):
            self._reading = _RowReading(why=[row.why] if row.why and row.text else [])
            at_edge = index in filled[-2:] or (index in filled[:2] and not self._below_heading)
            self._read_row(row.text, at_edge=at_edge, among_chords=index in letters)
            found = self._reading.marks
            repeats = [mark for mark in found if isinstance(mark, Again)]
            if repeats and len(repeats) == len(found):
                found = [Again(repeats[-1].times, ", ".join(dict.fromkeys(self._reading.why)))]
            elif self._reading.why:
                self.changes.append(Change(row.number, row.source, self._reading.outcome()))
            sections.add(row, found)
            self._below_heading |= any(isinstance(mark, Heading) for mark in found)
            if found or not row.text.strip():
                self._at_start = not found or isinstance(found[-1], Heading)
        mended = sections.rows()
        self.changes = sorted(dict.fromkeys(self.changes), key=lambda change: change.line)
        return mended

    def _read_row(self, raw: str, *, at_edge: bool, among_chords: bool) -> None:
        why = self._reading.why
        if not raw.strip():
            return
        if marks.is_copyright(raw):
            why.append("a credit")
            return
        line = marks.clean(raw, why)
        if not line:
            return
        reason = ""
        if not line.startswith("["):
            strict = self._below_heading
            reason = marks.no_lyric(line, at_edge=at_edge, strict=strict, among_chords=among_chords)
        if not reason or set(line) <= set("; "):
            self._read_line(line)
        else:
            why.append(reason)
            if marks.is_style(plain := line.lstrip("#>*-_ ").rstrip("*_ ")):
                self._hint(plain.replace("**", "").replace("__", ""))

    def _read_line(self, line: str) -> None:
        plain, decorated = self._without_markup(line)
        if marks.is_style(plain, strict=self._below_heading):
            self._reading.why.append("about the style")
            self._hint(plain)
            return
        bare = _without_brackets(plain) if plain[:1] in "(*_" else plain
        found = heading_of_line(bare, decorated or bare != plain, self._at_start)
        while found and not (plain[:1] == "(" and found[1]):
            self._add_heading(found[0], "a heading")
            plain = found[1]
            found = heading_of_line(plain, False, False)
        if singer := _SINGER.match(plain):
            self._reading.why.append(f'"{singer[0].strip()}" says who sings')
            plain = plain[singer.end() :]
        plain = self._without_singer(plain)
        self._read_pieces(_SEPARATOR.sub(" ", plain))
        match self._reading.marks[:2]:
            case [Again() as again, Heading() as heading]:  # `2x [Chorus]` means what `[Chorus] 2x` does
                self._reading.marks[:2] = [heading, again]
        if plain.endswith(";") and not self._reading.why:
            self._reading.why.append('";" removed')

    def _without_markup(self, line: str) -> tuple[str, bool]:
        """Take off Markdown, bullets and numbers; the flag says that the row was made to stand out."""
        plain = line
        if match := _MARKUP.match(line):
            plain = line[match.end() :]
        strong = re.fullmatch(r"(\*\*|__)([^*_]+)(\*\*|__)( ?:)?", plain)
        plain = strong[2] + (strong[4] or "") if strong else plain
        if plain != line:
            self._reading.why.append("Markdown or numbering")
        return plain.strip(), bool(strong) or line.startswith("#")

    def _without_singer(self, line: str) -> str:
        """`[Verse 1] (John)` without the name; what is sung below a heading stays."""
        match = _SINGER_AFTER.fullmatch(line)
        if not match or marks.is_note(match[3]) or not heading_in_brackets(match[2]):  # notes become hints
            return line
        if not is_singer(match[3], marked=any(map(str.isnumeric, match[2]))):
            return line
        self._reading.why.append(f'"{match[3]}" says who sings')
        return match[1]

    def _read_pieces(self, line: str) -> None:
        """Read what is in square brackets and what is between them."""
        words = ""
        for piece in _BRACKETS.split(line):
            if piece[:1] != "[" or piece[-1:] != "]":
                words += self._unpaired(piece)
                continue
            kept = self._read_bracket(piece[1:-1].strip())
            if isinstance(kept, str):
                words += kept
                continue
            self._add_words(words)
            words = ""
            self._reading.marks.append(kept)
        self._add_words(words)

    def _unpaired(self, piece: str) -> str:
        """A piece without brackets, which it may have in excess; `[verse` is a heading."""
        if "[" not in piece and "]" not in piece:
            return piece
        self._reading.why.append("a bracket without partner")
        plain = piece.replace("[", " ").replace("]", " ").strip()
        heading = heading_in_brackets(plain) if piece[0] == "[" and len(plain) <= 30 else None
        if heading is None:
            return plain
        self._add_heading(heading, "a heading")
        return ""

    def _read_bracket(self, content: str) -> Heading | str:
        """Return the heading or the words that are sung; notes and repeat marks are collected."""
        why = self._reading.why
        if not content:
            why.append("empty brackets")
            return ""
        if marks.is_chord(content):
            why.append(f"chord {content}")
            return ""
        if times := marks.is_repeat_mark(content):
            return self._again(times)
        reason = marks.no_lyric(content)
        if reason and not marks.is_chord_line(content):
            why.append(f"[{content}] is {reason}")
            if marks.is_style(content):
                self._hint(content)
            return ""
        heading = heading_in_brackets(content)
        if heading is not None:
            self._take_note(heading)
            if not heading.exact:
                why.append("a heading")
            return heading
        if not marks.is_note(content, bracketed=True):
            why.append("sung words without brackets")
            return f" {content} "
        why.append(f'"{content}" is a remark')
        self._hint(content)
        return ""

    def _again(self, times: int) -> str:
        """Note a repeat mark; it leaves no words. What it repeats is told where that is known."""
        self._reading.times = min(times, _MOST_LINE_REPEATS)
        if times == 1:
            self._reading.why.append("sung once")
        return ""

    def _add_heading(self, heading: Heading, reason: str) -> None:
        self._reading.why.append(reason)
        self._take_note(heading)
        self._reading.marks.append(heading)

    def _take_note(self, heading: Heading) -> None:
        if heading.note and marks.is_note(heading.note):
            self._hint(heading.note)

    def _hint(self, note: str) -> None:
        plain = re.sub(r"[\[\]*_]", "", note).strip()
        if 1 < len(plain) <= 200 and plain.lower() not in ("music", "musik", "musica"):
            self.hints.append(plain)

    def _add_words(self, text: str) -> None:
        """Add lyric lines without notes and marks; a repeated line is written out."""
        reading = self._reading
        if not text.strip(" ;"):
            if reading.times > 1:
                reading.marks.append(Again(reading.times))
                reading.times = 1
            return
        words = self._without_times(text.strip())
        words = self._without_times(_INNER.sub(self._read_inner, words).strip())
        bare = re.sub(r"[()*_`|\\]", " ", words)
        if bare != words:
            reading.why.append("marks removed")
        words = marks.mend_marks(bare, reading.why)
        lines = [line for part in words.split(".") if (line := part.strip(" "))]
        sung = [line for line in lines if any(map(str.isalnum, line))]
        if len(sung) < len(lines) or (not sung and reading.times == 1):
            reading.why.append("nothing to sing")
        sung = [short for line in sung for short in self._split(line)]
        if not sung and reading.times > 1:
            reading.marks.append(Again(reading.times))
        elif reading.times > 1:
            self._spare -= sum(map(len, sung)) * (reading.times - 1)
            reading.times = reading.times if self._spare > 0 else 1
            too_long = "" if reading.times > 1 else ", the lyrics would become too long"
            reading.why.append(f"sung {often(reading.times)}{too_long}")
        reading.marks += sung * reading.times
        reading.times = 1

    def _without_times(self, words: str) -> str:
        """Take the repeat marks off the end of a line."""
        words, times = marks.take_times_at_end(words)
        while times:
            self._again(times)
            words, times = marks.take_times_at_end(words)
        return words

    def _read_inner(self, match: re.Match[str]) -> str:
        """What stays of `(content)` or `*content*`: words are sung by others, notes are not."""
        content = (match[1] or match[3] or "").strip()
        why = self._reading.why
        if match[1] is not None and (times := marks.is_repeat_mark(content)):
            return self._again(times)
        if marks.is_chord(content) and content != "A":
            why.append(f"chord {content}")
            return ""
        heading = heading_of_line(content, True, True)
        if marks.is_note(content) or (heading and not heading[0].tag.startswith(("verse", "chorus"))):
            why.append(f'"{content}" is a remark')
            self._hint(content)
            return " "
        if match[1] is None:
            why.append("Markdown or numbering")
            return content
        why.append("background vocals without brackets")
        at_end = match.end() == len(match.string) and match.start() > 1
        before = match.string[match.start() - 2 : match.start()]
        return f", {content}" if at_end and before[:1].isalnum() and before[1:] == " " else content

    def _split(self, line: str) -> list[str]:
        """A long line in parts, at punctuation if there is any."""
        parts = []
        while len(line) > _LONGEST_LINE:
            ends = [match.end() for match in re.finditer(r"[,!?:](?=.)", line[:_LONGEST_LINE])]
            ends = ends or [match.end() for match in re.finditer(" ", line[:_LONGEST_LINE])]
            end = min(ends, key=lambda place: abs(place - _LONGEST_LINE * 0.6), default=_LONGEST_LINE)
            parts.append(line[:end].strip(" "))
            line = line[end:].strip(" ")
        if parts:
            self._reading.why.append("a long line was split")
        return [*parts, line] if line else parts


def _without_brackets(row: str) -> str:
    """`(Chorus):`, `(Chorus) x2` and `(2x) Chorus` as they are typed without brackets."""
    if (match := _HEADING_AND_TIMES.fullmatch(row)) and (times := marks.is_repeat_mark(match[2])):
        return f"{match[1].strip(' :')} x{times}"
    if (match := _TIMES_AND_HEADING.fullmatch(row)) and (times := marks.is_repeat_mark(match[1])):
        return f"{match[2].strip(' :')} x{times}"
    return row.strip("()*_: ")
