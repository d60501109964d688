"""Recordings to listen to: a synthetic song with a chorus, and a voice where espeak-ng is installed."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch

from songgen_core.audio.files import load_audio, save_audio
from songgen_core.layers.resample import resample

CHORDS = ((220.0, 277.2, 329.6), (293.7, 370.0, 440.0), (196.0, 246.9, 293.7), (329.6, 415.3, 493.9))
WORDS = "Sing it out into the day. Let the river find its way."


def accompaniment(seconds: float, rate: int) -> np.ndarray:
    """[N]: a chord every second over a beat, quiet but for the chorus in the middle third."""
    time = np.arange(round(seconds * rate)) / rate
    music = np.zeros_like(time)
    for number, chord in enumerate(CHORDS):
        tones = sum(np.sin(2 * np.pi * hertz * time) for hertz in chord)
        music += np.where(time.astype(int) % len(CHORDS) == number, tones, 0.0)
    beat = np.exp(-20 * (time % 0.5)) * np.sin(2 * np.pi * 60 * time)
    chorus = np.where((time > seconds / 3) & (time < 2 * seconds / 3), 1.0, 0.3)
    return chorus * (0.08 * music + 0.3 * beat)


def voice(seconds: float, rate: int, folder: Path) -> np.ndarray:
    """[N]: espeak-ng, again and again; silence without it."""
    count, program = round(seconds * rate), shutil.which("espeak-ng")
    if program is None:
        return np.zeros(count)
    spoken = folder / "spoken.wav"
    subprocess.run([program, "-w", str(spoken), WORDS], check=True)
    samples, spoken_rate = load_audio(spoken)
    return np.resize(resample(samples, spoken_rate, rate)[0].numpy(), count)


def write_song(path: Path, seconds: float, rate: int = 44100, channels: int = 2) -> Path:
    """The whole song; the format follows the extension of `path`."""
    mono = accompaniment(seconds, rate) + 0.5 * voice(seconds, rate, path.parent)
    sides = np.stack([mono, 0.8 * np.roll(mono, 5)])[:channels]
    save_audio(path, torch.from_numpy(sides.astype(np.float32)), rate)
    return path


def write_silence(path: Path, seconds: float, rate: int = 44100) -> Path:
    save_audio(path, torch.zeros(2, round(seconds * rate)), rate)
    return path
