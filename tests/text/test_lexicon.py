"""The program that makes the lexicon, from sources of a few lines."""

import gzip
import json

from songgen_core.text.phonetics import Lexicon
from training.lexicon import CHARACTERS, CMUDICT, HEADER, PHRASES, build

CMU = "a AH\na(2) EY\nad-lib AE D L IH B\nlove L AH V\nlive L AY V\nlive(2) L IH V\n3d TH R IY D IY\n"
READINGS = {
    "4e50": "lè,yuè",
    "97f3": "yīn",
    "5973": "nǚ,rǔ",
    "5730": "dì,de",
    "5927": "dà,dài",
    "54fc": "hng",
}
WORDS = {
    "音乐": [["yīn"], ["yuè"]],
    "大乐": [["dà"], ["lè"]],  # as the characters are read anyway
    "大地": [["dà"], ["dì"]],
    "大大大大乐": [["dà"], ["dà"], ["dà"], ["dà"], ["yuè"]],  # too long
}


def sources(folder):
    characters = {str(int(code, 16)): readings for code, readings in READINGS.items()}
    for name, text in (
        (CMUDICT, CMU),
        (CHARACTERS, json.dumps(characters)),
        (PHRASES, json.dumps(WORDS)),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_what_is_taken_and_what_is_replaced(tmp_path):
    build(sources(tmp_path), tmp_path / "lexicon.txt.gz")
    lexicon = Lexicon.read(tmp_path / "lexicon.txt.gz")
    assert lexicon.english["a"] == "AH"
    assert lexicon.english["live"] == "L IH V"  # songs mean the verb
    assert lexicon.english.keys().isdisjoint({"a(2)", "ad-lib", "3d"})
    assert {char: lexicon.pinyin[char] for char in "乐音女大地"} == {
        **dict(zip("乐音女大地", ("le", "yin", "nü", "da", "de")))
    }
    assert "哼" not in lexicon.pinyin
    assert lexicon.phrases["音乐"] == "yin yue" and lexicon.phrases["大地"] == "da di"
    assert lexicon.phrases.keys().isdisjoint({"大乐", "大大大大乐"})


def test_the_file_is_the_same_each_time_and_carries_its_notices(tmp_path):
    files = [tmp_path / name / "lexicon.txt.gz" for name in ("a", "b")]
    for file in files:
        build(sources(tmp_path), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes()[4:8] == bytes(4)  # gzip would store the hour
    assert gzip.decompress(files[0].read_bytes()).decode("utf-8").startswith(HEADER)
