"""The whole analysis of a song: what it says, how it is stopped, how long it takes."""

import json
import time

import numpy as np
import pytest
import torch
from synthetic_songs import Style, f_measure, song

from songgen_core.analysis.song_analysis import SCHEMA, analyze_song
from songgen_core.analysis.subtitles import parse_lrc, to_lrc
from songgen_core.errors import AudioError, Cancelled, LyricsError

LYRICS = "[intro]\n[verse]\nOne line here\n另一行歌词\n[chorus]\nSing it\n[outro]"
RATE = 22050


def test_an_analysis_is_plain_json():
    audio, true = song(Style(100.0), 24.0, RATE, 1)
    seen = []
    found = analyze_song(audio, RATE, fps=25.0, lyrics=LYRICS, on_progress=seen.append)
    told = json.loads(found.to_json())
    assert (told["schema"], told["version"]) == (SCHEMA, 1)
    assert told["bpm"] == pytest.approx(100, rel=0.01) and told["frames"] == 600 == found.frames
    assert f_measure(np.array(told["beats"]), true) > 0.9
    assert [s["tag"] for s in told["sections"]] == ["intro-short", "verse", "chorus", "outro-short"]
    assert json.loads(found.sections_json()) == told["sections"]
    assert [line["text"] for line in told["lines"]] == ["One line here", "另一行歌词", "Sing it"]
    assert all(line["method"] and line["confidence"] < 1 for line in told["lines"])
    assert len(told["envelopes"]["loudness"]) == 600 and "另一行歌词" in found.to_json()
    assert {s["end"] for s in told["sections"][:-1]} <= {round(d, 3) for d in told["downbeats"]}
    assert [line.text for line in parse_lrc(to_lrc(found.lines))] == [line.text for line in found.lines]
    assert [p.done for p in seen] == sorted(p.done for p in seen) and seen[-1].done == seen[-1].total


def test_a_vocal_stem_may_have_a_rate_of_its_own_but_not_a_length():
    audio, _ = song(Style(100.0), 12.0, RATE, 1)
    vocal = torch.zeros(1, 12 * 16000)
    vocal[0, 4 * 16000 : 8 * 16000] = 0.3
    found = analyze_song(
        audio, RATE, lyrics="[intro]\n[verse]\nla la la\n[outro]", vocal=vocal, vocal_rate=16000
    )
    assert found.sections[1].start <= 4.5 and found.lines[0].start == pytest.approx(4.0, abs=0.05)
    with pytest.raises(AudioError, match="the same song"):
        analyze_song(audio, RATE, lyrics=LYRICS, vocal=vocal, vocal_rate=8000)


def test_half_a_second_has_no_place_between_its_ends_and_yet_all_sections():
    vocal = 0.5 * torch.sin(2 * torch.pi * 220 * torch.arange(RATE // 2) / RATE)[None]
    found = analyze_song(vocal, RATE, lyrics=LYRICS, vocal=vocal)
    assert (found.sections[0].start, found.sections[-1].end) == (0.0, 0.5)
    assert [s.tag for s in found.sections] == ["intro-short", "verse", "chorus", "outro-short"]


@pytest.mark.parametrize(("channels", "samples"), [(2, 8 * 8000), (1, 4000), (6, 800), (1, 1)])
@pytest.mark.parametrize("lyrics", [None, " ", LYRICS])
def test_silence_has_no_beats_and_no_numbers_are_made_up(channels, samples, lyrics):
    found = analyze_song(torch.zeros(channels, samples), 8000, lyrics=lyrics)
    assert json.loads(found.to_json())["bpm"] is None and found.beats.times == ()
    assert len(found.lines) == (3 if lyrics == LYRICS else 0)
    assert len(found.sections) == (4 if lyrics == LYRICS else 0)


def test_mistakes_are_named():
    audio = torch.zeros(1, 8000)
    with pytest.raises(LyricsError, match="too many"):
        analyze_song(audio, 8000, lyrics="la " * 9000)
    with pytest.raises(AudioError, match="fps is 0"):
        analyze_song(audio, 8000, fps=0)
    with pytest.raises(AudioError, match="NaN"):
        analyze_song(audio + torch.nan, 8000)
    with pytest.raises(AudioError, match="NaN"):
        analyze_song(audio, 8000, vocal=audio / 0)


@pytest.mark.parametrize("blocks", [0, 3, 15])
def test_it_can_be_stopped(blocks):
    asked = iter(range(1000))
    with pytest.raises(Cancelled):
        analyze_song(song(Style(100.0), 30.0, RATE)[0], RATE, cancelled=lambda: next(asked) >= blocks)


def test_the_longest_song_takes_seconds():
    audio = song(Style(112.0), 30.0, 48000, 3)[0].repeat(1, 9)
    start = time.process_time()
    analyze_song(audio, 48000, lyrics=LYRICS, vocal=audio)
    assert time.process_time() - start < 10  # 1.7 s when nothing else runs


def test_the_song_itself_is_left_alone():
    audio, _ = song(Style(100.0), 4.0, RATE)
    before = audio.clone()
    analyze_song(audio, RATE, vocal=audio)
    assert torch.equal(audio, before)


def test_lyrics_of_any_form_are_read():
    found = analyze_song(torch.zeros(1, 80_000), 8000, lyrics="Verse 1:\nMorning light\n\n(Chorus)\nSing it")
    assert [line.text for line in found.lines] == ["Morning light", "Sing it"]


def test_lyrics_in_the_form_of_the_model_are_taken_to_the_letter():
    sung = "[verse] Chorus: the night. One (x2). ; [chorus] la la."
    found = analyze_song(torch.zeros(1, 80_000), 8000, lyrics=sung)
    assert [line.text for line in found.lines] == ["Chorus: the night", "One (x2)", "la la"]
