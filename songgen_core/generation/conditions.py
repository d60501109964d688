"""Texts and prompt codes -> the model's conditions: padded ids for the song's row and its null row.

Letters: K streams, n prompt codes per stream, L length of a text prefix.
"""

import logging

import torch
from torch import Tensor

from ..configs import LeLMConfig
from ..models.lelm import Conditions
from ..text.bpe import TextTokenizers
from ..text.request import PromptTexts

log = logging.getLogger("songgen")


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
    _warn_if_cut("lyrics", lyrics[0], config.lyrics_length)
    _warn_if_cut("description", description[0], config.description_length)
    prompt = prompt_rows(prompt_codes, config)
    return Conditions(
        lyrics=_pad(lyrics, config.lyrics_length, pad),
        structure=_pad(structure, config.lyrics_length, 0),
        description=_pad(description, config.description_length, pad),
        prompt=torch.cat([prompt, torch.full_like(prompt, config.special_id)]),
    )


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


def _warn_if_cut(what: str, ids: list[int], length: int) -> None:
    if len(ids) > length:
        log.warning(
            "the %s are %d tokens long, the model reads the first %d: the end is lost", what, len(ids), length
        )
