"""The beat tracker on songs whose beats are known, and on sounds that have none."""

import numpy as np
import pytest
import torch
from synthetic_songs import Style, f_measure, song

from songgen_core.analysis.beats import Beats, beats_of, find_onsets
from songgen_core.analysis.spectra import to_mono

RATE = 22050


def find_beats(audio: torch.Tensor, rate: int) -> Beats:
    mono = to_mono(audio)
    return beats_of(find_onsets(mono, rate), mono, rate)


def styles() -> list[Style]:
    rng = np.random.default_rng(20)
    return [
        Style(
            bpm=float(rng.uniform(60, 170)),
            offset=float(rng.uniform(0.1, 2)),
            swing=(0.5, 0.5, 0.62, 0.667)[i % 4],
            drums=(1, 0.3, 0.1, 0.6, 0.03)[i % 5],
            melody=i % 3 != 1,
            jitter=(0, 0.008, 0.015)[i % 3],
        )
        for i in range(30)
    ]


def test_tempo_beats_and_downbeats_of_thirty_songs():
    tempo, beat, bar = [], [], []
    for seed, style in enumerate(styles()):
        audio, true = song(style, 30.0, RATE, seed)
        found = find_beats(audio, RATE)
        tempo.append(
            found.bpm is not None and any(abs(found.bpm / style.bpm / k - 1) < 0.04 for k in (0.5, 1, 2))
        )
        beat.append(f_measure(np.array(found.times), true))
        bar.append(f_measure(np.array(found.downbeats), true[::4]))
    assert np.mean(tempo) >= 0.95
    assert np.mean(beat) >= 0.85
    assert np.mean(bar) >= 0.75


@pytest.mark.parametrize("bpm", [84.0, 92.0, 104.0, 120.0, 133.0])
def test_ordinary_songs_are_followed_exactly(bpm):
    audio, true = song(Style(bpm), 20.0, RATE, 4)
    found = find_beats(audio, RATE)
    assert found.bpm == pytest.approx(bpm, rel=0.005)
    near = np.abs(np.array(found.times)[:, None] - true).min(0)
    assert np.median(near) < 0.01 and f_measure(np.array(found.times), true) > 0.97
    assert set(found.downbeats) <= set(found.times) and found.downbeat_confidence > 0.1
    assert 0.9 < found.confidence <= 1


def test_a_song_that_gets_faster_is_followed():
    beats = np.cumsum(60 / np.linspace(100, 110, 60)) + 0.3
    audio = torch.zeros(1, 40 * RATE)
    click = torch.randn(800, generator=torch.Generator().manual_seed(0)) * torch.exp(-torch.arange(800) / 150)
    for at in beats:
        audio[0, round(at * RATE) : round(at * RATE) + 800] += click
    found = find_beats(audio, RATE)
    assert f_measure(np.array(found.times), beats) > 0.95 and 98 < found.bpm < 112


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 96000])
def test_any_sample_rate_will_do(rate):
    audio, true = song(Style(110.0, noise=0.0005), 12.0, rate, 1)
    found = find_beats(audio[:1], rate)
    assert found.bpm == pytest.approx(110, rel=0.01) and f_measure(np.array(found.times), true) > 0.9


def test_beats_are_heard_at_any_level_and_in_opposite_phases():
    audio, true = song(Style(110.0), 12.0, RATE, 1)
    for sound in (0.003 * audio, torch.stack([audio[0], -audio[0]]), audio + 0.3):
        assert f_measure(np.array(find_beats(sound, RATE).times), true) > 0.9


def beatless() -> dict[str, torch.Tensor]:
    generator, time = torch.Generator().manual_seed(1), torch.arange(20 * RATE) / RATE
    noise = 0.1 * torch.randn(1, len(time), generator=generator)
    return {
        "silence": torch.zeros(2, len(time)),
        "a constant": torch.full((1, len(time)), 0.4),
        "noise": noise,
        "noise that swells": noise * torch.sin(0.7 * time),
        "a tone": 0.3 * torch.sin(2 * torch.pi * 220 * time)[None],
        "a second": song(Style(120.0), 1.0, RATE)[0],
        "one sample": torch.ones(1, 1),
    }


@pytest.mark.parametrize("name", beatless())
def test_where_there_is_no_beat_none_is_invented(name):
    found = find_beats(beatless()[name], RATE)
    assert found.bpm is None and found.times == () == found.downbeats and found.confidence == 0


def test_no_beats_are_put_into_the_silence_around_a_song():
    audio, true = song(Style(120.0, noise=0.0), 20.0, RATE, 2)
    silence = torch.zeros(2, 8 * RATE)
    times = np.array(find_beats(torch.cat([silence, audio, silence], 1), RATE).times)
    assert times.min() > 8 and times.max() < 28.3 and f_measure(times, true + 8) > 0.95
