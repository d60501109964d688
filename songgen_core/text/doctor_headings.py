"""Names of sections in the languages that users paste, and how to tell them from words that are sung.

Every pattern is bounded: a long text costs time in proportion only.
"""

import difflib
import re
from dataclasses import dataclass

from .doctor_marks import is_cry, is_note, plain_name, speaks, take_times
from .lyrics import STRUCTURE_TAGS, normal_tag, squeeze

_LONGEST_NAME = 30
_LONGEST_SINGER = 30
_LONGEST_HEADING = _LONGEST_NAME + _LONGEST_SINGER + 4

# Kind of section -> its tag. A pre-chorus leads to the chorus and does not begin it.
TAGS = {
    "pre": "verse",
    "post": "chorus",
    "instrumental": "inst-medium",
    "chorus": "chorus",
    "drop": "chorus",
    "intro": "intro-short",
    "outro": "outro-short",
    "inst": "inst-medium",
    "break": "inst-short",
    "bridge": "bridge",
    "verse": "verse",
}
# In the order of TAGS, in which a heading of several words is searched: "instrumental chorus" is not sung.
_NAMES = {
    "pre": "pre chorus|prechorus|build up|buildup|build|lift|导歌|導歌|预副歌|副歌前|サビ前|プリコーラス|"
    "프리코러스|프리 코러스",
    "post": "post chorus|postchorus|post hook|post coro|post estribillo|post refrain|포스트 코러스",
    "instrumental": "instrumental|instrumental break|instrumental section",
    "chorus": "chorus|hook|refrain|estribillo|coro|refrao|ritornello|refren|refrein|nakarat|reff|soc|"
    "start of chorus|припев|副歌|高潮|サビ|大サビ|ラスサビ|落ちサビ|番サビ|コーラス|"
    "후렴|후렴구|코러스|훅|싸비",
    "drop": "drop|beat drop|bass drop",
    "intro": "intro|introduction|introduccion|introducao|prelude|opening|vorspiel|вступление|интро|前奏|"
    "引子|开场|イントロ|전주|인트로|도입",
    "outro": "outro|ending|end|the end|fade|fade out|fadeout|fade to end|coda|final|fin|finale|closing|"
    "big finish|schluss|salida|концовка|аутро|尾奏|结尾|結尾|尾声|尾聲|アウトロ|エンディング|後奏|"
    "후주|아웃트로|아우트로|엔딩",
    "inst": "inst|solo|interlude|interludio|intermezzo|zwischenspiel|riff|проигрыш|соло|间奏|間奏|独奏|"
    "獨奏|间奏曲|ソロ|インスト|간주|솔로",
    "break": "break|breakdown|pausa|ブレイク|브레이크",
    "bridge": "bridge|puente|pont|ponte|brucke|middle eight|middle 8|sob|start of bridge|бридж|桥段|橋段|"
    "过渡段|桥|橋|ブリッジ|cメロ|dメロ|브릿지|브리지",
    "verse": "verse|vers|verso|estrofa|strophe|strofa|couplet|zwrotka|stanza|rap|rap verse|part|sov|"
    "start of verse|куплет|主歌|段|节|節|说唱|番|aメロ|bメロ|ヴァース|バース|ラップ|벌스|절|랩|버스",
}
_KINDS = {name: kind for kind, names in reversed(_NAMES.items()) for name in names.split("|")}
# Words that are also sung alone on a line: they need a colon, a number, capitals or brackets.
_AMBIGUOUS = re.compile(
    "break|drop|end|the end|final|fin|fade|fade out|lift|part|build|rap|solo|finale|opening|closing|riff|"
    "段|节|節|番|절|훅|桥|橋|尾声|尾聲|高潮|랩|버스|soc|sov|sob"
)
_SEARCHED = [
    (
        kind,
        re.compile(
            "|".join(
                rf"(?<![a-z]){re.escape(name)}(?![a-z])" if name.isascii() else re.escape(name)
                for name in names.split("|")
                if not _AMBIGUOUS.fullmatch(name) or name in ("solo", "drop", "break", "rap", "fade out")
            )
        ),
    )
    for kind, names in _NAMES.items()
]
_NEVER_SUNG = ("verse", "chorus", "pre chorus", "post chorus")
# `Pré-Refrão`, `Vorrefrain`, `предприпев`: a name of the chorus, but what leads to it.
_BEFORE_CHORUS = re.compile(rf"(?<![^\W\d_])(?:pre|vor|przed|пред) ?(?:{_NAMES['chorus']})(?![^\W\d_])")
_EXTRAS = re.compile(
    r"\b(?:repeat|again|repetir|final|last|first|second|third|fourth|\d{1,2}(?:st|nd|rd|th|er?|eme|o|a)?|"
    r"i{1,3}|iv|vi{0,3}|one|two|three|four|short|long|big|double|guitar|piano|sax|drum|synth|musical|acoustic|"
    r"the|a|b|c|d|ultimo|erster?|dernier)\b"
)
_EXTRAS_CJK = re.compile(r"[\d一二三四五六七八九十①-⑩第 .]|最后|最後|重复|重複|反复|重唱|ラスト|마지막|반복")
_NAME_AND_SINGER = re.compile(
    rf"([^()]{{1,{_LONGEST_NAME}}}?) ?(?:\(([^()]{{1,{_LONGEST_SINGER}}})\)"
    rf"|(?:(?<= )-(?= )|(?<=[\d\u3040-\uffff])-) ?([^()]{{1,{_LONGEST_SINGER}}}))"
)
_AND = re.compile(r" ?[,&/+、] ?| (?i:and|y|et|und|with|feat\.?|ft\.?) |[和与與]")
_WITH = re.compile(r"(?:feat\.?|ft\.?|with|by) (?=\S)", re.I)
_VOICE = re.compile(
    "(?:(?:male|female|man|woman|men|women|boys?|girls?|both|all|everyone|duet|choir|lead|backing|background|"
    "vocals?|vocalist|voices?|singers?|rapper|him|her|hombres?|mujer|mujeres|ambos|todos|todas|hommes?|femmes?|"
    "tous|toutes|mann|frau|beide|alle|chor|[1-9])(?: |$)){1,4}"
    "|[男女合齐齊全众眾童独獨领領]{1,2}[声聲员員性体體唱]?|大家|みんな|남자?|여자?|남성|여성|모두|다같이|함께|합창"
)
_NAME_WORD = re.compile(r"[^\W\d_][\w.'!$-]{0,19}|\d{1,3}")
# Words that are sung alone in brackets, with a capital letter too.
_SUNG_ALONE = re.compile(
    "baby|babe|love|hallelujah|alleluia|amen|glory|holy|lord|god|jesus|freedom|hello|goodbye|woohoo|go|"
    "stop|wait|listen|look|come|get|let|feel|dance|sing|run|fly|rise|fire|higher|louder|yes|no|now|not|"
    "again|forever|tonight|today|tomorrow|together|everybody|up|down|out|on|over|away|back|all|like|just|"
    "what|why|who|where|when|how"
)


@dataclass(frozen=True)
class Heading:
    """A section that begins: its kind, its tag, how often it is sung, and what else the heading told."""

    kind: str
    tag: str
    times: int = 1
    note: str = ""
    exact: bool = False  # typed as one of the model's own tags


def heading_in_brackets(content: str) -> Heading | None:
    """Read `Verse 1: Name`, `Guitar Solo` or `Chorus x2`, the inside of brackets."""
    tag = normal_tag(content)
    if tag in STRUCTURE_TAGS:
        return Heading(tag.partition("-")[0], tag, exact=True)
    text, times = take_times(content[:200])
    parts = re.split(r"[:|,;(/–—]| - ", text, maxsplit=1)
    kind = _kind(parts[0]) or _kind_of_words(parts[0])
    note = squeeze(parts[1]).strip(" )") if len(parts) > 1 else ""
    return Heading(kind, _tag(kind, parts[0]), times, note) if kind else None


def heading_of_line(line: str, decorated: bool, at_start: bool) -> tuple[Heading, str] | None:
    """Read a heading without brackets and the words after its colon; None for words that are sung."""
    head, colon, rest = line.partition(":")
    if len(head) > _LONGEST_HEADING:
        return None
    full, times = take_times(head.strip())
    name, note = _split_singer(full.strip(), decorated or bool(colon))
    if len(name) > (40 if colon else _LONGEST_NAME):
        return None
    plain, kind = plain_name(name), _kind(name)
    if kind is None:
        return None
    numbered = any(map(str.isnumeric, name))
    strong = decorated or bool(colon) or numbered or times > 1 or name.isupper()
    doubtful = _AMBIGUOUS.fullmatch(_stripped(plain)) is not None
    named = note and not is_note(note) and not (decorated or colon)
    if doubtful and not numbered and (rest.strip() or named):
        return None
    shown = name[:1].isupper() or not name.isascii()
    if not strong and (doubtful or not (shown or at_start)):
        return None
    return Heading(kind, _tag(kind, name), times, note), rest.strip()


def is_singer(text: str, *, marked: bool = False) -> bool:
    """Whether this says who sings: voices such as `both`, or names such as `Anna & Ben`.

    One name alone may as well be sung; it counts where the heading is `marked` by more than its name.
    """
    parts = _AND.split(_WITH.sub("", text.strip(" :"), count=1))
    if len(text) > _LONGEST_SINGER or not all(_is_voice(part) or _is_name(part) for part in parts):
        return False
    return marked or len(parts) > 1 or _is_voice(parts[0])


def _split_singer(name: str, marked: bool) -> tuple[str, str]:
    """Return `Verse 1` and `John` of `Verse 1 (John)` or `Verse 1 - John`; a line of a song stays whole."""
    parts = _NAME_AND_SINGER.fullmatch(name)
    if parts is None:
        return name, ""
    left, bracketed, behind = parts[1].strip(), parts[2], parts[3]
    note = (bracketed or behind).strip()
    marked = marked or any(map(str.isnumeric, left)) or plain_name(left) in _NEVER_SUNG
    # Of `Hook - Line and Sinker` only a row that stands out would say who sings.
    several = behind and not marked and len(_AND.split(note)) > 1
    named = is_singer(note, marked=marked) and not several
    return (left, note) if is_note(note) or named else (name, "")


def _is_voice(text: str) -> bool:
    return _VOICE.fullmatch(plain_name(text)) is not None


def _is_name(text: str) -> bool:
    """One to three words in capitals or with capital letters, none of which is likely to be sung."""
    words = text.split()
    named = all(_NAME_WORD.fullmatch(word) and (word[0].isupper() or word.isdecimal()) for word in words)
    if not named or not 1 <= len(words) <= 3 or "".join(words).isdecimal() or speaks(text):
        return False
    return not any(is_cry(word) or _SUNG_ALONE.fullmatch(word.lower().strip(".!'")) for word in words)


def _tag(kind: str, name: str) -> str:
    """`[Long Intro]` asks for more than the shortest one; the tags -long are seldom used by the model."""
    tag = TAGS[kind]
    return tag.replace("-short", "-medium") if re.search(r"\blong\b", name.lower()) else tag


def _stripped(plain: str) -> str:
    if plain in _KINDS:
        return plain
    if plain.isascii():
        return squeeze(_EXTRAS.sub(" ", plain))
    return _EXTRAS_CJK.sub("", plain)


def _kind(name: str) -> str | None:
    plain = plain_name(name)
    stripped = _stripped(plain)
    if _BEFORE_CHORUS.fullmatch(stripped):
        return "pre"
    if stripped in ("段", "节", "節", "番", "절", "part") and stripped == plain:
        return None  # these mean a verse with a number only
    if stripped.startswith("instrumental ") and (kind := _KINDS.get(stripped[13:])):
        return kind if kind in ("intro", "outro") else "instrumental"
    return _KINDS.get(stripped) or _KINDS.get(stripped.replace(" ", ""))


def _kind_of_words(name: str) -> str | None:
    """The kind of a bracket of a few words, or of one that is nearly a name."""
    plain = plain_name(name)
    words = plain.split()
    if len(words) > 5 or len(plain) > 50:
        return None
    if any(kind in ("intro", "outro") for kind in map(_KINDS.get, words) if kind):
        return next(kind for kind in map(_KINDS.get, words) if kind in ("intro", "outro"))
    if _BEFORE_CHORUS.search(plain):
        return "pre"
    found = next((kind for kind, pattern in _SEARCHED if pattern.search(plain)), None)
    if found or len(words) != 1 or not 4 <= len(plain) <= 14:
        return found
    near = difflib.get_close_matches(plain, [n for n in _KINDS if n.isascii()], 1, 0.8)
    return _KINDS[near[0]] if near else None
