"""Sections laid over a song from its lyrics, with and without a voice, and from its sound alone."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from songgen_core.analysis.sections import (
    APPROXIMATE,
    FROM_LYRICS,
    FROM_LYRICS_AND_VOICE,
    novelty_sections,
    sections_of_song,
)
from songgen_core.text.lyrics import Song

SONG = Song.parse(
    "[intro-short] ; [verse] a b c. d e f. g h i. ; [chorus] l m. n o. ; [inst-short] ; [chorus] l m. n o. ;"
    " [outro-short]"
)  # 7.5 + 12 + 8 + 7.5 + 8 + 7.5 = 50.5 s
BARS = tuple(np.arange(0.3, 101, 2.0))


def check_order(sections, seconds):
    assert [s.tag for s in sections] == [s.tag for s in SONG.sections]
    assert sections[0].start == 0 and sections[-1].end == seconds
    assert all(a.end == b.start and a.start < a.end for a, b in pairwise(sections))


def test_shares_are_those_of_the_estimate():
    sections = sections_of_song(SONG, 101.0)
    check_order(sections, 101.0)
    assert [s.end for s in sections] == pytest.approx([15, 39, 55, 70, 86, 101])
    assert {s.source for s in sections} == {FROM_LYRICS}


@pytest.mark.parametrize("seconds", [5.0, 31.4, 101.0])
def test_boundaries_are_on_downbeats_where_there_are_any(seconds):
    sections = sections_of_song(SONG, seconds, BARS)
    check_order(sections, seconds)
    if seconds > 30:
        assert all(any(abs(s.end - bar) < 0.001 for bar in BARS) for s in sections[:-1])
    far = sections_of_song(SONG, seconds, (1000.0, 1004.0))
    assert far == sections_of_song(SONG, seconds)


def test_the_voice_tells_where_sections_begin():
    true = [0, 4, 34, 50, 70, 90, 101]  # far from the shares
    voiced = np.zeros(101 * 50)
    for number in (1, 2, 4):
        voiced[round(true[number] * 50) : round((true[number + 1] - 0.6) * 50)] = 1
    sections = sections_of_song(SONG, 101.0, tuple(np.arange(0.0, 101, 2.0)), voiced)
    check_order(sections, 101.0)
    assert {s.source for s in sections} == {FROM_LYRICS_AND_VOICE}
    error = np.abs(np.array([s.end for s in sections[:-1]]) - true[1:-1])
    # From verse to chorus the voice goes on: only the share tells where.
    assert error[[0, 2, 3, 4]].max() <= 2.0 and error.max() <= 8
    check_order(sections_of_song(SONG, 101.0, (), voiced), 101.0)


def test_a_silent_stem_changes_nothing():
    assert sections_of_song(SONG, 101.0, BARS, np.zeros(5050)) == sections_of_song(SONG, 101.0, BARS)


def test_few_downbeats_for_many_sections_keep_their_order():
    voiced = np.ones(150)
    check_order(sections_of_song(SONG, 3.0, (1.0, 2.0), voiced), 3.0)


def test_a_single_section_is_the_whole_song():
    [section] = sections_of_song(Song.parse("[verse] a"), 12.5, BARS)
    assert (section.start, section.end) == (0, 12.5)


def chord(hertz: tuple[float, ...], seconds: int, level: float, rate: int = 11025) -> torch.Tensor:
    time = torch.arange(seconds * rate) / rate
    pulse = torch.exp(-3 * (time % 0.5))
    return level * pulse * sum(torch.sin(2 * torch.pi * f * time) for f in hertz)


def test_parts_that_sound_different_are_found_and_called_approximate():
    a, b = chord((220, 277, 330), 20, 0.1), chord((196, 247, 1175), 24, 0.3)
    sections = novelty_sections(torch.cat([a, b, a])[None], 11025)
    assert [s.end for s in sections] == pytest.approx([20, 44, 64], abs=1.0)
    assert {s.source for s in sections} == {APPROXIMATE} and {s.tag for s in sections} == {"part"}


def test_silence_has_no_parts_and_a_short_sound_has_one():
    assert novelty_sections(torch.zeros(2, 50000), 11025) == []
    [only] = novelty_sections(chord((220,), 1, 0.1)[None], 11025)
    assert (only.start, only.end) == (0, 1)
