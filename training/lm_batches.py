"""Batches for the language model: requests and scores made on the fly, as the model will be asked.

Letters: B songs, K streams, T frames, S columns.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from songgen_core.configs import FRAME_RATE, LeLMConfig, OutputType
from songgen_core.generation.conditions import make_conditions
from songgen_core.generation.delay import apply_delay
from songgen_core.models.lelm import Conditions
from songgen_core.text.bpe import TextTokenizers
from songgen_core.text.phone_tokens import FRAMES_PER_BEAT, frames_per_beat
from songgen_core.text.request import prompt_texts

from .codes import TIMBRES, heard_code
from .synth.beats import BEATS_PER_BAR
from .synth.compose import Score, compose
from .synth.request import Part, Request

_LONGEST = 1.3  # times the seconds of a batch: what is longer is cut

MakeRequest = Callable[[np.random.Generator, float], Request]  # seconds


@dataclass(frozen=True)
class Dropout:
    """How often a song is shown without one of its conditions; `voice`: as accompaniment alone is asked for,
    nobody sings, and it never ends: its length is not told, so it plays as long as it may."""

    everything: float = 0.1  # the row of guidance
    description: float = 0.1
    prompt: float = 0.85
    voice: float = 0.06


@dataclass(frozen=True)
class SongBatch:
    """inputs, targets [B, K, S] int64; targets are -100 where nothing is to be learned."""

    conditions: Conditions
    inputs: Tensor
    targets: Tensor


class SongSource:
    """Draws songs, whole or in batches of about equal length."""

    def __init__(
        self,
        make_request: MakeRequest,
        tokenizers: TextTokenizers,
        config: LeLMConfig,
        dropout: Dropout = Dropout(),
    ) -> None:
        self.make_request, self.tokenizers = make_request, tokenizers
        self.config, self.dropout = config, dropout

    def batch(self, rng: np.random.Generator, size: int, seconds: float) -> SongBatch:
        """`size` songs of about `seconds`; longer ones are cut."""
        rows, codes = [], []
        for _ in range(size):
            request = self.make_request(rng, seconds)
            output: OutputType = "mixed"
            if rng.random() < self.dropout.voice:
                request, output = instrumental(request, _LONGEST * seconds), "bgm"
            score = compose(request, int(rng.integers(2**62)))
            prompt = None
            if rng.random() >= self.dropout.prompt:
                twin = compose(same_style(request, score), int(rng.integers(2**62)))
                prompt = self.prompt_of(twin, rng)
            rows.append(self.conditions(request, prompt, rng, output))
            codes.append(torch.from_numpy(score.codes))
        conditions = Conditions(*(torch.cat(parts) for parts in zip(*rows)))
        return SongBatch(conditions, *columns(codes, int(_LONGEST * seconds * FRAME_RATE), self.config))

    def conditions(
        self, request: Request, prompt: Tensor | None, rng: np.random.Generator, output: OutputType = "mixed"
    ) -> Conditions:
        """One row: the song's, or with some luck a poorer one."""
        description = None if rng.random() < self.dropout.description else request.description
        texts = prompt_texts(request.lyrics, description, self.config.text_version, output)
        rows = make_conditions(texts, prompt, self.tokenizers, self.config)
        row = int(rng.random() < self.dropout.everything)
        return Conditions(*(part[row : row + 1] for part in rows))

    def prompt_of(self, score: Score, rng: np.random.Generator) -> Tensor:
        """What the encoders would hear in a piece of a song, [1, K, prompt_frames] int64."""
        length = min(self.config.prompt_frames, score.codes.shape[-1])
        start = int(rng.integers(score.codes.shape[-1] - length + 1))
        piece = slice(start, start + length)
        heard = heard_code(score.phone[piece], score.pulse[piece])
        return torch.from_numpy(np.stack([heard, *score.codes[1:, piece]]))[None]


def instrumental(request: Request, seconds: float) -> Request:
    """A song of `seconds` or more in the style of `request` that nobody sings."""
    fpb = frames_per_beat(request.bpm) if request.bpm is not None else min(FRAMES_PER_BEAT)
    bars = max(0, math.ceil(seconds * FRAME_RATE / (BEATS_PER_BAR * fpb)) - 4)
    middle = ["inst-medium"] * (bars // 4) + ["inst-short"] * math.ceil(bars % 4 / 2)
    tags = ["intro-short", *middle, "outro-short"]
    return replace(request, parts=tuple(map(Part, tags)), longest=None)


def same_style(request: Request, score: Score) -> Request:
    """`request` with everything told that `score` has chosen."""
    return replace(
        request,
        gender=score.gender,
        genre=score.genre,
        instrument=TIMBRES[score.timbre],
        bpm=round(1500 / score.frames_per_beat),
        key=score.key,
    )


def columns(codes: list[Tensor], longest: int, config: LeLMConfig) -> tuple[Tensor, Tensor]:
    """Inputs and targets [B, K, S] of songs [K, T] each, with their ends; songs of `longest` or more have
    none."""
    sequences = []
    for song in codes:
        ended = torch.cat([song, torch.full((len(song), 1), config.eos_id)], dim=-1)
        sequences.append(apply_delay(ended[None, :, :longest], config.delays, config.special_id)[0])
    width = max(s.shape[-1] for s in sequences)
    padded = torch.full((len(codes), config.num_codebooks, width), config.special_id)
    for row, sequence in zip(padded, sequences):
        row[:, : sequence.shape[-1]] = sequence
    targets = padded[..., 1:].masked_fill(padded[..., 1:] == config.special_id, -100)
    return padded[..., :-1], targets
