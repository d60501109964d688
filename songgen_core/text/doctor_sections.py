"""Sections out of headings and lyric lines: what is missing is filled in, and told."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise

from .doctor_headings import TAGS, Heading
from .lyrics import VOCAL_TAGS

_MOST_REPEATS = 4
_LONGEST_VERSE = 8
_SHINGLE = 5


@dataclass(frozen=True)
class Change:
    """One thing that was mended: line of the original text from 1, what was there, what it became."""

    line: int
    before: str
    after: str

    def __str__(self) -> str:
        """Return `line 3: "[Verse 1]" became [verse] (a heading)` in one line."""
        before, after = _short(self.before), _short(self.after, 160)
        if after.startswith(("removed", "moved", "added", "means")):
            return f'line {self.line}: "{before}" {after}' if before else f"line {self.line}: {after}"
        return f'line {self.line}: "{before}" became {after}'


@dataclass(frozen=True)
class Row:
    """A line of text, its number in the original, and what was already taken off it."""

    number: int
    text: str
    before: str = ""
    why: str = ""

    @property
    def source(self) -> str:
        """The line as it was typed."""
        return (self.before or self.text).strip()


@dataclass(frozen=True)
class Again:
    """The section before is sung so many times in all; why its row is not what it was."""

    times: int
    why: str = ""


Mark = Heading | Again | str


@dataclass
class _Part:
    """A section that is being made; without a tag it is a paragraph of which nobody said what it is."""

    number: int
    kind: str = ""
    tag: str = ""
    times: int = 1
    lines: list[Row] = field(default_factory=list)
    source: str = ""
    exact: bool = False
    guessed: bool = False
    apart: bool = False  # a blank row follows its first line
    repeated: bool = False  # by what stands in its heading
    asked: list[int] = field(default_factory=list)  # changes that tell of repeat marks on rows of their own

    @property
    def place(self) -> tuple[int, str]:
        """Where it begins: number and text of the row."""
        return self.number, self.source

    @property
    def was(self) -> str:
        """The tag that the heading was read as."""
        return TAGS.get(self.kind, self.tag)

    @property
    def is_sung(self) -> bool:
        return self.tag in VOCAL_TAGS


class Sections:
    """Collects what the rows of a text became and makes sections of it."""

    def __init__(self, changes: list[Change], spare: int, *, titled: bool) -> None:
        self._changes = changes
        self._titled = titled
        self._spare = spare  # characters that repetitions may add
        self._parts: list[_Part] = []
        self._blank = False
        self._told: dict[tuple[int, str], int] = {}

    def add(self, row: Row, found: list[Mark]) -> None:
        """Take the marks of one row; a row without marks is a blank one."""
        if not found:
            self._blank = True
            if self._parts and len(self._parts[-1].lines) == 1 and not row.text.strip():
                self._parts[-1].apart = True
        for mark in found:
            if isinstance(mark, Heading):
                times = min(mark.times, _MOST_REPEATS)
                part = _Part(row.number, mark.kind, mark.tag, times)
                self._parts.append(replace(part, source=row.source, exact=mark.exact, repeated=times > 1))
            elif isinstance(mark, Again):
                self._repeat(row, mark)
            else:
                self._add_line(row, mark)
            self._blank = False

    def _repeat(self, row: Row, again: Again) -> None:
        part = self._parts[-1] if self._parts else None
        if part:
            part.times = min(again.times, _MOST_REPEATS)
        if part and part.place == (row.number, row.source):
            part.repeated = True
        else:
            reasons = f"{again.why}, " if again.why else ""
            self._changes.append(Change(row.number, row.source, f"removed ({reasons}nothing to repeat)"))
            if part:
                part.asked.append(len(self._changes) - 1)

    def _add_line(self, row: Row, words: str) -> None:
        last = self._parts[-1] if self._parts else None
        if last is None or (last.tag and not last.is_sung) or (not last.tag and self._blank):
            last = _Part(row.number, source=row.source)
            self._parts.append(last)
        last.lines.append(Row(row.number, words))

    def rows(self) -> list[Row]:
        """Return the typed form: a tag, its lines, a blank row between sections."""
        self._told = {(change.line, change.before): i for i, change in enumerate(self._changes)}
        self._drop_title()
        self._move_outros()
        self._parts = list(self._without_empty_doubles())
        self._name_paragraphs()
        self._fill()
        self._tell_repeats()
        rows: list[Row] = []
        for part in self._parts:
            for _ in range(part.times):
                rows += [Row(part.number, "")] if rows else []
                rows += [Row(part.number, f"[{part.tag}]"), *part.lines]
        return rows

    def _note(self, part: _Part, after: str) -> None:
        change = Change(part.number, part.source, after)
        # What was said of the heading when it was read is told once, with how it ended.
        told = self._told.get(part.place)
        if told is not None and self._changes[told].after.startswith(f"[{part.was}] ("):
            self._changes[told] = change
        else:
            self._told[change.line, change.before] = len(self._changes)
            self._changes.append(change)

    def _tell_repeats(self) -> None:
        """Say how often a section comes, beside the mark or the heading that asked for it."""
        for part in self._parts:
            if part.times == 1:
                continue
            how = f"{'sung' if part.is_sung else 'played'} {often(part.times)}"
            self._answer(part, f"means that [{part.tag}] is {how}")
            told = self._told.get(part.place)
            if part.repeated and told is None:
                self._note(part, f"[{part.tag}], {how}")
            elif part.repeated and told is not None:
                alone = sum(other.place == part.place for other in self._parts) == 1
                tag = "" if alone else f"[{part.tag}] "
                change = self._changes[told]
                self._changes[told] = replace(change, after=f"{change.after}, {tag}{how}")

    def _answer(self, part: _Part, after: str) -> None:
        """Say what became of the repeat marks below a section."""
        for index in part.asked:
            self._changes[index] = replace(self._changes[index], after=after)

    def _drop_title(self) -> None:
        """One line alone above the first heading is the name of the song."""
        first = self._parts[:2]
        if self._titled and len(first) == 2 and not first[0].tag and first[1].tag and first[0].apart:
            title = self._parts.pop(0)
            self._note(title, "removed (it looks like the title)")

    def _without_empty_doubles(self) -> Iterable[_Part]:
        """A heading directly before one that means the same, and a second outro, say nothing new."""
        seen: set[str] = set()
        for index, part in enumerate(self._parts):
            after = self._parts[index + 1] if index + 1 < len(self._parts) else None
            before = self._parts[index - 1] if index else None
            same = after is not None and after.kind == part.kind
            new = after is not None and bool(after.lines) and part.kind not in seen
            told = after is not None and "repeat" in after.source.lower()
            doubled = part.is_sung and not part.lines and same and (new or told)
            ended = part.kind == "outro" and before is not None and before.kind == "outro"
            seen |= {part.kind} if part.lines else set()
            if doubled or (ended and not part.exact):
                self._note(part, "removed (the same heading twice)")
            else:
                yield part

    def _move_outros(self) -> None:
        """An outro with words is sung first and ends without words."""
        for index in range(len(self._parts) - 1, -1, -1):
            part = self._parts[index]
            if part.kind != "outro":
                continue
            end = index + 1
            while end < len(self._parts) and not self._parts[end].tag:
                end += 1
            if end > index + 1:
                self._parts[index:end] = [*self._parts[index + 1 : end], part]
                self._note(part, "moved behind the words below it")

    def _name_paragraphs(self) -> None:
        """Give every paragraph without a heading its tag."""
        guess = not any(part.is_sung for part in self._parts)
        if guess:
            self._parts = list(_joined(self._parts))
            self._find_choruses()
        else:
            self._parts = list(_joined(self._parts, always=True))
        named: list[_Part] = []
        for part in self._parts:
            if part.tag and not part.guessed:
                named.append(part)
                continue
            pieces = _cut(part) if guess and part.tag != "chorus" else [part]
            for piece in pieces:
                piece.tag = piece.kind = piece.tag or "verse"
                self._changes.append(
                    Change(piece.number, "", f'added [{piece.tag}] above "{piece.lines[0].text}"')
                )
            named += pieces
        self._parts = named

    def _find_choruses(self) -> None:
        """What comes again is the chorus; a single other paragraph after the second one is the bridge."""
        loose = [part for part in self._parts if not part.tag]
        groups = _groups(["".join(line.text for line in part.lines) for part in loose])
        sizes = Counter(groups)
        if loose and min(sizes.values()) > 1:
            # Everything comes again: then only the part that does so most often is the chorus.
            sizes = Counter(dict(sizes.most_common(1)))
        choruses = [index for index, group in enumerate(groups) if sizes[group] > 1]
        for index in choruses:
            loose[index].tag = "chorus"
        rest = [i for i in range(len(loose)) if len(choruses) > 1 and i > choruses[1] and i not in choruses]
        if len(rest) == 1:
            loose[rest[0]].tag = "bridge"
        for part in loose:
            part.guessed = True

    def _fill(self) -> None:
        """Sections that are sung need words: those of the earlier one of their kind, else they are played."""
        words: dict[str, list[Row]] = {}
        for part in self._parts:
            if part.is_sung and not part.lines:
                known = _earlier_words(part, words)
                if part.kind in ("verse", "bridge") or not known or not self._can_spare(known):
                    part.tag = "inst-medium" if part.kind == "drop" else "inst-short"
                    self._note(part, f"[{part.tag}] (there are no words for it)")
                else:
                    part.lines = [replace(line, number=part.number) for line in known]
                    self._note(part, f"[{part.tag}] with the words of the earlier one")
            elif part.lines:
                words.setdefault(part.kind, part.lines)
            if part.times > 1 and not all(self._can_spare(part.lines) for _ in range(part.times - 1)):
                part.times = 1
                self._note(part, f"[{part.tag}] once (the lyrics would become too long)")
                self._answer(part, "removed (the lyrics would become too long)")

    def _can_spare(self, lines: list[Row]) -> bool:
        self._spare -= 10 + sum(len(line.text) + 1 for line in lines)
        return self._spare > 0


def often(times: int) -> str:
    """Say a number of times."""
    return {1: "once", 2: "twice"}.get(times, f"{times} times")


def _earlier_words(part: _Part, words: dict[str, list[Row]]) -> list[Row]:
    """The first words of the kind of a section; a chorus has those of a chorus before any that lead on."""
    if part.kind == "drop":
        return []
    kinds = (part.kind, "chorus", "post", "drop") if part.tag == "chorus" else (part.kind,)
    return next((words[kind] for kind in kinds if kind in words), [])


def _joined(parts: list[_Part], always: bool = False) -> Iterable[_Part]:
    """Paragraphs of one line each are a text with blank rows between the lines, not as many sections."""
    for alone, group in groupby(parts, key=lambda part: bool(part.tag) or part.times > 1):
        run = list(group)
        if not alone and (always or (len(run) > 4 and all(len(part.lines) == 1 for part in run))):
            run = [replace(run[0], lines=[line for part in run for line in part.lines])]
        yield from run


def _cut(part: _Part) -> list[_Part]:
    """Verses of 4 to 8 lines."""
    count = math.ceil(len(part.lines) / _LONGEST_VERSE)
    if count < 2:
        return [part]
    edges = [round(len(part.lines) * index / count) for index in range(count + 1)]
    pieces = [part.lines[begin:end] for begin, end in pairwise(edges)]
    return [replace(part, number=lines[0].number, lines=lines) for lines in pieces]


def _groups(texts: list[str]) -> list[int]:
    """A number for each text, the same for those that are nearly alike; linear in their length."""
    owners: dict[str, int] = {}
    sizes: list[int] = []
    groups = []
    for index, text in enumerate(texts):
        plain = "".join(filter(str.isalnum, text.casefold()))
        pieces = {plain[i : i + _SHINGLE] for i in range(max(1, len(plain) - _SHINGLE + 1))}
        sizes.append(len(pieces))
        shared = Counter(owners[piece] for piece in pieces if piece in owners)
        owner, count = shared.most_common(1)[0] if shared else (index, 0)
        alike = count >= 0.6 * max(len(pieces), sizes[owner]) if count else False
        groups.append(owner if alike else index)
        for piece in pieces:
            owners.setdefault(piece, groups[-1])
    return groups


def _short(text: str, length: int = 60) -> str:
    plain = "".join(char if char.isprintable() else " " for char in text)
    return plain if len(plain) <= length else plain[: length - 1] + "…"
