"""What people write around lyrics, and how to tell it from words that are sung.

Names of sections in the languages that users paste, repeat marks, performance notes, credits, chords and
characters that no singer can read. Every pattern is bounded: a long text costs time in proportion only.
"""

import difflib
import html
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from .lyrics import STRUCTURE_TAGS, half_width, normal_tag, squeeze

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
    "pre": "pre chorus|prechorus|pre hook|pre coro|precoro|pre estribillo|preestribillo|pre refrain|"
    "build up|buildup|build|lift|导歌|導歌|预副歌|副歌前|プリコーラス|프리코러스|프리 코러스",
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
_EXTRAS = re.compile(
    r"\b(?:repeat|again|repetir|final|last|first|second|third|fourth|\d{1,2}(?:st|nd|rd|th|er?|eme|o|a)?|"
    r"i{1,3}|iv|vi{0,3}|one|two|three|four|short|long|big|double|guitar|piano|sax|drum|synth|musical|acoustic|"
    r"the|a|b|c|d|ultimo|erster?|dernier)\b"
)
_EXTRAS_CJK = re.compile(r"[\d一二三四五六七八九十①-⑩第 .]|最后|最後|重复|重複|反复|重唱|ラスト|마지막|반복")
_TIMES = re.compile(
    r"(?i:(?<![^\W\d_])[x×*]\s?(\d{1,2})(?!\w)|(?<!\w)(\d{1,2})\s?(?:[x×](?!\w)|times\b|veces\b|fois\b|mal\b)"
    r"|(?<!\w)(\d)\s?[번遍回次]|\b(twice|bis|2 veces)\b)"
)
_TIMES_AT_END = re.compile(r"(?i:(?:^|\s)[x×*]\s?(\d{1,2})|(?:^|\s)(\d{1,2})[x×]|×(\d{1,2}))$")
_ROOT = r"[A-G][#b♯♭]?"
_CHORD = re.compile(
    rf"{_ROOT}(?:maj|min|dim|aug|sus|add|m|M|[-+°ø])?\d{{0,2}}(?:(?:sus|add|maj|b|#|\(b?\d\)?)\d{{0,2}}){{0,3}}(?:/{_ROOT})?"
)
# For words in which every run of one letter counts once, so that there are few ways to read one.
_VOCABLE = re.compile(
    r"(?:[oaue]h?|woa?h|whoa?h|yeah?|hey?|h[oa]h?|[lndb]a|d[uo]|sha|mh?|hm|yo|oi|[ae]y|"
    r"[啊哦呜嗚啦噢喔耶嘿哈嗯ラーあオアウ오우예야아라나])+"
)
_NOTE_WORD = re.compile(
    "vocals?|vocalist|voices?|male|female|spoken|whisper(?:s|ed|ing)?|softly|shout(?:s|ed|ing)?|"
    "scream(?:s|ed|ing)?|laugh(?:s|ing|ter)?|sigh(?:s|ing)?|hum(?:s|ming)?|beat|guitar|piano|drums?|bass|"
    "strings|synths?|violin|sax|saxophone|trumpet|flute|instrumental|instrumentation|music|fades?|fading|"
    "applause|crowd|cheering|claps|clapping|adlibs?|choir|harmon(?:y|ies)|tempo|bpm|mood|style|genre|"
    "echo(?:es)?|reverb|a?cappella|acapella|autotune|falsetto|quietly|slowly|louder|quieter|duet|"
    "orchestra|orchestral|acoustic|riff|narration|narrator|susurrando|susurro|hablado|voz|voces|guitarra|"
    "musica|hombre|mujer|gesprochen|geflustert|stimme|klavier|gitarre|musik|parle|chuchote|voix|musique"
)
_NOTE_CJK = re.compile(
    "男声|女声|男聲|女聲|念白|独白|獨白|合唱|和声|和聲|伴奏|钢琴|鋼琴|吉他|轻声|低语|耳语|口白|旁白|音乐|音樂|"
    "セリフ|台詞|語り|囁|ささやき|男性|女性|ピアノ|ギター|남자|여자|남성|여성|나레이션|속삭|피아노|기타 "
)
_SPEAKING = re.compile(
    "i|i'm|i'll|i've|you|your|you're|me|my|mine|we|our|us|he|she|they|them|his|her|it|the|and|but|so|to|for|"
    "of|in|on|if|be|is|are|was|don't|can't|won't|never|always|this|that|yo|tu|te|mi|y|que|el|la|los|je|moi|et|"
    "les|ich|du|mich|dich|und|der|die|das"
)
_STYLE = re.compile(
    r"(?i:(?:style|genre|mood|tempo|bpm|vocals?|voice|instruments?|energy|key|capo|tuning|风格|風格|曲风|"
    r"曲風|情绪|スタイル|ジャンル|스타일|장르|estilo|genero|género)\s?:)"
)
_CREDIT = re.compile(
    r"(?i:(?:lyrics?|words|music|written|composed|produced|arranged|performed|sung|recorded|mixed|letra|"
    r"musica|música|paroles|musique|musik|text und musik|lrc|subtitles|captions|transcribed|words and music|"
    r"lyrics and music|words & music|lyrics & music)(?: and \w{2,12})? (?:by|de|von|par|por))\b(?! ?[a-z])"
    r"|(?i:(?:title|song title|artist|album|composer|lyricist|producers?|writers?|label|released|"
    r"copyright|titulo|título|titel|artista|letra|lyrics?|lyrics by|music by|source|length|isrc|release date|"
    r"作词|作詞|作曲|编曲|編曲|词曲|演唱|原唱|词|曲|詞|歌手|专辑|專輯|歌名|曲名|标题|標題|制作人|監製|监制|混音|"
    r"母带|录音|出品|发行|歌詞|歌词|作词作曲|アーティスト|タイトル|歌|唄|작사|작곡|편곡|노래|제목|가수|앨범|작사작곡)"
    r"\s?[:/]|(?:ar|ti|al|au|by|re|ve|la|lr|tool|offset|id)\s?:|(?:作词|作詞|作曲|编曲|編曲|演唱|작사|작곡) )"
)
_DEBRIS = re.compile(
    r"(?i:\d{1,5} ?contributors?.*|\d{0,5}embed|you might also like|see .{1,40} live|get tickets\b.*|"
    r"translations|lyrics|advertisements?|submit corrections.*|(?:©|\(c\)|℗|copyright).*|"
    r"all rights reserved.*|read more|copy link|thanks to .* for .*|webvtt.*|end of (?:chorus|verse|bridge)|"
    r"eo[cvb]|歌词来自.*|未经.*许可.*|更多.*歌词.*|\[?歌词\]?|무단 ?전재.*)"
)
_CHATTER = re.compile(
    r"(?i:(?:sure|certainly|of course|absolutely|here(?:'s| is| are))\b.*(?::|\blyrics\b.*)"
    r"|(?:sure|certainly|of course|absolutely)[!,.].*\bsong\b.*"
    r"|(?:would you like|let me know|feel free|hope you).*\b(?:lyrics|adjust|tweak|verses?|genre)\b.*)"
)
_GLUED = re.compile(r"^You might also like(?=[\[A-Z])|\d{1,5}Embed$")
_URL = re.compile(r"(?i:(?:https?://|www\.)\S{1,300})")
_ENTITY = re.compile(r"&(?:#\d{1,6}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8});")
_HTML_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,200}>|<!--[^<>\n]{0,200}-->|<\d{1,3}:\d\d(?:[.:]\d{1,3})?>")
_ORPHAN_JOINER = re.compile("(?:(?<=[ ])|^)[\u200c\u200d]+|[\u200c\u200d]+(?= |$)")
_ABBREVIATION = re.compile(r"\b(Mr|Mrs|Ms|Dr|St|vs|feat|ft)\.(?= )|\b([A-Za-z](?:\.[A-Za-z]\b){1,8})\.?")
_HAN_OR_KANA = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
_RUN = re.compile(r"[!?]{2,}|,(?: ?,)+|~{2,}|-{2,}")


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
    if len(head) > 40 or (not colon and len(line) > 30):
        return None
    name, times = take_times(head.strip())
    parts = re.fullmatch(r"([^()]{1,30}) ?\(([^()]{1,30})\)", name.strip())
    note = parts[2] if parts and is_note(parts[2]) else ""
    name = parts[1] if parts and note else name
    plain, kind = _plain(name), _kind(name)
    if kind is None:
        return None
    strong = decorated or bool(colon) or times > 1 or any(map(str.isnumeric, name)) or name.isupper()
    doubtful = _AMBIGUOUS.fullmatch(_stripped(plain)) is not None
    if colon and rest.strip() and doubtful and not any(map(str.isnumeric, name)):
        return None
    shown = name[:1].isupper() or not name.isascii()
    if not strong and (doubtful or not (shown or at_start)):
        return None
    return Heading(kind, _tag(kind, name), times, note), rest.strip()


def _tag(kind: str, name: str) -> str:
    """`[Long Intro]` asks for more than the shortest one; the tags -long are seldom used by the model."""
    tag = TAGS[kind]
    return tag.replace("-short", "-medium") if re.search(r"\blong\b", name.lower()) else tag


def _plain(text: str) -> str:
    """`Pré-Refrain` as `pre refrain`."""
    bare = "".join(c for c in unicodedata.normalize("NFD", text) if not "\u0300" <= c <= "\u036f")
    return squeeze(re.sub("[-_]", " ", unicodedata.normalize("NFC", bare).lower())).strip(" :.#*")


def _stripped(plain: str) -> str:
    if plain in _KINDS:
        return plain
    if plain.isascii():
        return squeeze(_EXTRAS.sub(" ", plain))
    return _EXTRAS_CJK.sub("", plain)


def _kind(name: str) -> str | None:
    plain = _plain(name)
    stripped = _stripped(plain)
    if stripped in ("段", "节", "節", "番", "절", "part") and stripped == plain:
        return None  # these mean a verse with a number only
    if stripped.startswith("instrumental ") and (kind := _KINDS.get(stripped[13:])):
        return kind if kind in ("intro", "outro") else "instrumental"
    return _KINDS.get(stripped) or _KINDS.get(stripped.replace(" ", ""))


def _kind_of_words(name: str) -> str | None:
    """The kind of a bracket of a few words, or of one that is nearly a name."""
    plain = _plain(name)
    words = plain.split()
    if len(words) > 5 or len(plain) > 50:
        return None
    if any(kind in ("intro", "outro") for kind in map(_KINDS.get, words) if kind):
        return next(kind for kind in map(_KINDS.get, words) if kind in ("intro", "outro"))
    found = next((kind for kind, pattern in _SEARCHED if pattern.search(plain)), None)
    if found or len(words) != 1 or not 4 <= len(plain) <= 14:
        return found
    near = difflib.get_close_matches(plain, [n for n in _KINDS if n.isascii()], 1, 0.8)
    return _KINDS[near[0]] if near else None


def take_times(text: str) -> tuple[str, int]:
    """Return a heading or note without its `x2`, and the number."""
    match = _TIMES.search(text)
    if match is None:
        return text, 1
    number = next((int(group) for group in match.groups() if group and group.isdecimal()), 2)
    rest = re.sub(r"[(\[] ?[)\]]", " ", text[: match.start()] + " " + text[match.end() :])
    return squeeze(rest).rstrip(" :,-"), max(number, 1)


def take_times_at_end(words: str) -> tuple[str, int]:
    """Return a lyric line without the `x3` at its end, and the number or 0."""
    match = _TIMES_AT_END.search(words, max(0, len(words) - 8))
    if match is None:
        return words, 0
    return words[: match.start()].rstrip(" ,"), max(int(next(filter(None, match.groups()))), 1)


def is_repeat_mark(text: str) -> int:
    """How often `x2`, `repeat`, `2 times` alone in brackets asks for, or 0."""
    rest, times = take_times(text)
    rest = _plain(rest)
    if rest in ("", "repeat", "repeats", "repite", "repetir", "重复", "重複", "반복", "繰り返し"):
        return times if times > 1 else 2 * bool(rest)
    return 0


def is_note(text: str, *, bracketed: bool = False) -> bool:
    """Whether brackets hold a note to the performer: the rule in square ones, the exception in round ones."""
    plain = _plain(text)
    words = re.findall(r"[^\W\d_][\w']*", plain)
    if not words or is_vocable(plain):
        return bracketed and not words
    if _STYLE.match(text) or _CREDIT.match(text):
        return True
    told = any(_NOTE_WORD.fullmatch(word) for word in words)
    if not plain.isascii() and _NOTE_CJK.search(plain + " ") and len(plain) <= 10:
        return True
    spoken = any(_SPEAKING.fullmatch(word) for word in words)
    if not bracketed:
        return told and not spoken and len(words) <= 3
    return told or ":" in text or (not spoken and len(words) <= 6 and (text.isascii() or len(text) <= 8))


def is_vocable(text: str) -> bool:
    """Whether there is nothing but `ooh, la la`."""
    words = re.findall(r"\w+", text.lower())
    short = [re.sub(r"(.)\1+", r"\1", word) for word in words]
    return bool(words) and all(len(word) <= 16 and _VOCABLE.fullmatch(word) for word in short)


def is_style(text: str) -> bool:
    """Whether this is a line such as `Genre: pop`."""
    return len(text) <= 300 and _STYLE.match(text) is not None


def is_chord(text: str) -> bool:
    """Whether this is a chord such as `Am7` or `N.C.`."""
    return len(text) <= 12 and (_CHORD.fullmatch(text) is not None or text in ("N.C.", "NC"))


def is_chord_line(line: str) -> bool:
    """Whether a line is chords above the words. `A B C` may be sung."""
    names = re.sub(r"[|%]|(?<= )-+(?= )|\([xX]?\d\)|\b[xX]\d\b", " ", line).split()
    if not names or len(line) > 300 or not all(map(is_chord, names)):
        return False
    return "".join(names) not in "ABCDEFG" or (len(names) == 1 and names[0] != "A")


def no_lyric(line: str, *, at_edge: bool) -> str:
    """Say why a whole line is no lyric, or nothing."""
    if not any(map(str.isalnum, line)):
        return "nothing to sing"
    if len(line) > 300:
        return ""
    plain = re.sub(r"^[#>*_\s-]+|[*_\s]+$", "", line)
    if _DEBRIS.fullmatch(plain):
        return "not part of the lyrics"
    if _CREDIT.match(plain):
        return "a credit"
    if is_chord_line(line.strip()):
        return "chords"
    return "not part of the lyrics" if at_edge and _CHATTER.fullmatch(plain) else ""


def clean(text: str, why: list[str]) -> str:
    """Return a line with characters that can be sung; `why` gets a reason for each kind of change."""
    if "&" in text or "<" in text:
        plain = _HTML_TAG.sub(" ", _ENTITY.sub(lambda match: html.unescape(match[0]), text))
        text = _note(text, plain, "HTML or time marks", why)
    unlinked = _URL.sub(" ", text)
    if unlinked != text:  # what stands beside a link, such as "visit", is seldom sung
        text = _note(text, unlinked if len(unlinked.split()) > 3 else "", "a link", why)
    if "You might" in text or "Embed" in text:
        text = _note(text, _GLUED.sub("", text), "words of the site", why)
    if not (text.isascii() and text.isprintable()):
        plain = "".join(map(_sung_character, text))
        plain = _ORPHAN_JOINER.sub("", plain) if "\u200c" in plain or "\u200d" in plain else plain
        if plain != text:
            plain = re.sub(r"(?<=[A-Za-z])([,!?:])(?=[A-Za-z])", r"\1 ", plain)
        text = _note(text, plain, "punctuation and symbols", why)
    text = squeeze(text)
    return _note(text, text.replace("{", "[").replace("}", "]"), "square brackets", why)


def mend_marks(words: str, why: list[str]) -> str:
    """Return words of a lyric line with single marks: an ellipsis is a pause, not the end of a line."""
    plain = words
    if not _HAN_OR_KANA.search(words):  # whose full stops have no blank behind them
        plain = _ABBREVIATION.sub(lambda match: match[0].replace(".", ""), words)
        plain = re.sub(r"(?<=\d)\.(?=\d)", " point " if words.isascii() else ",", plain)
    plain = re.sub(r" ?\.{2,} ?,? ?(?=\w|\")", ", ", plain)
    plain = re.sub(r"\.(?: ?\.)+", ".", plain)
    plain = _RUN.sub(lambda match: "?" if "?" in match[0] else match[0][0], plain)
    plain = re.sub(r" +(?=[,.!?])", "", plain.replace(";", ","))
    plain = squeeze(plain).lstrip(" ,.:")
    if plain.strip(" .") != squeeze(words).strip(" ."):
        why.append("punctuation")
    return plain


def _note(before: str, after: str, reason: str, why: list[str]) -> str:
    if squeeze(before) != squeeze(after):
        why.append(reason)
    return after


@lru_cache(4096)
def _sung_character(char: str) -> str:
    category = unicodedata.category(char)
    if char in "…‥":
        return "..."
    if char in "\u200c\u200d×":
        return char
    if category in ("Cc", "Zl", "Zp", "So"):
        return " "
    modifier = "\ufe00" <= char <= "\ufe0f" or char == "\u20e3" or "\U0001f3fb" <= char <= "\U0001f3ff"
    if category[0] == "C" or modifier:
        return ""
    remedy = half_width(char, category)
    return remedy if len(remedy) == 1 else " " if remedy else char
