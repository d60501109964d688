"""Stored prompts: tokens of published examples, sorted by genre, in place of a recording.

LeVo spec, codec encoder 6.2. Letter: T frames.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint.files import TORCH_SUFFIXES, check_file, read_torch_object
from ..errors import CheckpointError, UserError
from ..seeds import check_seed

# Genres of the current file, new_auto_prompt.pt; the last one means any.
GENRES = (
    "Pop",
    "Latin",
    "Rock",
    "Electronic",
    "Metal",
    "Country",
    "R&B/Soul",
    "Ballad",
    "Jazz",
    "World",
    "Hip-Hop",
    "Funk",
    "Soundtrack",
    "Auto",
)

_ANY_GENRE = "Auto"
_ANY_LANGUAGE = ""  # of the older files, which do not tell languages apart
_PADDING = 16385  # the largest token a prompt may hold
_NEEDED = "get the stored prompts, tools/new_auto_prompt.pt, from the model's publisher"


@dataclass(frozen=True)
class Presets:
    """Stored prompts by genre and language; made by `load_presets`."""

    prompts: dict[str, dict[str, tuple[Tensor, ...]]]  # genre -> language -> [1, 3, T] int64 each

    @property
    def genres(self) -> tuple[str, ...]:
        """What `choose` takes, in the order of the file; `Auto` (any genre) is always there."""
        return (*(genre for genre in self.prompts if genre != _ANY_GENRE), _ANY_GENRE)

    def languages(self, genre: str) -> tuple[str, ...]:
        """Languages that `genre` has prompts in; empty where the file does not tell languages apart."""
        return tuple(language for language in self._of(genre) if language != _ANY_LANGUAGE)

    def choose(self, genre: str, language: str, seed: int) -> Tensor:
        """A prompt [1, 3, T] int64 (rows mixed, vocal, accompaniment), each one as likely as the others.

        Spelling of the genre is taken lightly: "hip hop" is "Hip-Hop". `language` is zh or en, as
        `text.lyrics.detect_language` tells; files without languages ignore it. The same seed chooses the
        same prompt. Raises UserError for a genre or language that the file does not have.
        """
        check_seed(seed)
        by_language = self._of(genre)
        prompts = by_language.get(language) or by_language.get(_ANY_LANGUAGE)
        if not prompts:
            raise UserError(
                f"the stored prompts have no '{genre}' in the language '{language}';"
                f" use one of {', '.join(by_language)} or another genre"
            )
        return random.Random(seed).choice(prompts).clone()

    def _of(self, genre: str) -> dict[str, tuple[Tensor, ...]]:
        """Language -> prompts of a genre; of all genres together for an `Auto` that the file lacks."""
        names = {_plain(name): name for name in self.genres}
        if _plain(genre) not in names:
            raise UserError(f"the genre '{genre}' has no stored prompts; use one of {', '.join(self.genres)}")
        name = names[_plain(genre)]
        return self.prompts[name] if name in self.prompts else self._pooled()

    def _pooled(self) -> dict[str, tuple[Tensor, ...]]:
        languages = dict.fromkeys(language for genre in self.prompts.values() for language in genre)
        return {
            language: tuple(p for genre in self.prompts.values() for p in genre.get(language, ()))
            for language in languages
        }


def load_presets(path: Path) -> Presets:
    """Stored prompts of new_auto_prompt.pt, or of an older file without languages. Raises CheckpointError."""
    check_file(path)
    if path.suffix not in TORCH_SUFFIXES:
        raise CheckpointError(f"{path} is no file of stored prompts, which ends in .pt; {_NEEDED}")
    loaded = read_torch_object(path)
    if not isinstance(loaded, dict) or not all(isinstance(genre, str) for genre in loaded):
        raise CheckpointError(f"{path} is no table of genres; {_NEEDED}")
    prompts = {genre: _languages(entry, genre, path) for genre, entry in loaded.items()}
    prompts = {genre: languages for genre, languages in prompts.items() if languages}
    if not prompts:
        raise CheckpointError(f"{path} holds no prompts; {_NEEDED}")
    return Presets(prompts)


def _languages(entry: Any, genre: str, path: Path) -> dict[str, tuple[Tensor, ...]]:
    """Language -> prompts of one genre, checked; a language with an empty list is left out."""
    by_language = entry if isinstance(entry, dict) else {_ANY_LANGUAGE: entry}
    checked = {}
    for language, prompts in by_language.items():
        where = f"{path}: '{genre}'" + (f", '{language}'" if language != _ANY_LANGUAGE else "")
        if not isinstance(language, str) or not isinstance(prompts, list | tuple):
            raise CheckpointError(f"{where} is no list of prompts; {_NEEDED}")
        if prompts:
            checked[language] = tuple(_prompt(p, f"{where}, number {i}") for i, p in enumerate(prompts, 1))
    return checked


def _prompt(tensor: Any, where: str) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise CheckpointError(f"{where} is no tensor but {type(tensor).__name__}; {_NEEDED}")
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    if not whole or tensor.dim() != 3 or tensor.shape[:2] != (1, 3) or tensor.shape[2] == 0:
        shape = list(tensor.shape)
        raise CheckpointError(f"{where} is {tensor.dtype} {shape}, not integers [1, 3, T]; {_NEEDED}")
    tokens = tensor.to(torch.int64)
    low, high = torch.aminmax(tokens)
    if low < 0 or high > _PADDING:
        raise CheckpointError(f"{where} has tokens {int(low)}..{int(high)} outside 0..{_PADDING}; {_NEEDED}")
    return tokens


def _plain(genre: str) -> str:
    """Letters and digits alone, so that hip-hop, Hip Hop and HipHop are one."""
    return "".join(char for char in genre.casefold() if char.isalnum())
