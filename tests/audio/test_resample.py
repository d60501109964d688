"""FFmpeg's resampler in memory: the same samples as the program ffmpeg, whatever the blocks."""

import math
import shutil
import subprocess
import sys

import pytest
import torch

from songgen_core.audio import resample as module
from songgen_core.audio.files import load_audio, save_audio
from songgen_core.audio.resample import check_recording, resample_pyav, two_channels
from songgen_core.errors import AudioError


def noise(channels: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(channels, length, generator=torch.Generator().manual_seed(seed)) * 0.1


def tone(length: int, rate: int, hertz: float = 440.0) -> torch.Tensor:
    return torch.sin(2 * math.pi * hertz * torch.arange(length, dtype=torch.float64) / rate).float()[None]


@pytest.mark.parametrize(
    ("rate", "new_rate"), [(48000, 44100), (44100, 48000), (22050, 44100), (44056, 48000)]
)
def test_a_tone_keeps_its_pitch_level_and_place(rate, new_rate):
    out = resample_pyav(tone(rate, rate), rate, new_rate)
    assert out.shape == (1, new_rate) and out.dtype == torch.float32
    inner = slice(200, -200)
    assert float((out - tone(new_rate, new_rate))[:, inner].abs().max()) < 2e-4


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not installed")
@pytest.mark.parametrize("channels", [1, 2])
def test_same_samples_as_the_program(tmp_path, channels):
    audio = noise(channels, 100_003)
    save_audio(tmp_path / "a.wav", audio, 48000, audio_format="wav32")
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", "-ar", "44100", "-c:a", "pcm_f32le"]
    subprocess.run([*command, tmp_path / "b.wav"], check=True)
    expected, rate = load_audio(tmp_path / "b.wav")
    assert rate == 44100
    assert torch.equal(resample_pyav(audio, 48000, 44100), expected)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_blocks_leave_no_trace(monkeypatch, channels):
    audio = noise(channels, 20_011)
    whole = resample_pyav(audio, 48000, 44100)
    for block in (1009, 30_000):
        monkeypatch.setattr(module, "_BLOCK", block)
        assert torch.equal(resample_pyav(audio, 48000, 44100), whole)


@pytest.mark.parametrize("length", [40, 1000, 12_345])
@pytest.mark.parametrize(("rate", "new_rate"), [(48000, 44100), (44100, 48000), (8000, 48000)])
def test_length_is_rounded_up(length, rate, new_rate):
    assert resample_pyav(noise(2, length), rate, new_rate).shape == (2, math.ceil(length * new_rate / rate))


def test_same_rate_changes_nothing():
    audio = noise(2, 1000)
    assert torch.equal(resample_pyav(audio, 44100, 44100), audio)
    assert resample_pyav(audio.double(), 44100, 44100).dtype == torch.float32


def test_input_stays_as_it_was_even_as_an_inference_tensor_or_a_view():
    with torch.inference_mode():
        audio = noise(4, 3000)
        kept = audio.clone()
        out = resample_pyav(audio[1:3, ::2], 48000, 24000)
    assert torch.equal(audio, kept)
    assert torch.equal(out, resample_pyav(kept[1:3, ::2].contiguous(), 48000, 24000))


@pytest.mark.parametrize("channels", [3, 4, 5, 6, 7, 8])
def test_many_channels_are_folded_down_to_stereo(channels):
    audio = torch.zeros(channels, 4800)
    audio[0] = tone(4800, 48000) * 0.5  # front left
    for new_rate in (48000, 44100):
        left, right = resample_pyav(audio, 48000, new_rate)
        assert left.abs().max() > 0.1 and right.abs().max() == 0.0


def test_two_channels():
    mono, stereo, many = noise(1, 50), noise(2, 50), noise(5, 50)
    assert torch.equal(two_channels(mono), torch.cat([mono, mono]))
    assert torch.equal(two_channels(stereo), stereo)
    assert torch.equal(two_channels(many), many[:2])


@pytest.mark.parametrize(
    ("audio", "rate", "new_rate", "message"),
    [
        (torch.zeros(2, 0), 48000, 44100, "empty"),
        (torch.zeros(0, 9), 48000, 44100, "empty"),
        (torch.zeros(9), 48000, 44100, r"\[channels, samples\], not torch.float32 \[9\]"),
        (torch.zeros(1, 2, 9), 48000, 44100, r"\[channels, samples\]"),
        (torch.zeros(2, 9, dtype=torch.int16), 48000, 44100, "int16"),
        (torch.full((2, 9), math.inf), 48000, 44100, "invalid samples"),
        (torch.full((2, 9), math.nan), 48000, 44100, "invalid samples"),
        (torch.zeros(2, 999), 0, 44100, "sample_rate is 0"),
        (torch.zeros(2, 999), 48000, 0, "new sample rate is 0"),
        (torch.zeros(9, 999), 48000, 44100, "9 channels"),
        (torch.zeros(2, 3), 48000, 44100, "too short"),
    ],
)
def test_unusable_audio(audio, rate, new_rate, message):
    with pytest.raises(AudioError, match=message):
        resample_pyav(audio, rate, new_rate)


def test_check_recording_accepts_what_is_usable():
    for dtype in (torch.float16, torch.float32, torch.float64):
        check_recording(torch.zeros(3, 5, dtype=dtype), 1)


def test_without_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match="pip install av"):
        resample_pyav(noise(2, 100), 48000, 44100)
