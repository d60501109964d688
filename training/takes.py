"""Songs with their sound, kept in memory while networks of the codec train on pieces of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from songgen_core.configs import FRAME_RATE, SAMPLE_RATE

from .synth.compose import compose
from .synth.render import render
from .synth.request import Request
from .synth.score import Score

HOP = SAMPLE_RATE // FRAME_RATE  # samples of a frame


@dataclass(frozen=True, eq=False)
class Take:
    """A score and what it sounds like: vocal and accompaniment, [2, N] float16 each."""

    score: Score
    vocal: NDArray[np.float16]
    bgm: NDArray[np.float16]

    def sound(self, start: int, end: int, tracks: Sequence[str] = ("vocal", "bgm")) -> Tensor:
        """The sum of `tracks` from frame `start` up to `end`, or the song's, [2, N] float32."""
        end = min(end, self.num_frames)
        piece = slice(start * HOP, end * HOP)
        total = torch.zeros(2, (end - start) * HOP)
        for track in tracks:
            total += torch.from_numpy(getattr(self, track)[:, piece].astype(np.float32))
        return total

    @property
    def num_frames(self) -> int:
        return len(self.score.phone)


def make_corpus(
    make_request: Callable[[np.random.Generator, float], Request],
    count: int,
    seconds: float,
    seed: int,
    name: str = "corpus",
) -> list[Take]:
    """`count` songs of about `seconds`; 1 minute takes 46 MB."""
    takes = []
    for number in tqdm(range(count), desc=name, mininterval=2):
        rng = np.random.default_rng([seed, number])
        score = compose(make_request(rng, seconds), int(rng.integers(2**62)))
        vocal, bgm = render(score)
        takes.append(Take(score, vocal.astype(np.float16), bgm.astype(np.float16)))
    return takes


def crop(take: Take, frames: int, rng: np.random.Generator, grid: int = 1) -> int:
    """The first frame of a piece of `frames`, a multiple of `grid`; 0 where the song is no longer."""
    return int(rng.integers(max(0, take.num_frames - frames) // grid + 1)) * grid
