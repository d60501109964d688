"""Texts that are longer than what the model reads of them."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

import songgen_core
from songgen_core.configs import VARIANTS
from songgen_core.generation.conditions import lost_text, make_conditions
from songgen_core.text.bpe import QWEN2_FOLDER, TextTokenizers, load_tokenizers
from songgen_core.text.request import PromptTexts

TEXTS = PromptTexts(
    "[verse] One two three. Four five six. ; [chorus] Seven eight nine. Ten.",
    "[Musicality-very-high], female, pop, the bpm is 120.",
)
CONFIG = VARIANTS["base"].lm
MINI = Path(songgen_core.__file__).parent / "mini"


@pytest.fixture(params=[QWEN2_FOLDER, MINI], ids=["words", "phones"])
def tokenizers(request: pytest.FixtureRequest) -> TextTokenizers:
    return load_tokenizers(request.param, "v2")


def _notes(tokenizers: TextTokenizers, lyrics: str, description: str) -> list[str]:
    """With prefixes that `lyrics` and `description` fill."""
    config = replace(
        CONFIG,
        lyrics_length=len(tokenizers.lyrics.encode(lyrics)),
        description_length=len(tokenizers.description.encode(description)),
    )
    return lost_text(TEXTS, tokenizers, config)


def test_what_fits_is_not_told_of(tokenizers: TextTokenizers) -> None:
    assert _notes(tokenizers, TEXTS.lyrics, TEXTS.description) == []


@pytest.mark.parametrize(
    "read, lost",
    [
        ("[verse] One two three. Four five six. ;", "[chorus] Seven eight nine"),
        ("[verse] One two three. Four five", "Four five six"),
        (TEXTS.lyrics[: -len(" Ten.")], "Ten"),
        ("[verse]", "[verse] One two three"),
    ],
)
def test_the_first_line_that_is_lost_is_named(tokenizers: TextTokenizers, read: str, lost: str) -> None:
    (note,) = _notes(tokenizers, read, TEXTS.description)
    assert note.startswith("the lyrics are ") and f'"{lost}" and what follows is lost' in note


def test_a_style_that_is_too_long_is_told_of(tokenizers: TextTokenizers) -> None:
    (note,) = _notes(tokenizers, TEXTS.lyrics, "[Musicality-very-high], female, pop")
    assert note.startswith("the description is ") and '"the bpm is 120" and what follows is lost' in note


def test_conditions_that_lose_something_say_so(tokenizers: TextTokenizers, caplog) -> None:
    config = replace(CONFIG, lyrics_length=5)
    with caplog.at_level(logging.WARNING, "songgen"):
        conditions = make_conditions(TEXTS, None, tokenizers, config)
    assert conditions.lyrics.shape == (2, 5)
    assert caplog.messages == lost_text(TEXTS, tokenizers, config)
