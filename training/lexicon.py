"""The lexicon of the mini model: English from the CMU dictionary, Mandarin from the tables of pypinyin.

    pip install --target sources --no-deps pocketsphinx==5.1.1 pypinyin==0.55.0
    python -m training.lexicon --sources sources --out mini/lexicon.txt.gz

The same sources give the same file, byte for byte. It holds nothing but these two tables, both of whose
licences let it be passed on with their notice (see NOTICE); that notice is the file's header.
"""

import argparse
import gzip
import json
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

from songgen_core.atomic import complete_or_nothing
from songgen_core.text.east_asian import pinyin_syllable
from songgen_core.text.phonetics import LEXICON_NAME, LONGEST_PHRASE, SECTIONS

CMUDICT = Path("pocketsphinx", "model", "en-us", "cmudict-en-us.dict")
CHARACTERS = Path("pypinyin", "pinyin_dict.json")
PHRASES = Path("pypinyin", "phrases_dict.json")
HEADER = """\
# Pronunciations for singing, made by training/lexicon.py.
# English: the CMU Pronouncing Dictionary, Copyright (c) 1999-2016 Carnegie Mellon University. All rights
# reserved. The first pronunciation of each word, some replaced by the one that songs mean.
# Mandarin: pypinyin, Copyright (c) 2016 mozillazg, 闲耘. MIT License. Tones left out.
# The conditions and disclaimers of both licences are in NOTICE, which goes with this file.
"""


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",")]


# Where songs mean another pronunciation than the first of the dictionary.
SUNG = dict(
    pair.split("=")
    for pair in _entries(
        "aah=AA, ah=AA, bass=B EY S, bow=B OW, brr=B ER, can=K AE N, close=K L OW Z, da=D AA,"
        "every=EH V ER IY, grr=G ER, hmm=HH AH M, hour=AW ER, hours=AW ER Z, la=L AA, lead=L IY D,"
        "live=L IH V, mm=AH M, na=N AA, ooh=UW, our=AW ER, read=R IY D, shh=SH IH, tear=T IH R, use=Y UW Z,"
        "was=W AH Z, wind=W IH N D"
    )
)
# The same for characters on their own, and for a few words that no phrase of the table covers.
SUNG_CHARACTERS = {"地": "de", "得": "de", "弹": "tan", "长": "chang", "嗯": "en", "哦": "o", "喔": "o"}
SUNG_PHRASES = {"地上": "di shang", "满地": "man di", "得到": "de dao", "长发": "chang fa"}
NOT_SUNG_PHRASES = ("落下",)  # literary readings


def build(sources: Path, out: Path) -> None:
    """Write the lexicon from the installed packages in `sources`."""
    characters = mandarin_characters(json.loads((sources / CHARACTERS).read_text(encoding="utf-8")))
    phrases = json.loads((sources / PHRASES).read_text(encoding="utf-8"))
    by_pinyin: dict[str, list[str]] = defaultdict(list)
    for char in sorted(characters):
        by_pinyin[characters[char]].append(char)
    lines = [
        HEADER.rstrip("\n"),
        SECTIONS[0],
        *(f"{word} {phones}" for word, phones in sorted(english_words(sources / CMUDICT).items())),
        SECTIONS[1],
        *(f"{pinyin} {''.join(chars)}" for pinyin, chars in sorted(by_pinyin.items())),
        SECTIONS[2],
        *(f"{text} {pinyin}" for text, pinyin in sorted(mandarin_phrases(phrases, characters).items())),
    ]
    data = gzip.compress("\n".join([*lines, ""]).encode("utf-8"), compresslevel=9, mtime=0)
    with complete_or_nothing(out) as temporary:
        temporary.write_bytes(data)


def english_words(path: Path) -> dict[str, str]:
    """The first pronunciation of every word in the letters a to z and apostrophes."""
    entries = (line.strip().partition(" ") for line in path.read_text(encoding="utf-8").splitlines())
    return {word: phones for word, _, phones in entries if re.fullmatch("[a-z']+", word)} | SUNG


def mandarin_characters(table: dict[str, str]) -> dict[str, str]:
    """Toneless pinyin of every character of the basic plane; `table` maps code points to readings."""
    first = {chr(int(code)): _toneless(readings.partition(",")[0]) for code, readings in table.items()}
    # The ranges that the reader takes for Chinese.
    known = {c: name for c, name in first.items() if "\u3007" <= c <= "\u9fff" and pinyin_syllable(name)}
    return known | SUNG_CHARACTERS


def mandarin_phrases(table: dict[str, list[list[str]]], characters: dict[str, str]) -> dict[str, str]:
    """Phrases whose characters are not read as they are on their own."""
    found: dict[str, str] = {}
    for text, readings in table.items():
        names = [_toneless(reading[0]) for reading in readings]
        if len(names) != len(text) or len(text) > LONGEST_PHRASE or text in NOT_SUNG_PHRASES:
            continue
        if all(map(pinyin_syllable, names)) and names != [characters.get(char) for char in text]:
            found[text] = " ".join(names)
    return found | SUNG_PHRASES


def _toneless(pinyin: str) -> str:
    """lǜ -> lü: marks off, but for the dots of ü."""
    letters = unicodedata.normalize("NFD", pinyin).replace("u\u0308", "ü")
    return "".join(char for char in letters if not unicodedata.combining(char))


def main() -> None:
    """Read the arguments and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sources", type=Path, required=True, help="folder of the two installed packages")
    parser.add_argument("--out", type=Path, default=Path("mini", LEXICON_NAME), help="file to write")
    given = parser.parse_args()
    build(given.sources, given.out)


if __name__ == "__main__":
    main()
