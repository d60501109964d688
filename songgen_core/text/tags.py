"""Description tags in the LeVo format: `female, dark, pop, sad, piano and drums, the bpm is 125.`

The model was trained on such lists of lower-case English keywords and not on sentences. Whatever is typed is
kept: known keywords go to their dimension, everything else stays in `extra`, and `warnings` tells about it.
"""

import difflib
import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache

from ..errors import UserError
from .musical_key import is_key_tag

BPM_MIN, BPM_MAX = 20, 300
# The model reads at most 100 tokens; a longer text is a mistake, such as lyrics in the wrong box.
MAX_CHARACTERS = 2_000


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


GENDER: tuple[str, ...] = ("female", "male")
TIMBRE: tuple[str, ...] = _words(
    "airy, bold, breathy, bright, clear, cold, crisp, dark, deep, delicate, full, gritty, hoarse, "
    "husky, light, mellow, nasal, powerful, raspy, raw, rich, rough, silky, smooth, soft, sweet, thin, "
    "vibrant, warm, whispery"
)
GENRE: tuple[str, ...] = _words(
    "acoustic, afrobeat, alternative rock, ambient, ballad, big band, bluegrass, blues, bossa nova, "
    "britpop, c-pop, celtic, chillout, chinese style, classical, country, dance, dancehall, "
    "deep house, disco, drum and bass, dubstep, edm, electronic, electropop, emo, flamenco, folk, "
    "folk rock, funk, garage, gospel, grunge, hard rock, heavy metal, hip hop, house, indie, "
    "indie pop, indie rock, j-pop, jazz, k-pop, latin, lo-fi, mandopop, metal, neo soul, new age, "
    "new wave, opera, pop, pop rock, post-rock, progressive rock, psychedelic, punk, r&b, rap, reggae, "
    "reggaeton, rock, rock and roll, salsa, samba, singer-songwriter, ska, soul, soundtrack, swing, "
    "synth-pop, synthwave, tango, techno, trance, trap, trip hop, world music"
)
EMOTION: tuple[str, ...] = _words(
    "aggressive, angry, anxious, bittersweet, calm, carefree, cheerful, confident, dramatic, dreamy, "
    "emotional, energetic, epic, euphoric, gentle, happy, haunting, heartbroken, hopeful, inspiring, "
    "intense, intimate, joyful, lonely, loving, melancholic, mysterious, nostalgic, passionate, "
    "peaceful, playful, proud, reflective, relaxed, romantic, sad, sensual, sentimental, tender, "
    "tense, triumphant, uplifting, wistful"
)
INSTRUMENT: tuple[str, ...] = _words(
    "accordion, acoustic guitar, bagpipes, banjo, bass, bass guitar, bells, bongos, brass, cajon, "
    "cello, choir, clarinet, congas, dizi, double bass, drum machine, drums, electric bass, "
    "electric guitar, electric piano, erhu, flute, french horn, glockenspiel, guitar, guzheng, "
    "hammond organ, handclaps, harmonica, harp, harpsichord, horns, keyboard, kick drum, mandolin, "
    "marimba, oboe, orchestra, organ, percussion, piano, pipa, saxophone, shakuhachi, shamisen, sitar, "
    "slide guitar, snare drum, steel guitar, strings, synth bass, synth pad, synthesizer, tabla, "
    "tambourine, timpani, trombone, trumpet, tuba, turntable, ukulele, vibraphone, viola, violin, "
    "whistle, xylophone"
)
TAG_VOCABULARY: dict[str, tuple[str, ...]] = {
    "gender": GENDER,
    "timbre": TIMBRE,
    "genre": GENRE,
    "emotion": EMOTION,
    "instruments": INSTRUMENT,
}

# Pairs of what is typed and the tag that it means, Chinese words first.
_CHINESE = (
    "女声=female 女生=female 女=female 男声=male 男生=male 男=male 明亮=bright 温暖=warm 低沉=deep "
    "沙哑=hoarse 甜美=sweet 清澈=clear 柔和=soft 空灵=airy 有力=powerful 流行=pop 摇滚=rock 民谣=folk "
    "古风=chinese_style 中国风=chinese_style 电子=electronic 爵士=jazz 嘻哈=hip_hop 说唱=rap 金属=metal "
    "乡村=country 古典=classical 布鲁斯=blues 蓝调=blues 抒情=ballad 舞曲=dance 朋克=punk 放克=funk "
    "雷鬼=reggae 灵魂乐=soul 悲伤=sad 伤感=sad 忧郁=melancholic 快乐=happy 欢快=cheerful 浪漫=romantic "
    "平静=calm 孤独=lonely 愤怒=angry 激昂=passionate 怀旧=nostalgic 温柔=gentle 梦幻=dreamy "
    "励志=inspiring 钢琴=piano 吉他=guitar 木吉他=acoustic_guitar 电吉他=electric_guitar 贝斯=bass "
    "鼓=drums 架子鼓=drums 小提琴=violin 大提琴=cello 弦乐=strings 笛子=dizi 长笛=flute 古筝=guzheng "
    "二胡=erhu 琵琶=pipa 萨克斯=saxophone 小号=trumpet 合成器=synthesizer 口琴=harmonica 竖琴=harp "
    "打击乐=percussion"
)
_ENGLISH = (
    "female_vocal=female female_vocals=female female_voice=female female_singer=female male_vocal=male "
    "male_vocals=male male_voice=male male_singer=male hip-hop=hip_hop rnb=r&b r'n'b=r&b lofi=lo-fi "
    "drum_&_bass=drum_and_bass rock_&_roll=rock_and_roll rock_'n'_roll=rock_and_roll synthpop=synth-pop "
    "synth=synthesizer synths=synthesizer sax=saxophone drum=drums guitars=guitar"
)
_FULL_WIDTH = {"，": ",", "、": ",", "；": ",", "。": ".\n", "：": ":", "＆": "&"}
_NUMBER = r"(-?[0-9]+(?:\.[0-9]+)?)"
_BPM_TAG = re.compile(rf"(?:the )?(?:bpm|tempo)(?: is| of|:|=)? ?{_NUMBER}(?: ?bpm)?|(?:at )?{_NUMBER} ?bpm")
_BPM_IN_SENTENCE = re.compile(rf"\b(?:bpm|tempo)(?: is| of|:|=)? ?{_NUMBER}|(?<![\w.]){_NUMBER} ?bpm\b")
_LABEL = re.compile(
    "^(?:genres?|styles?|moods?|emotions?|timbres?|gender|vocals?|voices?|instruments?|instrumentation|"
    "风格|曲风|类型|情绪|情感|音色|性别|人声|乐器) ?: ?"
)
_BRACKET_TAG = re.compile(r"\[[^\[\],;\r\n]*\]")
_FUNCTION_WORDS = frozenset(
    _words(
        "a, an, the, about, with, for, by, in, on, of, that, which, is, are, be, like, "
        "please, want, make, i, me, my, this, it, to"
    )
)


@dataclass(frozen=True)
class Description:
    """Style keywords by dimension, each in the order typed; `bpm` in beats per minute, 20 to 300.

    `extra` keeps words outside `TAG_VOCABULARY`, also whole sentences. `notes` tell what was converted while
    reading and do not count in comparisons. Raises UserError for a `bpm` out of range.
    """

    gender: tuple[str, ...] = ()
    timbre: tuple[str, ...] = ()
    genre: tuple[str, ...] = ()
    emotion: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    bpm: int | None = None
    extra: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if self.bpm is not None:
            _checked_bpm(str(self.bpm))

    @classmethod
    def parse(cls, text: str) -> "Description":
        """Read keywords; raise UserError for an impossible bpm, control characters or over 2,000 characters.

        Commas separate them; so do `;`, new lines and a full stop before a blank. Case does not count.
        """
        notes: list[str] = []
        found: dict[str, list[str]] = {}
        speeds: list[int] = []
        for item in _items(_half_width(text, notes)):
            if match := _BPM_TAG.fullmatch(item):
                speeds.append(_checked_bpm(match[1] or match[2]))
                continue
            for word in _keywords_of(item):
                tag = _meaning(word)
                if tag != word:
                    notes.append(f'"{word}" is read as "{tag}"')
                found.setdefault(_dimensions().get(tag, "extra"), []).append(tag)
        return _assemble(found, speeds, tuple(notes))

    def format(self) -> str:
        """Return the keywords as the model reads them, ending in a full stop; nothing for no keywords."""
        parts = [*self.gender, *self.timbre, *self.genre, *self.emotion]
        if self.instruments:
            *first, last = self.instruments
            parts.append(f"{', '.join(first)} and {last}" if first else last)
        parts += self.extra
        if self.bpm is not None:
            parts.append(f"the bpm is {self.bpm}")
        return ", ".join(parts) + "." if parts else ""

    def warnings(self) -> list[str]:
        """Return what was converted and what the model may not understand, one line each."""
        return [*self.notes, *map(_warning, self.extra)]


def keywords_in(sentence: str) -> Description:
    """Return the known keywords and the bpm of a sentence, its other words left out.

    Raises UserError as `Description.parse` does.
    """
    text = " ".join(_items(_half_width(sentence, [])))
    found: dict[str, list[str]] = {}
    for match in _keyword_pattern().finditer(text):
        tag = _meaning(match[0])
        found.setdefault(_dimensions()[tag], []).append(tag)
    speeds = [_checked_bpm(match[1] or match[2]) for match in _BPM_IN_SENTENCE.finditer(text)]
    return _assemble(found, speeds, ())


def _assemble(found: dict[str, list[str]], speeds: list[int], notes: tuple[str, ...]) -> Description:
    different = list(dict.fromkeys(speeds))
    if len(different) > 1:
        raise UserError(
            f"description: bpm {different[0]} and bpm {different[1]} contradict each other; keep one"
        )
    words = {name: tuple(dict.fromkeys(values)) for name, values in found.items()}
    return Description(
        gender=words.get("gender", ()),
        timbre=words.get("timbre", ()),
        genre=words.get("genre", ()),
        emotion=words.get("emotion", ()),
        instruments=words.get("instruments", ()),
        bpm=different[0] if different else None,
        extra=words.get("extra", ()),
        notes=notes,
    )


def _checked_bpm(typed: str) -> int:
    # The length first: int() refuses very long numbers with an error that is not ours.
    if len(typed) > 8 or not typed.isdecimal() or not BPM_MIN <= int(typed) <= BPM_MAX:
        advice = f"give a whole number from {BPM_MIN} to {BPM_MAX}, for example 120"
        raise UserError(f"description: bpm {_shorten(typed)} is not possible; {advice}")
    return int(typed)


def _half_width(text: str, notes: list[str]) -> str:
    """Return `text` in lower case with half-width separators, telling of each kind that was converted."""
    if len(text) > MAX_CHARACTERS:
        advice = f"shorten it to {MAX_CHARACTERS} at most"
        raise UserError(f"description: {len(text)} characters are too many; {advice}")
    for char in dict.fromkeys(text):
        if unicodedata.category(char) in ("Cc", "Cs") and char not in "\t\r\n":
            raise UserError(f"description: the control character U+{ord(char):04X} cannot be read; delete it")
        if char in _FULL_WIDTH:
            half = _FULL_WIDTH[char].strip()
            notes.append(f'"{char}" is full-width punctuation and is read as "{half}"')
    for char, half in _FULL_WIDTH.items():
        text = text.replace(char, half)
    return text.lower()


def _items(text: str) -> list[str]:
    pieces = re.split(r"[,;\r\n]|\.(?=\s|$)", _BRACKET_TAG.sub(lambda match: f",{match[0]},", text))
    words = (_LABEL.sub("", " ".join(piece.split())).rstrip(". ") for piece in pieces)
    return [word for word in words if word]


def _keywords_of(item: str) -> list[str]:
    """Return the keywords of `piano and drums`, or the item as it is if one of them is unknown."""
    if _meaning(item) in _dimensions():
        return [item]
    words = [word for word in re.split(r"(?:^| )and ", item) if word]
    return words if words and all(_meaning(word) in _dimensions() for word in words) else [item]


def _meaning(word: str) -> str:
    return _aliases().get(word, word)


@lru_cache(maxsize=1)
def _aliases() -> dict[str, str]:
    pairs = (pair.replace("_", " ").partition("=") for pair in f"{_CHINESE} {_ENGLISH}".split())
    return {typed: tag for typed, _, tag in pairs}


@lru_cache(maxsize=1)
def _dimensions() -> dict[str, str]:
    return {tag: name for name, tags in TAG_VOCABULARY.items() for tag in tags}


@lru_cache(maxsize=1)
def _keyword_pattern() -> re.Pattern[str]:
    """Longest first, so that "electric guitar" is not read as "guitar"; Chinese has no word boundaries."""
    # One character alone ("female", "male" in Chinese) is part of too many other words.
    words = sorted((word for word in {**_dimensions(), **_aliases()} if len(word) > 1), key=len, reverse=True)
    latin = "|".join(re.escape(word) for word in words if word.isascii())
    chinese = "|".join(word for word in words if not word.isascii())
    return re.compile(rf"(?<![^\W\u4e00-\u9fff])(?:{latin})(?![^\W\u4e00-\u9fff])|{chinese}")


def _is_sentence(item: str) -> bool:
    words = item.split()
    long = len(words) >= 5 or (not item.isascii() and len(item.replace(" ", "")) >= 6 and _is_chinese(item))
    return long or (len(words) >= 3 and not _FUNCTION_WORDS.isdisjoint(words))


def _is_chinese(text: str) -> bool:
    return any("\u4e00" <= char <= "\u9fff" for char in text)


def _warning(item: str) -> str:
    """Return why a word of `extra` may not do what the user expects."""
    shown = f'"{_shorten(item)}"'
    if _BRACKET_TAG.fullmatch(item):
        return f"{shown} is ignored as a tag in a description and read as plain text; remove it"
    if is_key_tag(item):
        return f"{shown} is followed by models that read phones (mini); others take a key as plain text"
    if _is_sentence(item):
        return f"{shown} reads like a sentence, but the model expects keywords; {_found_in(item)}"
    if not item.isascii():
        return f"{shown} is not English; the model expects English keywords"
    near = difflib.get_close_matches(item[:40], _dimensions(), 1, 0.8)
    question = f'; did you mean "{near[0]}"?' if near else "; it is passed on as typed"
    return f"{shown} is not among the suggested tags{question}"


def _found_in(sentence: str) -> str:
    try:
        keywords = keywords_in(sentence).format()
    except UserError as error:
        return str(error)
    if not keywords:
        return "it is passed on as typed; no known keyword was found in it"
    return f'it is passed on as typed; better write "{keywords}"'


def _shorten(text: str) -> str:
    short = text if len(text) <= 60 else text[:59] + "…"
    return "".join(char if char.isprintable() else f"U+{ord(char):04X}" for char in short)
