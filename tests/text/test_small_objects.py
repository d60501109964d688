"""Reading what a model's texts need leaves no holes in Python's memory.

Small objects live in arenas of a megabyte, which are given back only when they are empty. Many that are there
for a moment spread what is kept over many arenas, a little more with each model that a server loads.
"""

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest

from songgen_core.text.bpe import QWEN2_FOLDER
from songgen_core.text.phonetics import LEXICON_NAME

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
from songgen_core.text.bpe import load_tokenizers, read_vocab_size
kept = load_tokenizers(Path(sys.argv[1]), "v2"), read_vocab_size(Path(sys.argv[1]))
sys._debugmallocstats()
"""


def arenas(folder: Path) -> tuple[int, int]:
    """At the most, and with the tokenizers of `folder` loaded, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = [
        re.search(rf"# arenas {what} += +(\d+)", done.stderr)
        for what in ("highwater mark", "allocated current")
    ]
    if None in found:
        pytest.skip("this Python keeps small objects elsewhere")
    most, kept = (int(match[1]) for match in found)
    return most, kept


def test_a_vocabulary_of_150_000():
    most, kept = arenas(QWEN2_FOLDER)
    assert most - kept <= 2


def test_a_lexicon_of_100_000_words(tmp_path):
    words = "\n".join(f"word{number:x} W ER D" for number in range(100_000))
    text = f"[english]\n{words}\n[pinyin]\n[phrases]\n"
    (tmp_path / LEXICON_NAME).write_bytes(gzip.compress(text.encode()))
    most, kept = arenas(tmp_path)
    assert most - kept <= 2 < kept
