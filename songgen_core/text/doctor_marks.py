"""What people write around lyrics, and how to tell it from words that are sung.

Repeat marks, performance notes, credits, chords and characters that no singer can read. Every pattern is
bounded: a long text costs time in proportion only.
"""

import html
import re
import unicodedata
from functools import lru_cache

from .lyrics import half_width, squeeze

_NEAR_CHORDS = 4  # rows
_SHORTEST_WORDS = 8  # characters of a line that a chord of one letter is written above

_TIMES = re.compile(
    r"(?i:(?<![^\W\d_])[x×*]\s?(\d{1,2})(?!\w)|(?<!\w)(\d{1,2})\s?(?:[x×](?!\w)|times\b|veces\b|fois\b|mal\b)"
    r"|(?<!\w)(\d)\s?[번遍回次]|\b(twice|bis|2 veces)\b)"
)
_TIMES_AT_END = re.compile(r"(?i:(?:^|\s)[x×*]\s?(\d{1,2})|(?:^|\s)(\d{1,2})[x×]|×(\d{1,2}))$")
_ROOT = r"[A-G][#b♯♭]?"
_LETTER = re.compile("[A-G]")
_CHORD = re.compile(
    rf"{_ROOT}(?:maj|min|dim|aug|sus|add|m|M|[-+°ø])?\d{{0,2}}(?:(?:sus|add|maj|b|#|\(b?\d\)?)\d{{0,2}}){{0,3}}(?:/{_ROOT})?"
)
# For words in which every run of one letter counts once, so that there are few ways to read one.
_VOCABLE = re.compile(
    r"(?:[oaue]h?|woa?h|whoa?h|yeah?|hey?|h[oa]h?|[lndb]a|d[uo]|sha|mh?|hm|yo|oi|[ae]y|"
    r"[啊哦呜嗚啦噢喔耶嘿哈嗯ラーあオアウ오우예야아라나])+"
)
# One such sound, or it again and again; `Anna` and `Emma` are made of such sounds, too.
_CRY = re.compile(r"([oaue]h?|woa?h?|whoa?h?|yeah?|hey?|h[oa]h?|[lndb]a|d[uo]|sha|mh?|hm|yo|oi|[ae]y)\1*")
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
_SPEAKING_CJK = re.compile("[我你妳您他她俺僕]")
_BETWEEN_VALUES = re.compile(r"[,/&+;|、()]|\b(?:and|y|et|und)\b")
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
_ANNOUNCEMENT = re.compile(r"(?i:(?:sure|certainly|of course|absolutely|here(?:'s| is| are))\b.*:)")
_CHATTER = re.compile(
    r"(?i:(?:sure|certainly|of course|absolutely|here(?:'s| is| are))\b.*\blyrics\b.*"
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


def plain_name(text: str) -> str:
    """`Pré-Refrain` as `pre refrain`."""
    bare = "".join(c for c in unicodedata.normalize("NFD", text) if not "\u0300" <= c <= "\u036f")
    return squeeze(re.sub("[-_]", " ", unicodedata.normalize("NFC", bare).lower())).strip(" :.#*")


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
    rest = plain_name(rest)
    if rest in ("", "repeat", "repeats", "repite", "repetir", "重复", "重複", "반복", "繰り返し"):
        return times if times > 1 else 2 * bool(rest)
    return 0


def is_note(text: str, *, bracketed: bool = False) -> bool:
    """Whether brackets hold a note to the performer: the rule in square ones, the exception in round ones."""
    plain = plain_name(text)
    words = re.findall(r"[^\W\d_][\w']*", plain)
    if not words or is_vocable(plain):
        return bracketed and not words
    if is_style(text, strict=not bracketed) or is_credit(text, strict=not bracketed):
        return True
    told = any(_NOTE_WORD.fullmatch(word) for word in words)
    if not plain.isascii() and _NOTE_CJK.search(plain + " ") and len(plain) <= 10:
        return True
    spoken = speaks(plain)
    if not bracketed:
        return told and not spoken and len(words) <= 3
    return told or ":" in text or (not spoken and len(words) <= 6 and (text.isascii() or len(text) <= 8))


def is_vocable(text: str) -> bool:
    """Whether there is nothing but `ooh, la la`."""
    short = [_single_letters(word) for word in re.findall(r"\w+", text)]
    return bool(short) and all(len(word) <= 16 and _VOCABLE.fullmatch(word) for word in short)


def _single_letters(word: str) -> str:
    return re.sub(r"(.)\1+", r"\1", word.lower())


def is_cry(word: str) -> bool:
    """Whether this is a sound such as `ooh` or `lalala`, and no name."""
    return len(word) <= 16 and _CRY.fullmatch(_single_letters(word)) is not None


def speaks(text: str) -> bool:
    """Whether somebody says something: there are words such as `you`, `she's` or `the`."""
    words = re.findall(r"[^\W\d_][\w']*", plain_name(text))
    return any(_SPEAKING.fullmatch(part) for word in words for part in (word, word.partition("'")[0]))


def is_style(text: str, *, strict: bool = False) -> bool:
    """Whether this is a line such as `Genre: pop`; if `strict`, its value cannot be sung."""
    match = _STYLE.match(text) if len(text) <= 300 else None
    return match is not None and not (strict and not _is_value(text[match.end() :]))


def is_credit(text: str, *, strict: bool = False) -> bool:
    """Whether this is a line such as `Lyrics by Bob`; if `strict`, its value cannot be sung."""
    match = _CREDIT.match(text) if len(text) <= 300 else None
    value = text[match.end() :] if match else ""
    return match is not None and not (strict and not (_is_value(value) or _is_proper_name(value)))


def is_copyright(text: str) -> bool:
    """Whether a line begins with the sign of it, which `clean` would take off."""
    return text.lstrip()[:1] in ("©", "℗")


def _is_value(text: str) -> bool:
    """Whether there are a few keywords, apart from each other, and neither vocables nor sentences."""
    parts = _BETWEEN_VALUES.split(text)
    wordy = any(len(part.split()) > 5 or speaks(part) for part in parts)
    return not (wordy or is_vocable(text) or _SPEAKING_CJK.search(text))


def _is_proper_name(text: str) -> bool:
    """Whether this is `Florence and the Machine`: in lower case are only such words, and none at the ends."""
    words = re.findall(r"[^\W\d_][\w']*", text)
    capital = [word[0].isupper() for word in words]
    small = [_SPEAKING.fullmatch(word) is not None for word in words]
    return bool(words) and capital[0] and capital[-1] and all(c or s for c, s in zip(capital, small))


def is_chord(text: str) -> bool:
    """Whether this is a chord such as `Am7` or `N.C.`."""
    return len(text) <= 12 and (_CHORD.fullmatch(text) is not None or text in ("N.C.", "NC"))


def is_chord_line(line: str) -> bool:
    """Whether a line is chords above the words. `A B C` may be sung."""
    names = re.sub(r"[|%]|(?<= )-+(?= )|\([xX]?\d\)|\b[xX]\d\b", " ", line).split()
    if not names or len(line) > 300 or not all(map(is_chord, names)):
        return False
    return "".join(names) not in "ABCDEFG" or (len(names) == 1 and names[0] != "A")


def letters_among_chords(rows: list[str]) -> set[int]:
    """Places of rows that are one letter each and, by the rows near them, a chord: `B` alone may be sung."""
    filled = [(place, row.strip()) for place, row in enumerate(rows) if row.strip()]
    letters = {at for at, (_, row) in enumerate(filled) if _LETTER.fullmatch(row)}
    if not letters:
        return set()
    chords = {at for at, (_, row) in enumerate(filled) if at not in letters and is_chord_line(row)}

    def above_words(at: int, other: int) -> bool:
        """Chord, words, chord."""
        return other in letters and len(filled[(at + other) // 2][1]) > _SHORTEST_WORDS

    return {
        filled[at][0]
        for at in letters
        if any(near in chords for near in range(at - _NEAR_CHORDS, at + _NEAR_CHORDS + 1))
        or above_words(at, at - 2)
        or above_words(at, at + 2)
    }


def no_lyric(line: str, *, at_edge: bool = False, strict: bool = False, among_chords: bool = True) -> str:
    """Say why a whole line is no lyric, or nothing.

    `strict` is for lines below a heading, which are lyrics if in doubt, `among_chords` for one letter alone.
    """
    if not any(map(str.isalnum, line)):
        return "nothing to sing"
    if len(line) > 300:
        return ""
    plain = re.sub(r"^[#>*_\s-]+|[*_\s]+$", "", line)
    if _DEBRIS.fullmatch(plain):
        return "not part of the lyrics"
    if is_credit(plain, strict=strict):
        return "a credit"
    if is_chord_line(line.strip()) and (among_chords or not _LETTER.fullmatch(line.strip())):
        return "chords"
    chatter = at_edge and (_CHATTER.fullmatch(plain) or (not strict and _ANNOUNCEMENT.fullmatch(plain)))
    return "not part of the lyrics" if chatter else ""


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
