"""Toneless pinyin and kana -> syllables, in the phones of English that come nearest."""

import unicodedata

from .syllables import VOWELS, Syllable


def _table(text: str) -> dict[str, tuple[str, ...]]:
    pairs = (entry.strip().partition("=") for entry in text.split(","))
    return {name: tuple(phones.split()) for name, _, phones in pairs}


_INITIALS = _table(
    "b=B, p=P, m=M, f=F, d=D, t=T, n=N, l=L, g=G, k=K, h=HH, j=JH, q=CH, x=SH, zh=JH, ch=CH, sh=SH, r=ZH,"
    "z=D Z, c=T S, s=S"
)
_FINALS = _table(
    "a=AA, o=AO, e=AH, ai=AA Y, ei=EH Y, ao=AA W, ou=AO W, an=AA N, en=AH N, ang=AA NG, eng=AH NG, ong=UH NG,"
    "er=ER, i=IY, ia=Y AA, ie=Y EH, io=Y AO, iao=Y AA W, iu=Y AO W, ian=Y EH N, in=IY N, iang=Y AA NG,"
    "ing=IY NG, iong=Y UH NG, u=UW, ua=W AA, uo=W AO, uai=W AA Y, ui=W EH Y, uan=W AA N, un=W AH N,"
    "uang=W AA NG, ueng=W AH NG, ü=YU, üe=Y EH, üan=Y EH N, ün=YU N"
)
# Syllables without an initial are written with y and w; these are the finals that they stand for.
_WRITTEN = {
    name: phones[0]
    for name, phones in _table(
        "yi=i, ya=ia, yo=io, ye=ie, yao=iao, you=iu, yan=ian, yin=in, yang=iang, ying=ing, yong=iong, yu=ü,"
        "yue=üe, yuan=üan, yun=ün, wu=u, wa=ua, wo=uo, wai=uai, wei=ui, wan=uan, wen=un, wang=uang, weng=ueng"
    ).items()
}
_APICAL = ("zh", "ch", "sh", "r", "z", "c", "s")  # their i is no IY
_KANA_VOWELS = {"A": "AA", "I": "IY", "U": "UW", "E": "EH", "O": "AO"}
_KANA_CONSONANTS = _table(
    "K=K, G=G, S=S, Z=Z, T=T, D=D, N=N, H=HH, B=B, P=P, M=M, Y=Y, R=R, W=W, V=V,"
    "SI=SH, ZI=JH, TI=CH, DI=JH, TU=T S, DU=Z, HU=F"
)


def pinyin_syllable(pinyin: str) -> Syllable | None:
    """The syllable of toneless pinyin ("zhuang", "lü"); None for what is no pinyin."""
    initial = next((pinyin[:n] for n in (2, 1) if pinyin[:n] in _INITIALS), "")
    final = pinyin[len(initial) :] if initial else _WRITTEN.get(pinyin, pinyin)
    if initial in ("j", "q", "x") and final.startswith("u"):
        final = "ü" + final[1:]
    phones = _FINALS.get(final)
    if phones is None:
        return None
    if final == "i" and initial in _APICAL:
        phones = ("IH",)
    elif final == "üe" and initial in ("l", "n"):
        phones = ("YU",)
    return _split((*_INITIALS.get(initial, ()), *phones))


def kana_syllables(kana: str) -> list[Syllable]:
    """One syllable per kana; small ya, yu, yo and vowels join the kana before, so does n as its coda.

    The long mark holds the vowel for a syllable more; a small tsu is not heard.
    """
    sung: list[Syllable] = []
    for char in unicodedata.normalize("NFKC", kana):
        name = unicodedata.name(char, "").rpartition("LETTER ")[2]
        small, sound = name.startswith("SMALL "), name.removeprefix("SMALL ")
        if char == "ー" and sung:
            sung.append(Syllable((), sung[-1].vowel))
        elif sound == "N" and sung and not sung[-1].coda:
            sung[-1] = Syllable(sung[-1].onset, sung[-1].vowel, ("N",))
        elif sound == "N":
            sung.append(Syllable((), "UW", ("N",)))
        elif small and sung and sound != "TU" and sound[-1:] in _KANA_VOWELS:
            sung[-1] = _with_small(sung[-1], sound)
        elif not small and sound[-1:] in _KANA_VOWELS:
            onset = _KANA_CONSONANTS.get(sound) or _KANA_CONSONANTS.get(sound[:-1], ())
            sung.append(Syllable(onset, _KANA_VOWELS[sound[-1]]))
    return sung


def _with_small(syllable: Syllable, small: str) -> Syllable:
    """A kana and the small one behind it: ki + ya is K Y AA, shi + yu is SH UW, fu + a is F AA."""
    # A second small kana only draws the vowel out.
    takes_glide = syllable.onset[-1:] not in (("SH",), ("CH",), ("JH",), ("Y",))
    glide = ("Y",) if small[0] == "Y" and takes_glide else ()
    return Syllable((*syllable.onset, *glide), _KANA_VOWELS[small[-1]])


def _split(phones: tuple[str, ...]) -> Syllable:
    """A syllable from phones of which exactly one is a vowel."""
    vowel = next(i for i, phone in enumerate(phones) if phone in VOWELS)
    return Syllable(phones[:vowel], phones[vowel], phones[vowel + 1 :])
