"""Texts and prompt codes -> the model's conditions: padded ids for the song's row and its null row.

Letters: K streams, n prompt codes per stream, L length of a text prefix.
"""

import logging
import re
from bisect import bisect_right

import torch
from torch import Tensor

from ..configs import LeLMConfig
from ..models.lelm import Conditions
from ..text.bpe import ReadsText, TextTokenizers
from ..text.request import PromptTexts

log = logging.getLogger("songgen")

_SENTENCE = re.compile(r"[^.,;]+|^[.,;]+$")


def make_conditions(
    texts: PromptTexts, prompt_codes: Tensor | None, tokenizers: TextTokenizers, config: LeLMConfig
) -> Conditions:
    """Conditions of two rows, conditional then null (LeVo spec 5).

    prompt_codes [1, K, n] int64 or None. Texts longer than their prefix are cut; a warning says so.
    """
    pad = tokenizers.pad_id
    lyrics = [tokenizers.lyrics.encode(text) for text in (texts.lyrics, None)]
    structure = [tokenizers.structure(ids) for ids in lyrics]
    description = [
        tokenizers.description.encode(text) for text in (texts.description, texts.null_description)
    ]
    for note in lost_text(texts, tokenizers, config):
        log.warning("%s", note)
    prompt = prompt_rows(prompt_codes, config)
    return Conditions(
        lyrics=_pad(lyrics, config.lyrics_length, pad),
        structure=_pad(structure, config.lyrics_length, 0),
        description=_pad(description, config.description_length, pad),
        prompt=torch.cat([prompt, torch.full_like(prompt, config.special_id)]),
    )


def lost_text(texts: PromptTexts, tokenizers: TextTokenizers, config: LeLMConfig) -> list[str]:
    """A remark for each text that is longer than its prefix: how much the model reads, and what is lost."""
    limits = {
        "lyrics are": (texts.lyrics, tokenizers.lyrics, config.lyrics_length),
        "description is": (texts.description, tokenizers.description, config.description_length),
    }
    notes = []
    for name, (text, tokenizer, length) in limits.items():
        count = len(tokenizer.encode(text))
        if count > length:
            lost = _first_lost(text or "", tokenizer, length)
            notes.append(
                f"the {name} {count} tokens long, the model reads the first {length}:"
                f' "{lost}" and what follows is lost; shorten the text'
            )
    return notes


def _first_lost(text: str, tokenizer: ReadsText, length: int) -> str:
    """The first sentence that does not fit as a whole."""
    sentences = list(_SENTENCE.finditer(text))
    first = bisect_right(sentences, length, key=lambda match: len(tokenizer.encode(text[: match.end()])))
    return sentences[min(first, len(sentences) - 1)][0].strip()


def prompt_codes_of(prompt_codes: Tensor | None, config: LeLMConfig) -> Tensor:
    """Prompt codes cut or padded to exactly [1, K, prompt_frames]; all special without a prompt."""
    out = torch.full((1, config.num_codebooks, config.prompt_frames), config.special_id)
    if prompt_codes is not None:
        kept = prompt_codes[..., : config.prompt_frames]
        out[..., : kept.shape[-1]] = kept
    return out


def banned_codes(prompt_codes: Tensor | None, config: LeLMConfig) -> Tensor | None:
    """Codes of the prompt's mixed stream, [n] int64: a song that may use them copies its prompt."""
    if prompt_codes is None:
        return None
    mixed = prompt_codes_of(prompt_codes, config)[0, 0].unique()
    return mixed[mixed < config.codebook_size]


def prompt_rows(prompt_codes: Tensor | None, config: LeLMConfig) -> Tensor:
    """[1, K, prompt_length - 1]: EOS, then the codes.

    Quirk: a stream whose first code is special is wiped as a whole, EOS included.
    """
    codes = prompt_codes_of(prompt_codes, config)
    rows = torch.cat([torch.full_like(codes[..., :1], config.eos_id), codes], dim=-1)
    rows[codes[..., 0] == config.special_id] = config.special_id
    length = config.prompt_length - 1
    padding = torch.full((*rows.shape[:2], max(0, length - rows.shape[-1])), config.special_id)
    return torch.cat([rows, padding], dim=-1)[..., :length]


def _pad(rows: list[list[int]], length: int, value: int) -> Tensor:
    return torch.tensor([row[:length] + [value] * (length - len(row)) for row in rows])
