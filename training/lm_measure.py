"""How well the language model writes: losses on held-out songs, and what the codes it draws say.

Songs are drawn as users get them (guided, with the model's own sampling), and read by their labels: phones
sung against phones asked for, tempo, mode and key, range of the voice, voice in sung sections only, length.
"""

from collections.abc import Sequence
from statistics import mean

import numpy as np
import torch
from torch import Tensor

from songgen_core.configs import FRAME_RATE
from songgen_core.engine import load_engine
from songgen_core.generation.conditions import make_conditions
from songgen_core.generation.delay import DelayedStreams
from songgen_core.generation.sampling import SamplingOptions
from songgen_core.generation.songs import SongTask
from songgen_core.models.lelm import LeLM
from songgen_core.text.phonetics import PHONES
from songgen_core.text.request import prompt_texts
from songgen_core.writing import default_sampling

from .codes import BEAT, NUM_BGM, NUM_MIXED, NUM_VOCAL, Ints, split_bgm, split_mixed, split_vocal
from .factors import plain
from .lm import all_logits, mixed_logits, stream_losses
from .lm_batches import SongSource
from .loop import Measure
from .synth.compose import Score, compose
from .synth.request import Request

_DEVICE = torch.device("cpu")
_LOWEST_FEMALE = 62  # between the ranges of the voices


def lm_measure(
    lm: LeLM, source: SongSource, songs: int, seconds: float, *, streams: int, seed: int = 1_000_003
) -> Measure:
    """Measures a model that has learned the mixed stream (`streams` 1) or all (3), on songs of `seconds`."""

    def measure() -> dict[str, float]:
        rng = np.random.default_rng(seed)
        batch = source.batch(rng, songs, seconds)
        if streams == 1:
            losses = stream_losses(mixed_logits(lm, batch)[:, None], batch.targets[:, :1])
        else:
            losses = stream_losses(all_logits(lm, batch), batch.targets)
        figures = {f"held_out_{name}": loss.item() for name, loss in zip(("mixed", "vocal", "bgm"), losses)}
        requests = [source.make_request(rng, seconds) for _ in range(songs)]
        written = write(plain(lm), source, requests, longest_of(seconds), seed)
        return {**figures, **judge(requests, written, streams)}

    return measure


def longest_of(seconds: float) -> int:
    """Frames that a song of about `seconds` may take at most."""
    return int(2.0 * seconds * FRAME_RATE)


@torch.inference_mode()
def write(
    lm: LeLM,
    source: SongSource,
    requests: Sequence[Request],
    longest: int,
    seed: int,
    sampling: SamplingOptions | None = None,
) -> list[Tensor]:
    """Codes [K, T] of each request, T at most `longest`; songs that the model ended are shorter.

    `lm` has ordinary tables. Songs are written side by side, the n-th with the seed `seed` + n, with the
    model's own sampling if none is given.
    """
    config = lm.config
    tasks = []
    for number, request in enumerate(requests):
        texts = prompt_texts(request.lyrics, request.description, config.text_version)
        conditions = make_conditions(texts, None, source.tokenizers, config)
        tasks.append(SongTask(conditions, longest, torch.Generator().manual_seed(seed + number)))
    loop = load_engine("auto").song_loop(lm, _DEVICE)
    songs: list[DelayedStreams] = []
    for grown in loop(lm, tasks, sampling or default_sampling(config), dtype=torch.float32, device=_DEVICE):
        songs = grown
    return [song.codes()[0] for song in songs]


def judge(requests: Sequence[Request], songs: Sequence[Tensor], streams: int) -> dict[str, float]:
    """Means over songs of what their codes say."""
    rows = [judge_song(request, codes.numpy(), streams) for request, codes in zip(requests, songs)]
    names = sorted({name for row in rows for name in row})
    return {name: mean(row[name] for row in rows if name in row) for name in names}


def judge_song(request: Request, codes: Ints, streams: int) -> dict[str, float]:
    """One song [K, T]; figures that a request leaves open, or a song has nothing for, are absent."""
    mixed = codes[0][codes[0] < NUM_MIXED]
    wanted = compose(request, 0)
    if len(mixed) == 0:
        return {"phone_errors": 1.0, "length_off": 1.0} if wanted.notes else {"length_off": 1.0}
    phone, k, pulse = split_mixed(mixed)
    figures = {"phone_errors": phone_error_rate(phone, k, wanted)} if wanted.notes else {}
    beats = np.flatnonzero(pulse >= BEAT)
    if request.bpm is not None:
        figures["length_off"] = abs(len(mixed) / wanted.num_frames - 1)
        if len(beats) > 2:
            figures["tempo_right"] = float(abs(np.median(np.diff(beats)) - wanted.frames_per_beat) < 0.5)
    return {**figures, **_judge_tracks(request, codes, wanted)} if streams == 3 else figures


def _judge_tracks(request: Request, codes: Ints, wanted: Score) -> dict[str, float]:
    """What vocal and accompaniment say; ids that mean nothing count as the last one that does."""
    phone, _, _ = split_mixed(np.minimum(codes[0], NUM_MIXED - 1))
    sung, midi = split_vocal(np.minimum(codes[1], NUM_VOCAL - 1))
    chord, _, _, timbre = split_bgm(np.minimum(codes[2], NUM_BGM - 1))
    figures = {"streams_agree": float(((sung > 0) == (phone > 0)).mean())}
    pitches, played = midi[midi > 0], chord > 0
    if request.gender is not None and len(pitches):
        is_female = np.median(pitches) >= _LOWEST_FEMALE
        figures["gender_right"] = float(is_female == (request.gender == "female"))
    if not played.any():
        return figures
    if request.instrument is not None:
        figures["instrument_right"] = float(np.bincount(timbre[played]).argmax() == wanted.timbre)
    if request.key is not None or request.emotion is not None:
        # All progressions begin on the tonic.
        is_minor = chord[played][0] > 12
        figures["mode_right"] = float(is_minor == wanted.key.minor)
    if request.key is not None:
        tonic = 1 + request.key.tonic + 12 * request.key.minor
        figures["tonic_share"] = float((chord == tonic).mean())
    return figures


def phone_error_rate(phone: Ints, k: Ints, wanted: Score) -> float:
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
