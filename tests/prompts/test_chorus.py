"""The chorus finder on songs made of plucked chords, where verse, chorus and bridge are known."""

import math
import time

import pytest
import torch
from torch import Tensor

from songgen_core.errors import AudioError
from songgen_core.prompts.chorus import find_best_start

RATE = 16000
BEAT = 0.5  # seconds
A, F, C, G = [220.0, 277.2, 329.6], [174.6, 220.0, 261.6], [261.6, 329.6, 392.0], [196.0, 246.9, 293.7]
STRANGE = [[233.1, 293.7, 349.2], [155.6, 196.0, 233.1], [207.7, 261.6, 311.1]]


def section(chords: list[list[float]], seconds: float, level: float, melody: int, rate: int = RATE) -> Tensor:
    """Chords of equal length and one note of a melody, drawn from the seed, on every beat."""
    time = torch.arange(round(seconds * rate)) / rate
    beats = (time / BEAT).long()
    generator = torch.Generator().manual_seed(melody)
    notes = 440 * 2 ** (torch.randint(0, 12, (int(beats.max()) + 1,), generator=generator) / 12)
    chord = (time / seconds * len(chords)).long().clamp(max=len(chords) - 1)
    voices = torch.tensor(chords)[chord].T  # [3, N]
    sound = torch.sin(2 * math.pi * voices * time).mean(0) + torch.sin(2 * math.pi * notes[beats] * time)
    return level * sound * torch.exp(-3 * (time % BEAT))


def verse(melody: int, level: float = 0.15, seconds: float = 16.0, rate: int = RATE) -> Tensor:
    return section([A, F, A, F], seconds, level, melody, rate)


def chorus(level: float = 0.3, seconds: float = 16.0, rate: int = RATE) -> Tensor:
    return section([C, G, A, F], seconds, level, 7, rate)


def song(*parts: Tensor) -> Tensor:
    return torch.cat(parts)[None]


def assert_begins_at(found: float, *starts: float) -> None:
    """At most 40 ms before one of the starts, and never after it."""
    assert any(0 <= start - found <= 0.04 for start in starts), f"{found} is at none of {starts}"


@pytest.mark.parametrize("rate", [8000, 22050, 44056])
def test_begins_where_a_chorus_begins(rate):
    parts = [verse(1, rate=rate), chorus(rate=rate), verse(2, rate=rate), chorus(rate=rate)]
    assert_begins_at(find_best_start(song(*parts), rate), 16.0, 48.0)


def test_intro_and_bridge_do_not_matter():
    intro, bridge = section([A], 8, 0.1, 3), section(STRANGE, 12, 0.32, 4)
    found = find_best_start(song(intro, verse(1), chorus(), verse(2), chorus(), bridge, chorus()), RATE)
    assert_begins_at(found, 24.0, 56.0, 84.0)


def test_a_louder_part_that_does_not_return_loses_against_the_chorus():
    bridge = section(STRANGE, 16, 0.4, 4)  # 2.5 dB louder
    found = find_best_start(song(verse(1), chorus(), bridge, verse(2), chorus()), RATE)
    assert_begins_at(found, 16.0, 64.0)


def test_of_two_parts_that_return_the_louder_one_wins():
    quiet = verse(1)
    found = find_best_start(song(quiet, chorus(), quiet, chorus(), quiet), RATE)
    assert_begins_at(found, 16.0, 48.0)
    loud = verse(1, level=0.6)
    found = find_best_start(song(section(STRANGE, 8, 0.1, 5), chorus(), loud, chorus(), loud), RATE)
    assert_begins_at(found, 24.0, 56.0)


def test_of_two_equally_loud_parts_the_one_that_returns_wins():
    parts = [verse(melody, level=0.3) for melody in (1, 2)]
    other = section(STRANGE, 16, 0.3, 6)
    assert_begins_at(find_best_start(song(parts[0], chorus(), other, chorus()), RATE), 16.0, 48.0)


def test_repeats_need_not_be_exact():
    """Another volume, noise, and a distance between the repeats that is no multiple of a frame."""
    again = torch.roll(chorus(0.27), 5)
    whole = song(verse(1), chorus(), verse(2, seconds=16.07), again)
    noise = 0.01 * torch.randn(whole.shape, generator=torch.Generator().manual_seed(0))
    assert_begins_at(find_best_start(whole + noise, RATE), 16.0, 48.07)


def test_the_length_of_the_part_is_heeded():
    parts = song(verse(1), chorus(), verse(2), chorus())
    for seconds in (4.0, 15.0):
        found = find_best_start(parts, RATE, seconds)
        assert 15.9 <= found <= 32.0 - seconds or 47.9 <= found <= 64.0 - seconds


def test_the_start_leaves_room_for_the_part():
    ending = song(verse(1, 0.05), verse(2, 0.05), section([C], 5.0, 0.5, 3))
    found = find_best_start(ending, RATE)
    assert found <= ending.shape[1] / RATE - 10.0


def test_begins_at_the_onset_and_not_in_a_note():
    silence = torch.zeros(round(15.33 * RATE))
    found = find_best_start(song(silence, chorus(0.3, 20.0)), RATE)
    assert 0 <= 15.33 - found <= 0.04


def test_channels_that_cancel_are_heard():
    mono = song(verse(1), chorus(), verse(2), chorus())
    opposed = torch.cat([mono, -mono])
    assert find_best_start(opposed, RATE) == find_best_start(mono, RATE)


@pytest.mark.parametrize("length", [1, 100, 10 * RATE])
def test_short_recordings_begin_at_the_beginning(length):
    audio = torch.randn(2, length, generator=torch.Generator().manual_seed(0))
    assert find_best_start(audio, RATE) == 0.0


def test_silence_begins_at_the_beginning():
    assert find_best_start(torch.zeros(2, 30 * RATE), RATE) == 0.0
    assert find_best_start(torch.full((1, 30 * RATE), 1e-7), RATE) == 0.0


@pytest.mark.parametrize("rate", [50, 1000, 192000])
@pytest.mark.parametrize("seconds", [0.01, 1.0, 11.9])
def test_any_rate_and_length_gives_a_start_inside(rate, seconds):
    audio = torch.randn(1, 12 * rate, generator=torch.Generator().manual_seed(0))
    assert 0.0 <= find_best_start(audio, rate, seconds) <= 12.0 - seconds


def test_same_recording_same_start_and_no_global_randomness():
    whole = song(verse(1), chorus(), verse(2), chorus())
    before = torch.random.get_rng_state()
    kept = whole.clone()
    assert find_best_start(whole, RATE) == find_best_start(whole, RATE)
    assert torch.equal(torch.random.get_rng_state(), before) and torch.equal(whole, kept)


def test_ten_minutes_take_seconds():
    audio = 0.1 * torch.randn(2, 600 * 44100, generator=torch.Generator().manual_seed(0))
    began = time.process_time()
    find_best_start(audio, 44100)
    assert time.process_time() - began < 6.0  # some 1 s on one core of 2024


@pytest.mark.parametrize(
    ("audio", "rate", "seconds", "message"),
    [
        (torch.zeros(2, 0), RATE, 10.0, "empty"),
        (torch.zeros(100), RATE, 10.0, r"\[channels, samples\]"),
        (torch.full((1, 100), float("nan")), RATE, 10.0, "invalid samples"),
        (torch.zeros(1, 100), 0, 10.0, "sample_rate is 0"),
        (torch.zeros(1, 100), RATE, 0.0, "seconds is 0"),
        (torch.zeros(1, 100), RATE, float("nan"), "seconds is nan"),
    ],
)
def test_unusable_audio(audio, rate, seconds, message):
    with pytest.raises(AudioError, match=message):
        find_best_start(audio, rate, seconds)
