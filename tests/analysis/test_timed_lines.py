"""Times of lyric lines: in order, inside their sections, and where the voice is if it is known."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from songgen_core.analysis.lines import BY_LENGTH, BY_VOICE_START, count_syllables, time_lines
from songgen_core.analysis.sections import sections_of_song
from songgen_core.analysis.voice import VOICE_RATE, find_voice, voice_starts
from songgen_core.text.lyrics import Song

SONG = Song.parse(
    "[intro-short]\n[verse]\nWalking home alone tonight\nRain\nEvery street is full of light\n"
    "[inst-short]\n[chorus]\n你好世界\n我们一起走到天亮\n[outro-short]"
)
RATE = 8000


@pytest.mark.parametrize(
    ("text", "syllables"),
    [
        ("Rain", 1),
        ("home alone", 3),
        ("Every street is full of light", 8),
        ("little table", 4),
        ("don't", 1),
        ("café", 2),
        ("你好世界", 4),
        ("さくらさくら", 6),
        ("きょう", 2),
        ("사랑해요", 4),
        ("Москва", 2),
        ("?!", 1),
        ("我爱 you", 3),
        ("x 22", 3),
    ],
)
def test_syllables_are_counted(text, syllables):
    assert count_syllables(text) == syllables


def check(lines, sections):
    assert [line.text for line in lines] == [text for s in SONG.sections for text in s.lines]
    starts = [line.start for line in lines]
    assert starts == sorted(starts) and all(a.end <= b.start + 0.001 for a, b in pairwise(lines))
    assert all(line.start < line.end and 0 < line.confidence < 1 for line in lines)
    places = [place for s, place in zip(SONG.sections, sections) for _ in s.lines]
    assert all(p.start - 0.001 <= line.start and line.end <= p.end + 0.001 for line, p in zip(lines, places))


@pytest.mark.parametrize("seconds", [2.0, 45.0, 270.0])
def test_lines_share_their_section_by_length(seconds):
    sections = sections_of_song(SONG, seconds)
    lines = time_lines(SONG, sections)
    check(lines, sections)
    assert {line.method for line in lines} == {BY_LENGTH}
    assert lines[1].end - lines[1].start < 0.4 * (lines[0].end - lines[0].start)


def sung(times: list[tuple[float, float]], seconds: float, bleed: float = 0.0) -> torch.Tensor:
    """A stem [1, N] with a vowel in each of the times, and what is left of the accompaniment."""
    time = torch.arange(round(seconds * RATE)) / RATE
    voice = 0.3 * torch.sin(2 * torch.pi * 220 * time) + 0.1 * torch.sin(2 * torch.pi * 880 * time)
    on = sum((((time >= a) & (time < b)).float() for a, b in times), torch.zeros_like(time))
    return (voice * on + bleed * torch.randn(len(time), generator=torch.Generator().manual_seed(0)))[None]


@pytest.mark.parametrize("bleed", [0.0, 0.0005, 0.02])
def test_lines_begin_where_a_voice_begins(bleed):
    times = [(8.2, 11.0), (11.6, 12.4), (13.1, 17.0), (26.2, 29.0), (29.7, 34.2)]
    voiced = find_voice(sung(times, 42.0, bleed), RATE)
    sections = sections_of_song(SONG, 42.0, tuple(np.arange(0, 42, 2.0)), voiced)
    lines = time_lines(SONG, sections, voiced)
    check(lines, sections)
    assert [line.start for line in lines] == pytest.approx([start for start, _ in times], abs=0.05)
    assert [line.end for line in lines] == pytest.approx(
        [end for _, end in times], abs=0.25
    )  # the section ends at 34
    assert {line.method for line in lines} == {BY_VOICE_START}


@pytest.mark.parametrize("seed", range(40))
def test_any_voice_leaves_lines_in_order_and_inside(seed):
    rng = np.random.default_rng(seed)
    seconds = float(rng.uniform(3, 90))
    voiced = (rng.random(round(seconds * VOICE_RATE / 8)) < rng.random()).repeat(8).astype(float)
    sections = sections_of_song(SONG, seconds, tuple(np.arange(0.2, seconds, 1.7)), voiced)
    check(time_lines(SONG, sections, voiced), sections)


def test_voice_activity_knows_silence_and_bridges_consonants():
    assert not find_voice(torch.zeros(2, RATE), RATE).any()
    assert not find_voice(1e-5 * torch.randn(1, RATE), RATE).any()
    voiced = find_voice(sung([(1.0, 1.5), (1.58, 2.0), (3.0, 4.0)], 5.0), RATE)
    assert len(voiced) == 250
    assert voice_starts(voiced) == pytest.approx([1.0, 3.0], abs=0.03)
