"""Songs with known labels are measured as what they are, and wrong ones as wrong."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from stand_in import LEXICON, RATE, REQUESTS, score_of, sing

from songgen_core.checking.song_measures import EXACT, OTHER, RELATIVE, SongMeasures, measure_song
from songgen_core.checking.tempo import RELATED, RIGHT, WRONG


@cache
def song(number: int) -> dict[str, torch.Tensor]:
    return sing(REQUESTS[number])


def measured(number: int, **stems: torch.Tensor) -> SongMeasures:
    """The song of a request with other stems; the mix is their sum."""
    audio = {**song(number), **stems}
    audio["mixed"] = audio["vocal"] + audio["bgm"]
    return measure_song(REQUESTS[number], audio, RATE, lexicon=LEXICON)


@cache
def right(number: int) -> SongMeasures:
    return measured(number)


@pytest.mark.parametrize("number", range(len(REQUESTS)))
def test_a_right_song(number: int) -> None:
    request, heard = REQUESTS[number], right(number)
    assert heard.seconds == score_of(request).num_frames / 25 == request.seconds and heard.length == 1
    assert heard.tempo == RIGHT and heard.key == (EXACT if request.key else None)
    assert heard.heard_key == str(score_of(request).key)
    assert heard.voice_inside is not None and heard.voice_inside > 0.99
    assert heard.instrumentals and all(part.kept for part in heard.instrumentals)
    assert heard.drums_in_voice is not None and heard.drums_in_voice < 0.01
    assert heard.voice_in_bgm is not None and heard.voice_in_bgm < 0.02
    assert heard.vowels is not None and heard.vowels.right > 0.9 > heard.vowels.chance + 0.2
    assert (heard.levels.silent, heard.levels.clipped) == (0, 0) and 0.1 < heard.levels.peak < 1


def test_voices_lie_where_their_gender_does() -> None:
    assert right(0).pitch > right(1).pitch + 5


def test_another_tempo() -> None:
    faster = replace(REQUESTS[0], bpm=136)
    assert measure_song(REQUESTS[0], sing(faster), RATE).tempo == WRONG


def test_twice_the_tempo_is_told_apart() -> None:
    asked = replace(REQUESTS[1], bpm=63)
    assert measure_song(asked, song(1), RATE).tempo == RELATED


def test_another_key_and_the_relative_one() -> None:
    assert measure_song(replace(REQUESTS[0], key="F# major"), song(0), RATE).key == OTHER
    assert measure_song(replace(REQUESTS[0], key="E minor"), song(0), RATE).key == RELATIVE


def test_a_swapped_voice() -> None:
    man = measured(0, vocal=sing(replace(REQUESTS[0], gender="male"))["vocal"])
    assert man.pitch < right(0).pitch - 8


def test_a_voice_in_the_intro() -> None:
    vocal = song(0)["vocal"].clone()
    intro = 2 * score_of(REQUESTS[0]).sections[0].end * 1920 // 2
    vocal[:, :intro] = vocal[:, intro : 2 * intro]
    heard = measured(0, vocal=vocal)
    assert heard.voice_inside < 0.8 and not heard.instrumentals[0].kept


def test_a_voice_in_the_middle_and_in_the_outro() -> None:
    sections = score_of(REQUESTS[1]).sections
    sung = song(1)["vocal"]
    line = sung[:, : sections[0].end * 1920]
    everywhere = line.repeat(1, 1 + sung.shape[1] // line.shape[1])[:, : sung.shape[1]]
    heard = measured(1, vocal=everywhere)
    assert heard.voice_inside < 0.8
    assert [part.kept for part in heard.instrumentals] == [False, False]


def test_a_song_that_was_cut_off_is_judged_by_its_start_alone() -> None:
    audio = {name: stem[:, : 8 * RATE] for name, stem in song(1).items()}
    assert measure_song(REQUESTS[1], audio, RATE, ended=False).voice_inside is None
    audio = {name: stem[:, : 7 * RATE] for name, stem in song(0).items()}
    assert len(measure_song(REQUESTS[0], audio, RATE, ended=False).instrumentals) == 1


def test_shuffled_lyrics_are_no_better_than_chance() -> None:
    other = replace(REQUESTS[0], lyrics=REQUESTS[0].lyrics.replace("Tonight we sing a happy song", "Ooh"))
    words = "[intro-short] ; [verse] By go moon the and river the song. Happy a sing we tonight."
    assert right(0).vowels.right > 0.9
    shuffled = measure_song(replace(REQUESTS[0], lyrics=words), song(0), RATE, lexicon=LEXICON).vowels
    assert shuffled.right < shuffled.chance + 0.15
    assert measure_song(other, song(0), RATE, lexicon=LEXICON).vowels.right < 0.7  # too much was sung


def test_vowels_need_a_lexicon() -> None:
    assert measure_song(REQUESTS[0], song(0), RATE).vowels is None


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_stems_that_leak(share: float) -> None:
    """Of the power that is put into the other stem, so much is found."""
    vocal, bgm = song(0)["vocal"], song(0)["bgm"]
    assert measured(0, vocal=vocal + share**0.5 * bgm).drums_in_voice == pytest.approx(share, rel=0.1)
    assert measured(0, bgm=bgm + share**0.5 * vocal).voice_in_bgm == pytest.approx(share, rel=0.3, abs=0.01)


def test_silence_and_clipping() -> None:
    audio = {name: torch.cat([stem, torch.zeros_like(stem)], 1) for name, stem in song(0).items()}
    audio["mixed"] = 4 * audio["mixed"]
    heard = measure_song(REQUESTS[0], audio, RATE)
    assert heard.levels.silent == pytest.approx(0.5, abs=0.02) and heard.length == 2
    assert heard.levels.clipped > 1e-4 and heard.levels.peak > 1


def test_noise_is_no_song() -> None:
    noise = 0.1 * torch.randn(2, 6 * RATE, generator=torch.Generator().manual_seed(0))
    audio = dict.fromkeys(("vocal", "bgm", "mixed"), noise)
    heard = measure_song(REQUESTS[0], audio, RATE, lexicon=LEXICON)
    assert (heard.bpm, heard.tempo, heard.pitch, heard.voiced_seconds) == (None, WRONG, None, 0)
    assert heard.instrumentals == () and heard.voice_inside is None and heard.voice_in_bgm is None
    assert (heard.vowels.right, heard.vowels.heard) == (0, 0)


def test_digital_silence_has_nothing() -> None:
    silence = dict.fromkeys(("vocal", "bgm", "mixed"), torch.zeros(2, 4 * RATE))
    heard = measure_song(REQUESTS[0], silence, RATE, lexicon=LEXICON)
    assert (heard.bpm, heard.heard_key, heard.pitch, heard.drums_in_voice) == (None, None, None, None)
    assert heard.key == OTHER and heard.levels.silent == 1
