"""Tokenizers of models that read phones (the mini model): lyrics by their sounds, descriptions by keywords.

    id      0 .. 279    phone x number of its syllable in the song mod 8
          280           end of a lyric line
          281 .. 327    keywords: gender, genre, emotion, instrument, tempo, key
          328 ..        the special tokens that every tokenizer has, then structure or musicality tags

The number tells a model which of two equal sounds comes next. Lyrics and description share one word list, as
they share one id for padding.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from math import log

from .lyrics import STRUCTURE_TAGS
from .musical_key import KEYS, find_key
from .phonetics import CONSONANTS, VOWELS, Lexicon, Syllable
from .special_tokens import IM_START, MUSICALITY_TAGS, QWEN_TOKENS

SYLLABLE_CYCLE = 8
SUNG_PHONES = (*VOWELS, *CONSONANTS)  # silence is not written
FRAMES_PER_BEAT = range(10, 21)  # at 25 frames a second: 150 down to 75 beats per minute
FRAMES_PER_MINUTE = 1500

# Keyword of the model = words of a description that mean it. Of each kind the first one found counts.
KEYWORDS: dict[str, dict[str, str]] = {
    "gender": {"female": "female|woman|girl|soprano|alto", "male": "male|man|boy|tenor|baritone"},
    "genre": {
        "pop": "pop|indie pop|k pop|c pop|j pop|mandopop|britpop|folk|country|bluegrass|singer songwriter"
        "|acoustic|latin|reggae|funk|chinese style|celtic|world music",
        "rock": "rock|rock and roll|alternative rock|hard rock|folk rock|pop rock|indie rock|post rock"
        "|progressive rock|indie|metal|heavy metal|punk|grunge|emo|blues|ska|psychedelic|garage",
        "electronic": "electronic|edm|dance|dancehall|electropop|synth pop|synthpop|synthwave|new wave|house"
        "|deep house|techno|trance|trap|trip hop|dubstep|drum and bass|disco|hip hop|hiphop|rap|lo fi"
        "|reggaeton|afrobeat",
        "ballad": "ballad|lullaby|soul|neo soul|r&b|gospel|classical|opera|soundtrack|ambient|new age"
        "|chillout",
    },
    "emotion": {
        "happy": "happy|joyful|cheerful|uplifting|energetic|euphoric|playful|carefree|hopeful|inspiring"
        "|triumphant|confident|proud|loving|romantic|peaceful|relaxed",
        "sad": "sad|melancholic|melancholy|lonely|heartbroken|nostalgic|bittersweet|sentimental|wistful"
        "|emotional|mysterious|haunting|dark|anxious|tense|angry|aggressive|dramatic",
    },
    "instrument": {
        "piano": "piano|electric piano|keyboard|harpsichord|vibraphone|xylophone|marimba|bells",
        "guitar": "guitar|guitars|acoustic guitar|electric guitar|steel guitar|ukulele|banjo|mandolin"
        "|harp|guzheng|pipa|sitar",
        "synthesizer": "synthesizer|synth|synths|synth bass|organ|accordion|harmonica",
        "strings": "strings|synth pad|violin|viola|cello|double bass|erhu|orchestra|choir",
    },
}
END_OF_LINE = "<end of line>"
WORDS: tuple[str, ...] = (
    *(f"{phone}{k}" for phone in SUNG_PHONES for k in range(SYLLABLE_CYCLE)),
    END_OF_LINE,
    *(f"{kind}: {word}" for kind, words in KEYWORDS.items() for word in words),
    *(f"tempo: {frames} frames a beat" for frames in FRAMES_PER_BEAT),
    *(f"key: {key}" for key in KEYS),
)

_IDS = {word: number for number, word in enumerate(WORDS)}
_LYRICS = re.compile(r"\[(?P<tag>[^\[\]]*)\]|(?P<line>[^\[\].;]+)")
_BRACKETS = re.compile(r"\[[^\[\]]*\]")
_BPM = re.compile(r"(?:bpm|tempo)(?: is| of|:|=)? ?(\d+(?:\.\d+)?)|(?<![\w.])(\d+(?:\.\d+)?) ?bpm\b")


class PhoneLyrics:
    """Lyrics to phones: `encode(text)` gives the ids behind the start token."""

    pad_id = len(WORDS)

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self._special = _ids_behind_words((*QWEN_TOKENS, *(f"[{tag}]" for tag in STRUCTURE_TAGS)))

    @property
    def size(self) -> int:
        return len(WORDS) + len(self._special)

    def encode(self, text: str | None) -> list[int]:
        """Ids of `[tag] Line one. Line two. ; [tag] ...`, the start token first; None is 'no text'.

        Each line ends in END_OF_LINE, with or without a full stop; a line without a sound is nothing.
        """
        ids, sung = [self._special[IM_START]], 0
        for match in _LYRICS.finditer(text or ""):
            if match["tag"] in STRUCTURE_TAGS:
                ids.append(self._special[match[0]])
                continue
            syllables = self.lexicon.syllables(match["tag"] or match["line"] or "")
            ids += line_ids(syllables, sung)
            sung += len(syllables)
        return ids


class KeywordDescription:
    """Descriptions to keywords: `encode(text)` gives the ids behind the start token.

    Musicality tags come first, in the order written; then at most one keyword of each kind, in the order of
    WORDS. Everything else is left out.
    """

    pad_id = len(WORDS)

    def __init__(self, musicality: bool) -> None:
        self._special = _ids_behind_words((*QWEN_TOKENS, *(MUSICALITY_TAGS if musicality else ())))

    @property
    def size(self) -> int:
        return len(WORDS) + len(self._special)

    def encode(self, text: str | None) -> list[int]:
        """Ids of `[Musicality-very-high], female, pop, the bpm is 120.`; None is 'no text'."""
        tags = [self._special[tag] for tag in _BRACKETS.findall(text or "") if tag in self._special]
        keywords = find_keywords(_BRACKETS.sub(",", text or ""))
        return [self._special[IM_START], *tags, *(_IDS[word] for word in keywords)]


def phone_id(phone: str, syllable: int) -> int:
    """Id of a phone in the syllable of that number, counted from 0 through the song."""
    return _IDS[f"{phone}{syllable % SYLLABLE_CYCLE}"]


def line_ids(syllables: Iterable[Syllable], first: int) -> list[int]:
    """Ids of one lyric line whose first syllable has the number `first`; none for a line without any."""
    numbered = enumerate(syllables, first)
    ids = [phone_id(phone, number) for number, syllable in numbered for phone in syllable.phones]
    return [*ids, _IDS[END_OF_LINE]] if ids else []


def find_keywords(description: str) -> list[str]:
    """Entries of WORDS that a description asks for, at most one of each kind, in their order."""
    text = " ".join(description.lower().replace("-", " ").split())
    pattern, meanings = _keyword_pattern()
    first: dict[str, str] = {}
    for word in pattern.findall(text):
        kind, keyword = meanings[word]
        first.setdefault(kind, f"{kind}: {keyword}")
    found = [first[kind] for kind in KEYWORDS if kind in first]
    if match := _BPM.search(text):
        found.append(f"tempo: {frames_per_beat(float(match[1] or match[2]))} frames a beat")
    if key := find_key(text):
        found.append(f"key: {key}")
    return found


def frames_per_beat(bpm: float) -> int:
    """Frames of the nearest tempo that the model knows; half and double time count as the same."""
    slowest, fastest = (FRAMES_PER_MINUTE / FRAMES_PER_BEAT[end] for end in (-1, 0))
    bpm = min(max(bpm, 1.0), 1e4)
    while bpm < slowest * 0.96:
        bpm *= 2
    while bpm > fastest * 1.04:
        bpm /= 2
    return min(FRAMES_PER_BEAT, key=lambda frames: abs(log(bpm * frames / FRAMES_PER_MINUTE)))


def _ids_behind_words(tokens: tuple[str, ...]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens, len(WORDS))}


@lru_cache(maxsize=1)
def _keyword_pattern() -> tuple[re.Pattern[str], dict[str, tuple[str, str]]]:
    """Finds every word of KEYWORDS, the longest first: "synth pop" is neither synth nor pop."""
    meanings = {
        word: (kind, keyword)
        for kind, keywords in KEYWORDS.items()
        for keyword, words in keywords.items()
        for word in words.split("|")
    }
    longest_first = sorted(meanings, key=len, reverse=True)
    return re.compile(rf"(?<![\w&])(?:{'|'.join(map(re.escape, longest_first))})(?![\w&])"), meanings
