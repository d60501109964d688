"""Recordings made by rule: chords and a voice of formants, in every shape that users bring."""

import math
from pathlib import Path

import torch
from torch import Tensor

from songgen_core.audio.files import save_audio

FORMS = {  # name -> file, sample rate, channels, seconds
    "mp3": ("song.mp3", 44100, 2, 12.0),
    "flac": ("song.flac", 48000, 2, 12.0),
    "wav": ("song.wav", 96000, 2, 11.0),
    "mono": ("mono.flac", 44100, 1, 12.0),
    "8 kHz": ("phone.wav", 8000, 1, 12.0),
    "half a second": ("short.flac", 44100, 2, 0.5),
    "ten minutes": ("long.flac", 44100, 2, 600.0),
    "silent": ("silent.wav", 44100, 2, 12.0),
}


def song(sample_rate: int, channels: int, seconds: float) -> Tensor:
    """[channels, N]: a verse of soft chords, a louder chorus that comes back, a voice over both."""
    t = torch.arange(round(sample_rate * seconds)) / sample_rate
    bar = (t / 2).long()
    is_chorus = (bar // 4) % 2
    root = torch.tensor([220.0, 174.6, 130.8, 196.0])[(bar + is_chorus) % 4]
    chord = sum(torch.sin(2 * math.pi * root * ratio * t) for ratio in (1.0, 1.26, 1.5))
    pitch = 2 * root * (1 + 0.01 * torch.sin(2 * math.pi * 5 * t))
    voice = sum(torch.sin(2 * math.pi * pitch * k * t) / k for k in range(1, 5))
    sung = (t % 0.5 < 0.4).float()
    mix = (0.05 + 0.05 * is_chorus) * chord + 0.1 * sung * voice
    return torch.stack([mix * (1 - 0.2 * c) for c in range(channels)])


def save_recording(folder: Path, form: str) -> Path:
    name, rate, channels, seconds = FORMS[form]
    samples = song(rate, channels, seconds)
    return save_audio(folder / name, samples * (form != "silent"), rate).path
