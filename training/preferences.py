"""Pairs of songs for the preference stage: the model's own best and worst for a request, by their codes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from songgen_core.atomic import complete_or_nothing
from songgen_core.generation.conditions import make_conditions
from songgen_core.models.lelm import Conditions, LeLM
from songgen_core.text.request import prompt_texts
from songgen_core.writing import default_sampling

from .factors import plain
from .lm_batches import SongSource
from .lm_measure import judge_song, longest_of, write
from .synth.request import Request

# What figures of a song are worth; shares count up to this, errors (below 0) at most.
WEIGHTS = {
    "phone_errors": -1.0,
    "length_off": -0.5,
    "tempo_right": 0.3,
    "streams_agree": 0.3,
    "gender_right": 0.2,
    "mode_right": 0.2,
    "tonic_share": 0.2,
    "instrument_right": 0.1,
}


@dataclass(frozen=True)
class PairOptions:
    """How pairs are drawn.

    count of pairs; candidates: songs for each request; margin: by how much the best must be better than the
    worst. temperature: at which they are drawn, None is the model's own. Some requests give no pair: after
    `patience` times `count` of them it is over.
    """

    count: int = 200
    held_out: int = 32
    candidates: int = 4
    margin: float = 0.15
    temperature: float | None = None
    group: int = 4  # requests that are written side by side
    patience: int = 4


@dataclass(frozen=True)
class Pair:
    """conditions: one row. best, worst [K, T] int64, shorter than `longest` if the model ended them."""

    conditions: Conditions
    best: Tensor
    worst: Tensor
    longest: int
    scores: tuple[float, float]


def score(request: Request, codes: Tensor) -> float:
    """How good a song [K, T] is; what is absent is worth nothing."""
    figures = judge_song(request, codes.numpy(), streams=3)
    return sum(weight * min(1.0, figures.get(name, 0.0)) for name, weight in WEIGHTS.items())


def draw_pairs(
    lm: LeLM, source: SongSource, options: PairOptions, seconds: tuple[float, float], seed: int, file: Path
) -> list[Pair]:
    """Pairs of songs of `lm`, kept in `file`: what an earlier call drew is read, what is missing is added.

    Raises ValueError if no request gives a pair.
    """
    pairs, tried = _read(file)
    most = options.count * options.patience
    writer = plain(lm)
    with tqdm(total=options.count, initial=len(pairs), desc=file.stem, mininterval=2) as bar:
        while len(pairs) < options.count and tried < most:
            numbers = range(tried, min(most, tried + options.group))
            found = [p for p in _pairs_of(writer, source, options, seconds, seed, numbers) if p is not None]
            pairs, tried = pairs + found, numbers.stop
            _write(file, pairs, tried)
            bar.update(len(found))
    if not pairs:
        raise ValueError(
            f"{tried} requests gave no songs that differ by {options.margin:g}; lower the margin"
        )
    return _read(file)[0][: options.count]


def _pairs_of(
    lm: LeLM,
    source: SongSource,
    options: PairOptions,
    seconds: tuple[float, float],
    seed: int,
    numbers: Sequence[int],
) -> list[Pair | None]:
    """A pair, or none, for each number of a request."""
    requests = []
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        requests.append(source.make_request(rng, float(rng.uniform(*seconds))))
    longest = longest_of(seconds[1])
    asked = [request for request in requests for _ in range(options.candidates)]
    sampling = default_sampling(lm.config)
    if options.temperature is not None:
        sampling = replace(sampling, temperature=options.temperature)
    songs = write(lm, source, asked, longest, 1_000 * seed + numbers[0] * options.candidates, sampling)
    pairs = []
    for place, request in enumerate(requests):
        own = songs[place * options.candidates : (place + 1) * options.candidates]
        pairs.append(_pair_of(request, [s for s in own if s.shape[-1]], source, options.margin, longest))
    return pairs


def _pair_of(
    request: Request, songs: Sequence[Tensor], source: SongSource, margin: float, longest: int
) -> Pair | None:
    if len(songs) < 2:
        return None
    scores = [score(request, song) for song in songs]
    best, worst = int(np.argmax(scores)), int(np.argmin(scores))
    if scores[best] - scores[worst] < margin:
        return None
    texts = prompt_texts(request.lyrics, request.description, source.config.text_version)
    rows = make_conditions(texts, None, source.tokenizers, source.config)
    row = Conditions(*(part[:1] for part in rows))
    return Pair(row, songs[best], songs[worst], longest, (scores[best], scores[worst]))


def _write(file: Path, pairs: Sequence[Pair], tried: int) -> None:
    rows = [_own({**vars(pair), "conditions": pair.conditions._asdict()}) for pair in pairs]
    with complete_or_nothing(file) as temporary:
        torch.save({"tried": tried, "pairs": rows}, temporary)


def _own(value: object) -> object:
    """Tensors with storage of their own: a slice would be saved with all that it was cut from."""
    if isinstance(value, Mapping):
        return {name: _own(part) for name, part in value.items()}
    return value.clone() if isinstance(value, Tensor) else value


def _read(file: Path) -> tuple[list[Pair], int]:
    """Pairs, and how many requests were tried for them."""
    if not file.exists():
        return [], 0
    state = torch.load(file, weights_only=True)
    pairs = [Pair(**{**row, "conditions": Conditions(**row["conditions"])}) for row in state["pairs"]]
    return pairs, state["tried"]
