"""How well the language model writes: losses on held-out songs, and what the codes it draws say.

Songs are drawn as users get them (guided, with the model's own sampling), and read by their labels: phones
sung against phones asked for, tempo, mode and key, range of the voice, voice in sung sections only, length.
"""

from collections.abc import Sequence
from statistics import mean

import numpy as np
import torch
from torch import Tensor

from songgen_core.engine import load_engine
from songgen_core.generation.conditions import make_conditions
from songgen_core.generation.songs import SongTask
from songgen_core.models.lelm import LeLM
from songgen_core.text.request import prompt_texts
from songgen_core.text.syllables import PHONES
from songgen_core.writing import default_sampling

from .codes import BEAT, NUM_MIXED, split_bgm, split_mixed, split_vocal
from .factors import plain
from .lm import all_logits, mixed_logits, stream_losses
from .lm_batches import SongSource
from .loop import Measure
from .synth.compose import Score, compose
from .synth.request import Request

SECONDS = 12.0
_DEVICE = torch.device("cpu")


def lm_measure(lm: LeLM, source: SongSource, songs: int, *, streams: int, seed: int = 1_000_003) -> Measure:
    """Measures a model that has learned the mixed stream (`streams` 1) or all (3)."""

    def measure() -> dict[str, float]:
        rng = np.random.default_rng(seed)
        batch = source.batch(rng, songs, SECONDS)
        if streams == 1:
            losses = stream_losses(mixed_logits(lm, batch)[:, None], batch.targets[:, :1])
        else:
            losses = stream_losses(all_logits(lm, batch), batch.targets)
        figures = {f"held_out_{name}": loss.item() for name, loss in zip(("mixed", "vocal", "bgm"), losses)}
        requests = [source.make_request(rng, SECONDS) for _ in range(songs)]
        return {**figures, **judge(requests, write(plain(lm), source, requests, seed), streams)}

    return measure


def write(lm: LeLM, source: SongSource, requests: Sequence[Request], seed: int) -> list[Tensor]:
    """Codes [K, T] of each request."""
    config = lm.config
    tasks = []
    for number, request in enumerate(requests):
        texts = prompt_texts(request.lyrics, request.description, config.text_version)
        conditions = make_conditions(texts, None, source.tokenizers, config)
        generator = torch.Generator().manual_seed(seed + number)
        tasks.append(SongTask(conditions, int(2.0 * SECONDS * 25), generator))
    loop = load_engine("auto").song_loop(lm, _DEVICE)
    songs = []
    for songs in loop(lm, tasks, default_sampling(config), dtype=torch.float32, device=_DEVICE):
        pass
    return [song.codes()[0] for song in songs]


def judge(requests: Sequence[Request], songs: Sequence[Tensor], streams: int) -> dict[str, float]:
    """Means over songs of what their codes say."""
    rows = [judge_song(request, codes.numpy(), streams) for request, codes in zip(requests, songs)]
    names = sorted({name for row in rows for name in row})
    return {name: mean(row[name] for row in rows if name in row) for name in names}


def judge_song(request: Request, codes: np.ndarray, streams: int) -> dict[str, float]:
    """One song [K, T]; figures that a request leaves open are absent."""
    mixed = codes[0][codes[0] < NUM_MIXED]
    if len(mixed) == 0:
        return {"phone_errors": 1.0}
    phone, k, pulse = split_mixed(mixed)
    wanted = compose(request, 0)
    figures = {
        "phone_errors": phone_error_rate(phone, k, wanted),
        "length_off": abs(len(mixed) / len(wanted.phone) - 1) if request.bpm is not None else 0.0,
    }
    if request.bpm is None:
        del figures["length_off"]
    beats = np.flatnonzero(pulse >= BEAT)
    if request.bpm is not None and len(beats) > 2:
        figures["tempo_right"] = float(abs(np.median(np.diff(beats)) - wanted.frames_per_beat) < 0.5)
    if streams < 3:
        return figures
    vocal, bgm = (np.minimum(row, limit - 1) for row, limit in ((codes[1], 432), (codes[2], 1000)))
    sung, midi = split_vocal(vocal)
    chord, _, _, timbre = split_bgm(bgm)
    if request.gender is not None and (midi > 0).any():
        figures["gender_right"] = float((np.median(midi[midi > 0]) >= 62) == (request.gender == "female"))
    if request.instrument is not None and (chord > 0).any():
        figures["instrument_right"] = float(np.bincount(timbre[chord > 0]).argmax() == wanted.timbre)
    if request.key is not None and (chord > 0).any():
        tonic = 1 + request.key.tonic + 12 * request.key.minor
        figures["tonic_share"] = float((chord == tonic).mean())
    figures["streams_agree"] = float(((sung > 0) == (phone[: len(sung)] > 0))[: len(phone)].mean()) if len(sung) == len(phone) else 0.0
    return figures


def phone_error_rate(phone: np.ndarray, k: np.ndarray, wanted: Score) -> float:
    """Edits from what is sung to what the lyrics say, per phone of the lyrics."""
    said = [PHONES.index(p) for note in wanted.notes for p in note.phones]
    pairs = list(zip(phone.tolist(), k.tolist()))
    sung = [p for (p, number), before in zip(pairs, [(0, -1), *pairs]) if p > 0 and (p, number) != before]
    return edits(sung, said) / max(1, len(said))


def edits(a: Sequence[int], b: Sequence[int]) -> int:
    """Levenshtein distance."""
    row = np.arange(len(b) + 1)
    for i, x in enumerate(a, 1):
        previous, row = row, np.empty_like(row)
        row[0] = i
        change = previous[:-1] + (np.asarray(b) != x)
        best = np.minimum(change, previous[1:] + 1)
        for j in range(len(b)):
            row[j + 1] = min(best[j], row[j] + 1)
    return int(row[-1])
