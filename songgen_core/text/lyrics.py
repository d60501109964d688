"""Lyrics in the LeVo lyric format: sections that begin with a structure tag, in the order they are sung.

The model reads one line of text, `[intro-short] ; [verse] Line one. Line two. ; [chorus] ...`. People type
the same song with the tag on a line of its own and the lyric lines below it. Both are read here, and
everything that the model could not sing is refused with its place and its remedy: nothing is dropped.
"""

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from ..errors import LyricsError

_LENGTHS = ("short", "medium", "long")
VOCAL_TAGS: tuple[str, ...] = ("verse", "chorus", "bridge")
INSTRUMENTAL_TAGS: tuple[str, ...] = (
    *(f"intro-{length}" for length in _LENGTHS),
    *(f"outro-{length}" for length in _LENGTHS),
    *(f"inst-{length}" for length in _LENGTHS),
    "silence",
)
# The order is that of the model's vocabulary: the position is also the index of the structure embedding.
STRUCTURE_TAGS: tuple[str, ...] = (*VOCAL_TAGS, *INSTRUMENTAL_TAGS)
MAX_CHARACTERS = 20_000
LONGEST_SONG_SECONDS = 270.0

_SHORT_FORMS = {"intro": "intro-short", "inst": "inst-short", "outro": "outro-short"}
# Names that other song tools use and that no spelling distance would lead to the right tag.
_TAG_HINTS = {
    **dict.fromkeys(("hook", "refrain", "drop"), "chorus"),
    **dict.fromkeys(("solo", "interlude", "instrumental"), "inst-medium"),
    **dict.fromkeys(("ending", "end", "fade"), "outro-short"),
    "rap": "verse",
    "break": "inst-short",
}
_SECONDS_BY_LENGTH = {"short": 7.5, "medium": 15.0, "long": 25.0, "silence": 2.0}

_BLANKS = "[ \t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+"
_TOKEN = re.compile(r"\n|;|\[[^\[\]\n]*\]|[\[\]]|[^\n;\[\]]+")
_BROKEN_WORD = re.compile(r"\d\.\d|\b[A-Za-z]\.[A-Za-z]\b|\b(?:Mr|Mrs|Ms|Dr|St)\.(?= )")
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"  # part of words in Persian and Indic scripts, and of many emoji
_REPLACEMENTS = {
    **dict.fromkeys("。｡．…‥", "."),
    **dict.fromkeys("、､；\u037e", ","),
    **dict.fromkeys("“”„‟〝〞〟「」『』｢｣《》〈〉", '"'),
    **dict.fromkeys("‘’‚‛", "'"),
    **dict.fromkeys("—–―‐‑‒", "-"),
    **dict.fromkeys("〜～", "~"),
    **dict.fromkeys("【〔〖", "["),
    **dict.fromkeys("】〕〗", "]"),
    **dict.fromkeys("・･", "a blank"),
}


@dataclass(frozen=True)
class LyricsProblem:
    """One thing to mend: section number from 1 and its tag, typed line number from 1, and the remedy."""

    section: int | None
    tag: str | None
    line: int | None
    message: str

    def __str__(self) -> str:
        """Return place and remedy in one line, such as `section 2 [verse], line 4: ...`."""
        section = f"section {self.section} [{_printable(self.tag or '')}]" if self.section else ""
        line = f"line {self.line}" if self.line else ""
        place = ", ".join(part for part in (section, line) if part) or "lyrics"
        return f"{place}: {self.message}"


@dataclass(frozen=True)
class Section:
    """One part of a song: a tag from `STRUCTURE_TAGS` and its lyric lines without full stops.

    `source_line` and `source_lines` (from 1) tell where tag and lines were typed; they do not count in
    comparisons and are empty in sections that were not read from a text.
    """

    tag: str
    lines: tuple[str, ...] = ()
    source_line: int | None = field(default=None, compare=False)
    source_lines: tuple[int, ...] = field(default=(), compare=False)

    @property
    def is_vocal(self) -> bool:
        """Whether this section is sung."""
        return self.tag in VOCAL_TAGS

    @property
    def is_cjk(self) -> bool:
        """Whether the lines are Chinese or Japanese: at least a fifth of the characters are Han or kana."""
        text = "".join(self.lines).replace(" ", "")
        return _share(text, _is_han_or_kana) >= 0.2

    def numbered_lines(self) -> Iterator[tuple[int | None, str]]:
        """Yield each lyric line with the number of the line it was typed in, None where unknown."""
        for index, line in enumerate(self.lines):
            yield (self.source_lines[index] if index < len(self.source_lines) else None), line

    def format(self) -> str:
        """Return `[tag]` or `[tag] Line one. Line two.`; Chinese and Japanese as `[tag] line.line`."""
        if not self.lines:
            return f"[{self.tag}]"
        body = ".".join(self.lines) if self.is_cjk else ". ".join(self.lines) + "."
        return f"[{self.tag}] {body}"


@dataclass(frozen=True)
class Song:
    """Sections in the order they are sung; `notes` tell how doubtful places were read (not compared)."""

    sections: tuple[Section, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def parse(cls, text: str) -> "Song":
        """Read the one-line form or typed lyrics; raise LyricsError naming the first problem and its remedy.

        Tags may be in capitals and have blanks inside the brackets; `[intro]`, `[inst]` and `[outro]` mean
        their short forms. New lines and full stops end a lyric line, runs of blanks count as one.
        """
        song, problems = _read(text)
        _raise_first(problems)
        return song

    def format(self) -> str:
        """Return the model's one-line form; raise LyricsError where `validate` finds a problem."""
        self.check()
        return " ; ".join(section.format() for section in self.sections)

    def validate(self) -> list[LyricsProblem]:
        """Return everything that the model cannot sing, in the order of the song."""
        if not self.sections:
            return [
                LyricsProblem(None, None, None, "there are no lyrics; write a tag such as [verse] and lines")
            ]
        return [p for number, s in enumerate(self.sections, 1) for p in _section_problems(number, s)]

    def check(self) -> None:
        """Raise LyricsError with the first problem of `validate`, if there is one."""
        _raise_first(self.validate())

    def warnings(self) -> list[str]:
        """Return what can be sung but is unusual, one line each: look at it before spending minutes on it."""
        found = list(self.notes)
        if not any(section.is_vocal for section in self.sections):
            found.append("there is no [verse], [chorus] or [bridge]: nothing will be sung")
        seconds = estimate_seconds(self)
        if seconds > LONGEST_SONG_SECONDS:
            found.append(
                f"about {seconds:.0f} seconds of song, but the longest models stop at "
                f"{LONGEST_SONG_SECONDS:.0f}: the end may be missing; shorten the lyrics"
            )
        for number, section in enumerate(self.sections, 1):
            found += [str(problem) for problem in _section_oddities(number, section)]
        return found


def problems_in(text: str) -> list[LyricsProblem]:
    """Return every problem of typed lyrics where `Song.parse` raises the first; empty if it can be sung."""
    return _read(text)[1]


def estimate_seconds(song: Song) -> float:
    """Return a rule-of-thumb duration in seconds.

    A Chinese or Japanese line counts 3.5 s, any other line 4 s; an instrumental section 7.5 s (short),
    15 s (medium) or 25 s (long); `[silence]` 2 s.
    """
    total = 0.0
    for section in song.sections:
        total += len(section.lines) * (3.5 if section.is_cjk else 4.0)
        total += _SECONDS_BY_LENGTH.get(section.tag.rpartition("-")[2], 0.0)
    return total


def length_advice(song: Song, limit: float) -> list[str]:
    """A line of advice where lyrics by rule of thumb need more than `limit` seconds."""
    seconds = estimate_seconds(song)
    if seconds <= limit:
        return []
    return [f"the lyrics need about {seconds:.0f} s, the song stops at {limit:g} s and may lack its end"]


def detect_language(text: str) -> Literal["zh", "en"]:
    """Return `zh` if at least a fifth of all characters, tags included, are U+4E00-9FFF, else `en`."""
    return "zh" if _share(text, lambda char: "\u4e00" <= char <= "\u9fff") >= 0.2 else "en"


class _Reader:
    """Cuts a text into sections and notes what does not fit the format."""

    def __init__(self) -> None:
        self.sections: list[Section] = []
        self.problems: list[LyricsProblem] = []
        self.notes: list[str] = []
        self.line = 1
        self._semicolon = False
        self._untagged = False

    def read(self, text: str) -> None:
        """Consume the whole text, token by token."""
        for token in _TOKEN.findall(text):
            if token == "\n":
                self.line += 1
            elif token == ";":
                self._semicolon = True
            elif token in "[]":
                self._report(f'the bracket "{token}" has no partner; write tags like [verse], else remove it')
            elif token[0] == "[":
                self._open_section(token)
            elif words := squeeze(token):
                self._add_words(words)

    def _open_section(self, token: str) -> None:
        self._semicolon = False
        self.sections.append(Section(normal_tag(token[1:-1]), (), self.line))

    def _add_words(self, words: str) -> None:
        if self._semicolon:
            # Only a tag or the end may follow a separator; reading on would sing the words of a lost section.
            self._report(
                f'";" is followed by "{_printable(words)}" instead of a tag; put a tag such as [verse] '
                'there, or use "," if the semicolon belongs to the lyrics'
            )
            self._semicolon = False
        if not self.sections:
            self._add_untagged(words)
            return
        self._note_full_stops(words)
        section = self.sections[-1]
        lines = [line for part in words.split(".") if (line := squeeze(part))]
        numbers = section.source_lines + (self.line,) * len(lines)
        self.sections[-1] = Section(section.tag, (*section.lines, *lines), section.source_line, numbers)

    def _add_untagged(self, words: str) -> None:
        self.problems += _character_problems(None, None, self.line, words)
        if not self._untagged:
            self._report(
                f'"{_printable(words)}" stands before the first tag; put a tag such as [verse] above it'
            )
        self._untagged = True

    def _note_full_stops(self, words: str) -> None:
        if ".." in words:
            self.notes.append(f'line {self.line}: the full stops ".." are read as one end of line')
        for match in _BROKEN_WORD.finditer(words):
            self.notes.append(
                f'line {self.line}: the full stop in "{match.group()}" ends a lyric line there; '
                "spell the word out to keep it whole"
            )

    def _report(self, message: str) -> None:
        number = len(self.sections) or None
        tag = self.sections[-1].tag if self.sections else None
        self.problems.append(LyricsProblem(number, tag, self.line, message))


def _read(text: str) -> tuple[Song, list[LyricsProblem]]:
    """Return the song and its problems in the order of the text."""
    if len(text) > MAX_CHARACTERS:
        message = f"{len(text)} characters are too many; shorten the lyrics to {MAX_CHARACTERS} at most"
        return Song(()), [LyricsProblem(None, None, None, message)]
    reader = _Reader()
    reader.read(re.sub("\r\n?|\u2028|\u2029", "\n", text.removeprefix("\ufeff")))
    song = Song(tuple(reader.sections), tuple(reader.notes))
    problems = reader.problems
    if song.sections or not problems:
        problems += song.validate()
    return song, sorted(problems, key=lambda problem: problem.line or 0)


def _raise_first(problems: list[LyricsProblem]) -> None:
    if problems:
        more = len(problems) - 1
        rest = f" (and {more} more problem{'s' * (more > 1)})" if more else ""
        raise LyricsError(f"{problems[0]}{rest}")


def _section_problems(number: int, section: Section) -> list[LyricsProblem]:
    """Return what is wrong with one section; the content of an unknown section is not judged."""
    if section.tag not in STRUCTURE_TAGS:
        return [LyricsProblem(number, section.tag, section.source_line, _unknown_tag_message(section.tag))]
    if section.is_vocal and not any(map(str.isalnum, "".join(section.lines))):
        message = f"nothing to sing here; write at least one line below [{section.tag}] or remove the tag"
        return [LyricsProblem(number, section.tag, section.source_line, message)]
    problems = []
    if section.lines and not section.is_vocal:
        line, words = next(section.numbered_lines())
        message = (
            f'[{section.tag}] is not sung; move "{_printable(words)}" below a [verse], [chorus] or [bridge]'
        )
        problems.append(LyricsProblem(number, section.tag, line, message))
    for line, words in section.numbered_lines():
        problems += _shape_problems(number, section.tag, line, words)
        problems += _character_problems(number, section.tag, line, words)
    return problems


def _shape_problems(number: int, tag: str, line: int | None, words: str) -> list[LyricsProblem]:
    """Return what would make a line read back differently; only songs built in code can have it."""
    bad = next((char for char in ";.[]" if char in words), None)
    if bad is not None:
        message = f'"{bad}" inside "{_printable(words)}" would start another line or section; remove it'
    elif not words or words != squeeze(words):
        message = (
            f'"{_printable(words)}" is empty or has blanks at an end or in a row; keep one between words'
        )
    else:
        return []
    return [LyricsProblem(number, tag, line, message)]


def _character_problems(
    number: int | None, tag: str | None, line: int | None, words: str
) -> list[LyricsProblem]:
    """Return one problem for each kind of character that the model was not trained on."""
    messages = (_character_message(char) for char in dict.fromkeys(words))
    return [LyricsProblem(number, tag, line, message) for message in messages if message]


def _character_message(char: str) -> str:
    if char.isascii() and char.isprintable():
        return ""
    category = unicodedata.category(char)
    name = unicodedata.name(char, "unnamed").lower()
    if category in _INVISIBLE and char not in _JOINERS:
        return f"the invisible or control character U+{ord(char):04X} ({name}) cannot be sung; delete it"
    remedy = half_width(char, category)
    if not remedy:
        return ""
    shown = remedy if len(remedy) > 1 or remedy == '"' else f'"{remedy}"'
    return f'"{char}" ({name}) is full-width or typographic punctuation; use {shown} instead'


def half_width(char: str, category: str) -> str:
    """Return what to type instead of `char`, or nothing if it may stay."""
    if char in _REPLACEMENTS:
        return _REPLACEMENTS[char]
    if "\uff01" <= char <= "\uff5e":
        return chr(ord(char) - 0xFEE0)
    if category[0] == "P" and unicodedata.east_asian_width(char) in "WF":
        return "a half-width mark or a blank"
    return ""


def _section_oddities(number: int, section: Section) -> Iterator[LyricsProblem]:
    if section.tag == "silence" or section.tag.endswith("-long"):
        message = "the model knows this tag but it is seldom used; -short and -medium are safer"
        yield LyricsProblem(number, section.tag, section.source_line, message)
    for line, words in section.numbered_lines():
        for char in dict.fromkeys(words):
            if unicodedata.category(char) == "So":
                yield LyricsProblem(number, section.tag, line, f'"{char}" cannot be sung; remove it')


def normal_tag(typed: str) -> str:
    """Return the tag that `typed` means, or `typed` in lower case if it means none."""
    words = squeeze(typed).lower()
    for name in (words.replace(" ", ""), words.replace(" ", "-")):
        name = _SHORT_FORMS.get(name, name)
        if name in STRUCTURE_TAGS:
            return name
    return words


def _unknown_tag_message(tag: str) -> str:
    allowed = " ".join(f"[{name}]" for name in STRUCTURE_TAGS)
    nearest = _nearest_tag(tag)
    advice = f"did you mean [{nearest}]? Allowed" if nearest else "allowed"
    return f"[{_printable(tag)}] is not a structure tag; {advice}: {allowed}"


def _nearest_tag(tag: str) -> str | None:
    known = (*STRUCTURE_TAGS, *_SHORT_FORMS)
    near = difflib.get_close_matches(tag[:40].lower(), known, 1, 0.6)
    close = difflib.get_close_matches(tag[:40].lower(), near, 1, 0.8)
    # "guitar solo", "verse 1": one familiar word says more than a faint likeness of the whole.
    words = [word for word in re.findall("[a-z]+", tag.lower()) if word in (*known, *_TAG_HINTS)]
    best = [*close, *words, *near][:1]
    return next((_TAG_HINTS.get(name) or _SHORT_FORMS.get(name, name) for name in best), None)


def squeeze(text: str) -> str:
    """Return `text` with every run of blanks as one; control characters stay, so that they are reported."""
    return re.sub(_BLANKS, " ", text).strip(" ")


def _printable(text: str) -> str:
    """Return `text` fit for a message: at most 40 characters, one line, invisible characters as U+XXXX."""
    short = text if len(text) <= 40 else text[:39] + "…"
    return "".join(char if char.isprintable() else f"U+{ord(char):04X}" for char in short)


def _is_han_or_kana(char: str) -> bool:
    return "\u3040" <= char <= "\u30ff" or "\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff"


def _share(text: str, test: Callable[[str], bool]) -> float:
    return sum(map(test, text)) / len(text) if text else 0.0
