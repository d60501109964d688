"""Stored prompts: for each genre and language, what the encoders would hear in a piece of some song."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from songgen_core.atomic import complete_or_nothing
from songgen_core.text.lyrics import detect_language

from .lm_batches import SongSource
from .synth.compose import compose
from .synth.request import GENRES, Request

_LANGUAGES = ("zh", "en")
_SECONDS = 12.0
_DRAWS = 300  # after which a lexicon is known to have no words of a language
_SEED = 2_000_003  # songs that no stage trains on


def write_stored_prompts(file: Path, source: SongSource, count: int) -> None:
    """`count` prompts [1, 3, T] for each genre and language, in the layout of the published file.

    A language that no song is in is left out.
    """
    rng = np.random.default_rng(_SEED)
    requests = {language: _requests_in(language, source, count, rng) for language in _LANGUAGES}
    prompts = {
        genre.capitalize(): {
            language: [_prompt(replace(request, genre=genre), source, rng) for request in drawn]
            for language, drawn in requests.items()
            if drawn
        }
        for genre in GENRES
    }
    with complete_or_nothing(file) as temporary:
        torch.save(prompts, temporary)


def _requests_in(language: str, source: SongSource, count: int, rng: np.random.Generator) -> list[Request]:
    """The first ones whose lyrics are in that language; a prompt needs a voice."""
    drawn = (source.make_request(rng, _SECONDS) for _ in range(_DRAWS))
    sung = (request for request in drawn if any(part.lines for part in request.parts))
    return list(islice((r for r in sung if detect_language(r.lyrics) == language), count))


def _prompt(request: Request, source: SongSource, rng: np.random.Generator) -> Tensor:
    return source.prompt_of(compose(request, int(rng.integers(2**62))), rng).int()
