"""The limiter against its promises: the ceiling holds, quiet audio is untouched, gain moves slowly."""

import time

import pytest
import torch

from songgen_core.audio import limiter
from songgen_core.audio.limiter import check_finite, limit_peaks, peak
from songgen_core.errors import AudioError

CEILING = 0.98
WINDOW = 1024  # samples at 48 kHz


def noise(*shape: int, level: float = 0.5, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * level


def gain_of(limited: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
    return limited.double() / audio.double()


@pytest.mark.parametrize("length", [1, 2, 7, 1023, 1024, 1025, 5000, 48000])
@pytest.mark.parametrize("level", [0.3, 1.0, 30.0, 1e30])
def test_never_above_the_ceiling(length, level):
    audio = noise(2, 2, length, level=level, seed=length)
    audio[0, 0, -1] = 1.5 * level  # a peak at the very edge
    for ceiling in (1.0, CEILING, 0.1):
        limited = limit_peaks(audio, ceiling)
        assert limited.shape == audio.shape and limited.dtype == torch.float32
        assert peak(limited) <= ceiling
        assert torch.equal(limited.sign(), audio.sign())


@pytest.mark.parametrize("shape", [(2, 4000), (1, 1, 4000), (3, 2, 4000), (2, 0)])
def test_quiet_audio_is_unchanged(shape):
    audio = noise(*shape).clamp(-0.97, 0.97)
    assert limit_peaks(audio) is audio


def test_input_is_not_modified():
    audio = noise(2, 5000, level=2.0)
    copy = audio.clone()
    limit_peaks(audio)
    assert torch.equal(audio, copy)


def test_samples_far_from_a_peak_keep_their_bits():
    audio = noise(2, 20000, level=0.1)
    audio[1, 10000] = -3.0
    limited = limit_peaks(audio)
    changed = (limited != audio).any(dim=0).nonzero().squeeze(1)
    assert int(changed.min()) > 10000 - WINDOW and int(changed.max()) < 10000 + WINDOW
    assert limited[1, 10000] == pytest.approx(-CEILING, rel=1e-5)


def test_channels_share_one_gain_and_batch_items_do_not():
    audio = noise(2, 2, 9000, level=0.2).abs() + 0.01
    audio[0, 0, 4000] = 4.0
    limited = limit_peaks(audio)
    gain = gain_of(limited, audio)
    torch.testing.assert_close(gain[0, 0], gain[0, 1], rtol=1e-6, atol=0)
    assert torch.equal(limited[1], audio[1])


def test_gain_moves_slowly():
    audio = noise(1, 30000, level=0.1).abs() + 0.05
    audio[0, ::3001] = 5.0
    gain = gain_of(limit_peaks(audio), audio)[0]
    steps = gain.diff().abs()
    largest = (1.0 - CEILING / 5.0) / WINDOW  # one gain of W leaves the mean, another enters
    assert float(steps.max()) <= largest + 1e-6


def test_steady_tone_is_scaled_not_distorted():
    tone = 2.0 * torch.sin(torch.arange(48000) * (2 * torch.pi * 50 / 48000)).unsqueeze(0)
    limited = limit_peaks(tone)
    middle = slice(5000, 43000)
    torch.testing.assert_close(limited[:, middle], tone[:, middle] * (CEILING / 2.0), rtol=1e-4, atol=1e-5)


def test_result_does_not_depend_on_the_blocks(monkeypatch):
    audio = noise(2, 20000, level=0.6)
    whole = limit_peaks(audio)
    for block in (1000, 1024, 7777):
        monkeypatch.setattr(limiter, "_BLOCK", block)
        assert torch.equal(limit_peaks(audio), whole)


def test_result_does_not_depend_on_what_is_far_away():
    audio = noise(2, 20000, level=0.6)
    part = limit_peaks(audio[:, 5000:15000].clone())
    assert torch.equal(part[:, WINDOW:-WINDOW], limit_peaks(audio)[:, 5000 + WINDOW : 15000 - WINDOW])


@pytest.mark.parametrize("sample_rate", [100, 8000, 44100, 192000])
def test_any_sample_rate(sample_rate):
    assert peak(limit_peaks(noise(2, 6000, level=2.0), sample_rate=sample_rate)) <= CEILING


def test_five_minutes_of_stereo_are_quick():
    audio = noise(2, 300 * 48000)
    began = time.perf_counter()
    limited = limit_peaks(audio)
    assert time.perf_counter() - began < 10.0  # about 0.3 s alone on two cores; the rest is for busy machines
    assert peak(limited) <= CEILING


def test_peak():
    assert peak(torch.tensor([[0.25, -0.75]])) == 0.75
    assert peak(torch.zeros(2, 0)) == 0.0
    assert str(peak(torch.zeros(2, 3))) == "0.0"


@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "NaN"), (float("-inf"), "infinite")])
def test_invalid_samples_are_named_with_their_time(value, kind):
    audio = noise(1, 2, 48000)
    audio[0, 1, 36000:] = value
    for call in (lambda: check_finite(audio, 48000), lambda: limit_peaks(audio)):
        with pytest.raises(AudioError, match=rf"audio holds invalid samples \({kind}\) at 0\.8 s") as error:
            call()
        assert "export a recording again" in str(error.value) and "bfloat16" in str(error.value)


def test_wrong_arguments():
    with pytest.raises(AudioError, match="float32"):
        limit_peaks(noise(2, 100).double())
    with pytest.raises(AudioError, match="float32"):
        limit_peaks(noise(100))
    with pytest.raises(AudioError, match=r"ceiling is 1\.5"):
        limit_peaks(noise(2, 100), ceiling=1.5)
