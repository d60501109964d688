"""The help pages of the nodes speak of nodes, inputs and errors that exist, alike in each language."""

import json
import re
from itertools import chain
from pathlib import Path

import pytest

from songgen_core import OUTPUTS, VARIANTS
from songgen_core.analysis import covers, cuts, visuals
from songgen_core.audio.files import FORMATS
from songgen_core.devices import DTYPES
from songgen_core.engine import ENGINES, WEIGHTS

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "web" / "docs"
LANGUAGES = ("en", "zh", "ja")
TEXTS = {
    language: json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    for language in LANGUAGES
}
NODE_IDS = sorted(TEXTS["en"])
# What stands in inputs; ckpt and demucs are a folder and a package.
VALUES = {
    *chain(OUTPUTS, VARIANTS, FORMATS, DTYPES, ENGINES, WEIGHTS, visuals.STYLES, covers.STYLES, cuts.ORDERS),
    *("mini", "selftest", "auto", "any", "zh", "en", "srt", "lrc", "ckpt", "demucs"),
}
CODE = r"`([a-z][a-z0-9_]*)`"
NAMED = {"zh": "“([^”]+)”", "ja": "「([^」]+)」"}  # nodes, inputs and outputs; in English inputs are code

each_page = pytest.mark.parametrize(
    ("node", "language"), [(node, language) for node in NODE_IDS for language in LANGUAGES]
)


def page(node, language):
    """The text of a help page without its blocks of code."""
    path = PAGES / f"{node}.md" if language == "en" else PAGES / node / f"{language}.md"
    return re.sub("^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def without_unit(name):
    return name.partition(" (")[0]


def names_of(node, language):
    """What a node and its inputs and outputs are called."""
    texts = TEXTS[language][node]
    sockets = (*texts["inputs"].values(), *texts["outputs"].values())
    return {without_unit(name) for name in (texts["display_name"], *(s["name"] for s in sockets))}


def spoken_of(node, language):
    """A node, and those whose names are on its page."""
    text = page(node, language)
    return {node, *(n for n in NODE_IDS if without_unit(TEXTS[language][n]["display_name"]) in text)}


def source():
    """All strings of the code in one row, what is put into them as digits."""
    files = chain((ROOT / "nodes").glob("*.py"), (ROOT / "songgen_core").rglob("*.py"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    joined = re.sub(r"""["']\n\s*f?["']""", "", text)
    return re.sub(r'\{[^{}\n"]*\}', "0", joined).replace('\\"', '"')


SOURCE = source()


def test_there_is_a_page_for_each_node_and_no_other():
    pages = {path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*") if path.is_file()}
    translated = {f"{node}/{language}.md" for node in NODE_IDS for language in LANGUAGES[1:]}
    assert pages == translated | {f"{node}.md" for node in NODE_IDS}


@each_page
def test_a_page_has_the_parts_of_the_english_one_and_is_short(node, language):
    text, english = page(node, language), page(node, "en")
    for mark in ("^## ", "^- ", r"^\d\. "):
        assert len(re.findall(mark, text, re.M)) == len(re.findall(mark, english, re.M)), mark
    assert len(re.findall("^## ", text, re.M)) == 4
    assert 15 <= text.count("\n") <= 50
    assert "![" not in text and "http" not in text  # pages are read without a network


@each_page
def test_a_page_names_only_inputs_outputs_and_values_that_exist(node, language):
    known = set(VALUES)
    for other in spoken_of(node, language):
        texts = TEXTS["en"][other]
        outputs = {output["name"] for output in texts["outputs"].values()}
        known |= {*texts["inputs"], *outputs, *names_of(other, "en")}
    assert set(re.findall(CODE, page(node, language))) - known == set()


@pytest.mark.parametrize("language", NAMED)
@pytest.mark.parametrize("node", NODE_IDS)
def test_a_translated_page_calls_everything_by_its_translated_name(node, language):
    known = set().union(*(names_of(other, language) for other in spoken_of(node, language)))
    named = {without_unit(name) for name in re.findall(NAMED[language], page(node, language))}
    assert named - known == set()


@each_page
def test_errors_are_quoted_as_the_code_tells_them(node, language):
    """Pieces of three words and more between what varies: dots, suffixes, numbers and brackets."""
    wrong_section = page(node, language).split("\n## ")[3]
    quoted = re.findall(r"\*([^*\n]+)\*", wrong_section)
    pieces = chain.from_iterable(re.split(r"\.[\w.]*|\d+|\(.*?\)", message) for message in quoted)
    phrases = [piece.strip(" ,") for piece in pieces if len(piece.split()) >= 3]
    assert [phrase for phrase in phrases if phrase not in SOURCE] == []
