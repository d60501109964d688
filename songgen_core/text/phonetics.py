"""A line of lyrics -> the syllables to sing: lexicon first, then rules, so that no word is lost.

Read are English and other languages in Latin letters, Chinese by its characters, Japanese kana and figures.
"""

import gzip
import logging
import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path

from ..errors import CheckpointError
from .east_asian import kana_syllables, pinyin_syllable
from .letters import sound_out, spell_out
from .numerals import chinese_number, english_number, english_ordinal
from .syllables import CMU_PHONES, CONSONANTS, PHONES, VOWELS, Syllable, syllabify

__all__ = ["CONSONANTS", "LEXICON_NAME", "PHONES", "VOWELS", "Lexicon", "Syllable"]

log = logging.getLogger("songgen")

LEXICON_NAME = "lexicon.txt.gz"
SECTIONS = ("[english]", "[pinyin]", "[phrases]")
LONGEST_PHRASE = 4
_MOST_KNOWN = 50_000  # words whose reading is kept

_PIECE = re.compile(
    r"(?P<number>\d+(?:,\d{3})*)(?:(?P<ordinal>st|nd|rd|th)\b)?"
    r"|(?P<latin>[a-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0300-\u036f\u1e00-\u1eff']+)"
    r"|(?P<han>[\u3005\u3007\u3400-\u9fff]+)|(?P<kana>[\u3041-\u3096\u30a1-\u30fa\u30fc]+)"
    r"|(?P<sign>[&@+%])|(?P<other>(?:(?![a-z\u3005\u3007\u3400-\u9fff\u3041-\u3096\u30a1-\u30fa])[^\W\d_])+)",
    re.IGNORECASE,
)
_SIGNS = {"&": "and", "@": "at", "+": "plus", "%": "percent"}
_NOT_DECOMPOSED = str.maketrans({"ß": "ss", "æ": "ae", "ø": "o", "œ": "oe", "ł": "l", "đ": "d", "ı": "i"})
_NOT_DECOMPOSED |= str.maketrans({"þ": "th", "ð": "th", "ŋ": "ng"})
_ENDINGS = {"'ll": "AH L", "'re": "ER", "'ve": "V", "'d": "D", "'m": "M", "ing": "IH NG", "in": "IH N"}
_VOICELESS = ("P", "T", "K", "F", "TH")
_HISSING = ("S", "Z", "SH", "ZH", "CH", "JH")


class Lexicon:
    """Pronunciations of words and characters; every other word is read by rules.

    `english` maps lower-case words to CMU phones, `pinyin` one character to toneless pinyin, `phrases`
    several characters to the pinyin of each, where it is another than in general.
    """

    def __init__(
        self,
        english: Mapping[str, str],
        pinyin: Mapping[str, str] | None = None,
        phrases: Mapping[str, str] | None = None,
    ) -> None:
        self.english, self.pinyin, self.phrases = english, pinyin or {}, phrases or {}
        self._known: dict[tuple[str, bool], tuple[Syllable, ...]] = {}

    @classmethod
    def read(cls, path: Path) -> "Lexicon":
        """Read a file that `training/lexicon.py` wrote. Raises CheckpointError."""
        try:
            text = "\n" + gzip.decompress(path.read_bytes()).decode("utf-8") + "\n"  # all lines whole
            first, second, third = (text.index(f"\n{name}\n") for name in SECTIONS)
            english = _pairs(text[first:second])
            if unknown := {phone for said in english.values() for phone in said.split()} - CMU_PHONES:
                raise ValueError(f"unknown phones: {' '.join(sorted(unknown)[:5])}")
            syllables, phrases = _pairs(text[second:third]), _pairs(text[third:])
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise CheckpointError(
                f"{path} is no lexicon ({error}); use the {LEXICON_NAME} that comes with a model"
            ) from error
        return cls(english, {char: name for name, chars in syllables.items() for char in chars}, phrases)

    def syllables(self, line: str) -> list[Syllable]:
        """Syllables of a lyric line in the order they are sung; punctuation is silent.

        Letters of a script that cannot be read are left out, with a warning in the log that names them.
        """
        line = unicodedata.normalize("NFKC", line.translate({0x2018: "'", 0x2019: "'"}))
        # One accented letter tells that words unknown to the lexicon are not English.
        foreign = any(_plain_letters(match["latin"] or "")[1] for match in _PIECE.finditer(line))
        chinese = any(match["han"] or match["kana"] for match in _PIECE.finditer(line))
        sung: list[Syllable] = []
        unread: list[str] = []
        for match in _PIECE.finditer(line):
            if match["number"]:
                sung += self._number(match["number"].replace(",", ""), match["ordinal"], chinese)
            elif match["latin"]:
                sung += self._word(match["latin"], foreign)
            elif match["han"]:
                sung += self._characters(match["han"], unread)
            elif match["kana"]:
                sung += kana_syllables(match["kana"])
            elif match["sign"]:
                sung += self._word(_SIGNS[match["sign"]], False)
            else:
                unread.append(match["other"])
        if unread:
            log.warning('"%s" cannot be read and is not sung', " ".join(unread))
        return sung

    def _number(self, digits: str, ordinal: str | None, chinese: bool) -> Iterator[Syllable]:
        if chinese and not ordinal:
            yield from filter(None, map(pinyin_syllable, chinese_number(digits)))
            return
        for word in english_ordinal(digits) if ordinal else english_number(digits):
            yield from self._word(word, False)

    def _characters(self, text: str, unread: list[str]) -> Iterator[Syllable]:
        """Longest phrase first; a character that nobody knows goes to `unread`."""
        text = re.sub("(.)々", r"\1\1", text)
        place = 0
        while place < len(text):
            sizes = range(min(LONGEST_PHRASE, len(text) - place), 1, -1)
            size = next((n for n in sizes if text[place : place + n] in self.phrases), 1)
            chars = text[place : place + size]
            names = self.phrases[chars].split() if size > 1 else [self.pinyin.get(chars, "")]
            found = [syllable for syllable in map(pinyin_syllable, names) if syllable]
            if not found:
                unread.append(chars)
            yield from found
            place += size

    def _word(self, typed: str, foreign: bool) -> tuple[Syllable, ...]:
        key = (typed, foreign)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[key] = tuple(self._read_word(typed, foreign))
        return known

    def _read_word(self, typed: str, foreign: bool) -> list[Syllable]:
        word, accented = _plain_letters(typed)
        bare = word.strip("'")
        if not bare:
            return []
        phones = self._look_up(word, bare)
        if phones is None:
            letters = bare.replace("'", "")
            if typed.isupper() and len(letters) <= 5 and not set(letters) & set("aeiouy"):
                phones = spell_out(letters)
            else:
                phones = sound_out(letters, plain=accented or foreign)
        return syllabify(phones)

    def _look_up(self, word: str, bare: str) -> list[str] | None:
        """Phones of a word that the lexicon has as it is, drawn out ("sooo"), or with an ending."""
        for form in (word, bare, *_not_drawn_out(bare)):
            if form in self.english:
                return self.english[form].split()
        return self._look_up_stem(bare)

    def _look_up_stem(self, word: str) -> list[str] | None:
        for ending, phones in _ENDINGS.items():
            if word.endswith(ending) and (stem := self._stem(word.removesuffix(ending), ending)):
                return [*stem, *phones.split()]
        if word.endswith("s") and (stem := self._stem(word[:-1].removesuffix("'"), "s")):
            return [*stem, *(["IH", "Z"] if stem[-1] in _HISSING else "S" if stem[-1] in _VOICELESS else "Z")]
        if word.endswith("ed") and (stem := self._stem(word[:-2], "ed")):
            return [*stem, *(["IH", "D"] if stem[-1] in "TD" else "T" if _is_voiceless(stem[-1]) else "D")]
        return None

    def _stem(self, stem: str, ending: str) -> list[str] | None:
        """Phones of what an ending was put to: "sing", "lov(e)", "run(n)"; short stems are chance."""
        forms = [stem]
        if ending in ("ing", "in", "ed"):
            forms += [stem + "e", stem[:-1] if stem[-2:-1] == stem[-1:] else stem]
        shortest = 2 if ending == "s" else 3
        form = next((f for f in forms if len(f) >= shortest and f in self.english), None)
        return self.english[form].split() if form else None


def _is_voiceless(phone: str) -> bool:
    return phone in (*_VOICELESS, "S", "SH", "CH")


def _not_drawn_out(word: str) -> list[str]:
    """What "sooo", "yeahhh", "sleeep" may stand for: runs of three letters and more as one, and as two."""
    if not re.search(r"(.)\1\1", word):
        return []
    forms = [re.sub(r"(.)\1{2,}", shorter, word) for shorter in (r"\1", r"\1\1")]
    # At the end one letter is the likely spelling ("so"), elsewhere two ("sleep").
    return forms if word[-3:] == word[-1] * 3 and word[-1] != "e" else forms[::-1]


def _pairs(section: str) -> dict[str, str]:
    """`name value` of each line with a value. One line at a time: a list of all would leave holes in Python's
    memory, and a server that loads one model after the other would grow."""
    pairs = (line.rstrip("\n").partition(" ") for line in StringIO(section))
    return {name: value for name, _, value in pairs if value}


def _plain_letters(typed: str) -> tuple[str, bool]:
    """The word in the letters a to z and apostrophes, and whether it had others."""
    lower = typed.lower()
    letters = lower.replace("ñ", "ny").translate(_NOT_DECOMPOSED)
    letters = "".join(c for c in unicodedata.normalize("NFD", letters) if "a" <= c <= "z" or c == "'")
    return letters, not lower.isascii()
