"""Envelopes: exactly one value per picture, at the right moment, with the right level."""

import math

import numpy as np
import pytest
import torch

from songgen_core.analysis.beats import find_onsets
from songgen_core.analysis.envelopes import Envelopes, band_levels, frame_count, measure_envelopes
from songgen_core.analysis.spectra import to_mono
from songgen_core.errors import AudioError

RATE = 16000


def envelopes(audio: torch.Tensor, fps: float, rate: int = RATE, num_bands: int = 8) -> Envelopes:
    mono = to_mono(audio)
    return measure_envelopes(audio, mono, rate, fps, find_onsets(mono, rate).strength, num_bands)


def tone(hertz: float, seconds: float, level: float = 1.0, rate: int = RATE) -> torch.Tensor:
    return level * torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * rate)) / rate)[None]


@pytest.mark.parametrize("fps", [1.0, 12.5, 16.0, 23.976, 24.0, 29.97, 60.0, 120.0])
@pytest.mark.parametrize("seconds", [0.01, 0.5, 3.337, 10.0])
def test_there_are_as_many_values_as_pictures(seconds, fps):
    found = envelopes(tone(440, seconds), fps)
    frames = max(1, math.floor(round(seconds * RATE) / RATE * fps + 0.5))
    assert frame_count(round(seconds * RATE) / RATE, fps) == frames == found.frames
    lists = (found.loudness, found.loudness_db, found.onsets, *found.bands)
    assert {len(values) for values in lists} == {frames} and len(found.bands) == 8
    assert all(type(v) is float and math.isfinite(v) for values in lists for v in values)
    assert all(0 <= v <= 1 for values in lists[:1] + lists[2:] for v in values)


@pytest.mark.parametrize("fps", [0.0, 0.5, 121.0, math.nan, -24.0])
def test_other_rates_are_refused(fps):
    with pytest.raises(AudioError, match="choose 1 to 120"):
        frame_count(1.0, fps)


def test_levels_are_those_of_the_signal():
    found = envelopes(torch.cat([tone(440, 2), tone(440, 2, 0.1), torch.zeros(1, 2 * RATE)], 1), 24)
    assert found.loudness_db[24] == pytest.approx(-3.01, abs=0.05)
    assert found.loudness_db[72] == pytest.approx(-23.01, abs=0.05)
    assert found.loudness_db[120] == -100 and found.loudness[120] == 0
    assert found.loudness[24] == pytest.approx(1, abs=0.01)
    assert found.loudness[72] == pytest.approx(1 - 20 / 50, abs=0.01)


def test_opposite_channels_are_not_silent():
    both = torch.cat([tone(440, 1), -tone(440, 1)])
    assert envelopes(both, 24).loudness_db[12] == pytest.approx(-3.01, abs=0.05)


@pytest.mark.parametrize("fps", [10.0, 24.0, 30.0, 90.0])
@pytest.mark.parametrize("at", [1.013, 59.477, 118.25])
def test_a_click_is_in_its_picture_and_nothing_drifts(at, fps):
    audio = torch.zeros(1, 120 * RATE)
    audio[0, round(at * RATE) : round(at * RATE) + 300] = 0.5
    found = envelopes(audio, fps)
    onset = int(np.argmax(found.onsets))
    assert abs((onset + 0.5) / fps - at) <= 0.5 / fps + 0.02
    loudest = np.flatnonzero(np.array(found.loudness_db) == max(found.loudness_db))
    assert np.abs((loudest + 0.5) / fps - at).min() <= max(0.5 / fps, 0.025) + 0.02


def test_bands_tell_bass_from_treble():
    found = envelopes(torch.cat([tone(60, 1), tone(5000, 1)], 1), 24)
    loudest = [int(np.argmax([band[t] for band in found.bands])) for t in (12, 36)]
    edges = found.band_edges
    assert (
        edges[loudest[0]] <= 60 <= edges[loudest[0] + 1]
        and edges[loudest[1]] <= 5000 <= edges[loudest[1] + 1]
    )
    assert len(edges) == 9 and edges[-1] == RATE / 2


def test_narrow_bands_at_low_rates_have_no_holes():
    noise = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    levels, edges = band_levels(noise, 8000, torch.arange(10) / 10, 48)
    assert levels.shape == (10, 48) and edges.shape == (49,) and (levels.mean(0) > 0.2).all()


def test_silence_is_zero_everywhere():
    found = envelopes(torch.zeros(2, RATE), 24)
    assert not any(found.loudness) and not any(found.onsets) and not any(map(any, found.bands))
