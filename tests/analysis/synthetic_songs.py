"""Songs whose beats are known: drums, bass and chords drawn from a seed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_CHORDS = {"C": (60, 64, 67), "G": (55, 59, 62), "Am": (57, 60, 64), "F": (53, 57, 60)}
_ROWS = (("C", "G", "Am", "F"), ("Am", "F", "C", "G"), ("C", "Am", "F", "G"))


@dataclass(frozen=True)
class Style:
    """How a song is played; `offset` (seconds) is where its first downbeat is."""

    bpm: float
    offset: float = 0.4
    swing: float = 0.5  # where the second eighth of a beat falls
    drums: float = 1.0  # level
    melody: bool = True
    jitter: float = 0.0  # seconds, standard deviation of every note
    noise: float = 0.002


def song(style: Style, seconds: float = 30.0, rate: int = 22050, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """Audio [2, N] and the true times of its beats; the first of them begins a bar."""
    rng = np.random.default_rng(seed)
    beat = 60 / style.bpm
    beats = np.arange(style.offset, seconds - 0.05, beat)
    sound = rng.normal(0, style.noise, round(seconds * rate))

    def play(wave: np.ndarray, at: float, level: float) -> None:
        start = max(0, round((at + rng.normal(0, style.jitter)) * rate))
        piece = wave[: max(0, len(sound) - start)]
        sound[start : start + len(piece)] += level * piece

    row = _ROWS[seed % len(_ROWS)]
    pattern = seed % 3
    for number, at in enumerate(beats):
        chord = _CHORDS[row[number // 4 % 4]]
        place = number % 4
        if place in ((0, 2), (0, 1, 2, 3), (0,))[pattern]:
            play(_kick(rate), at, 0.6 * style.drums)
        if place in (1, 3):
            play(_snare(rate, rng), at, 0.35 * style.drums)
        for at_eighth in (at, at + style.swing * beat):
            play(_hat(rate, rng), at_eighth, 0.12 * style.drums)
        if place == 0:
            play(_tones(chord, 4 * beat, rate, 0.4), at, 0.12)
        if place in (0, 2):
            play(_tones((chord[0] - 24,), 1.8 * beat, rate, 1.0), at, 0.3)
        if style.melody:
            for at_note in (at, at + style.swing * beat):
                if rng.random() < 0.6:
                    note = chord[rng.integers(3)] + 12 + rng.choice([0, 0, 2])
                    play(_tones((note,), 0.6 * beat, rate, 2.0), at_note, 0.2)
    return torch.tensor(np.stack([sound, 0.9 * sound]), dtype=torch.float32).clamp(-1, 1), beats


def _tones(notes: tuple[int, ...], seconds: float, rate: int, decay: float) -> np.ndarray:
    """Notes (MIDI numbers) with four overtones, a soft attack of 10 ms and a fading end."""
    time = np.arange(round(seconds * rate)) / rate
    wave = sum(
        np.sin(2 * np.pi * h * 440 * 2 ** ((n - 69) / 12) * time) / h**1.5 for n in notes for h in range(1, 5)
    )
    return wave * np.minimum(time / 0.01, 1) * np.exp(-decay * time) * np.minimum((seconds - time) / 0.02, 1)


def _kick(rate: int) -> np.ndarray:
    time = np.arange(round(0.25 * rate)) / rate
    return np.sin(2 * np.pi * (50 * time + 3 * (1 - np.exp(-30 * time)))) * np.exp(-12 * time)


def _snare(rate: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(round(0.2 * rate)) / rate
    return (rng.normal(0, 0.5, len(time)) + 0.5 * np.sin(2 * np.pi * 190 * time)) * np.exp(-20 * time)


def _hat(rate: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(round(0.06 * rate)) / rate
    return np.diff(rng.normal(0, 0.5, len(time) + 1)) * np.exp(-70 * time)


def f_measure(found: np.ndarray, true: np.ndarray, window: float = 0.07) -> float:
    """Share of beats that have a partner within `window` seconds, of both lists; each partner counts once."""
    free, hits = list(found), 0
    for time in true:
        near = min(free, key=lambda other: abs(other - time), default=None)
        if near is not None and abs(near - time) <= window:
            free.remove(near)
            hits += 1
    return 2 * hits / max(len(found) + len(true), 1)
