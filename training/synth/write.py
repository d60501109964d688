"""Songs as files: vocal and accompaniment as WAV, 16 bit, 48 kHz stereo, and all labels as JSON."""

import json
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from songgen_core.atomic import complete_or_nothing
from songgen_core.configs import FRAME_RATE, SAMPLE_RATE
from songgen_core.text.phonetics import Lexicon

from .compose import compose
from .corpus import random_request
from .render import render
from .request import Request
from .score import Score
from .waves import Wave

_TRACKS = ("vocal", "bgm")


def song(seed: int, number: int, lexicon: Lexicon | None) -> tuple[Request, Score]:
    """Song `number` of the corpus that `seed` names; it depends on no other song."""
    rng = np.random.default_rng([seed, number])
    request = random_request(rng, lexicon)
    return request, compose(request, int(rng.integers(2**62)))


def corpus(seed: int, hours: float, lexicon: Lexicon | None) -> Iterator[tuple[int, Request, Score]]:
    """The first songs of a corpus, with their numbers, until they last `hours` together."""
    frames, number = round(hours * 3600 * FRAME_RATE), 0
    while frames > 0:
        request, score = song(seed, number, lexicon)
        yield number, request, score
        frames, number = frames - score.num_frames, number + 1


def file_names(folder: Path, seed: int, number: int) -> tuple[Path, ...]:
    """Vocal, accompaniment and labels of a song."""
    stem = f"song-{seed}-{number:06d}"
    return (*(folder / f"{stem}.{track}.wav" for track in _TRACKS), folder / f"{stem}.json")


def write_song(folder: Path, seed: int, number: int, request: Request, score: Score) -> None:
    """Write the files of a song, its labels last; they are there complete or not at all."""
    *tracks, labels = file_names(folder, seed, number)
    for path, audio in zip(tracks, render(score)):
        _write_wav(path, audio)
    everything = {
        "seed": seed,
        "number": number,
        "lyrics": request.lyrics,
        "description": request.description,
        **score.labels(),
    }
    with complete_or_nothing(labels) as temporary:
        temporary.write_text(json.dumps(everything, ensure_ascii=False) + "\n", encoding="utf-8")


def is_written(folder: Path, seed: int, number: int) -> bool:
    """Whether a song needs no work: its last file is there."""
    return all(path.is_file() for path in file_names(folder, seed, number))


def _write_wav(path: Path, audio: Wave) -> None:
    """Audio [2, N] within +-1."""
    samples = np.rint(audio.T * 32767).astype("<i2")
    with complete_or_nothing(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.tobytes())
