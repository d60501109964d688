"""Requests, runs over them, and what is told of a model."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from stand_in import LEXICON, RATE, REQUESTS, StandIn

from songgen_core.checking.bootstrap import interval, interval_of_difference
from songgen_core.checking.held_out import read_requests
from songgen_core.checking.report import as_json, figures_of, song_as_json, table
from songgen_core.checking.runner import check_model
from songgen_core.errors import Cancelled, UserError
from songgen_core.text.lyrics import Song
from songgen_core.text.musical_key import KEYS
from songgen_core.text.phone_tokens import FRAMES_PER_BEAT, find_keywords
from songgen_core.text.tags import Description

HELD_OUT = read_requests()


def test_the_requests_are_balanced() -> None:
    def count(name: str) -> Counter:
        return Counter(getattr(request, name) for request in HELD_OUT)

    assert len(HELD_OUT) == 64 == len(count("name")) == len(count("seed")) == len(count("lyrics"))
    assert count("gender") == {"female": 32, "male": 32} and count("emotion") == {"happy": 32, "sad": 32}
    assert set(count("genre").values()) == {16} == set(count("instrument").values())
    assert Counter(request.name[:2] for request in HELD_OUT) == {"en": 40, "zh": 24}
    assert count("key") == {None: 16, **dict.fromkeys(KEYS, 2)}
    exact = {round(1500 / frames) for frames in FRAMES_PER_BEAT}
    assert exact < set(count("bpm")) and all(75 <= bpm <= 150 for bpm in count("bpm"))
    assert all(10 <= request.seconds <= 20 for request in HELD_OUT)
    tags = Counter(section.tag.partition("-")[0] for request in HELD_OUT for section in request.song.sections)
    assert min(tags[tag] for tag in ("verse", "chorus", "bridge", "intro", "inst", "outro")) >= 4


def test_every_beginning_of_the_requests_is_mixed() -> None:
    first = HELD_OUT[:8]
    assert {r.gender for r in first} == {"female", "male"} and {r.name[:2] for r in first} == {"en", "zh"}


def test_the_requests_can_be_sung_as_they_are() -> None:
    lines = [line for r in HELD_OUT for section in r.song.sections for line in section.lines]
    assert len(lines) == len(set(lines)) > 150
    for request in HELD_OUT:
        assert Song.parse(request.lyrics).format() == request.lyrics and not request.song.warnings()
        description = Description.parse(request.description)
        assert all("the key is" in text for text in description.warnings()), request.name
        asked = find_keywords(description.format())
        assert len(asked) == (6 if request.key else 5), (request.name, asked)
        assert (f"key: {request.key}" in asked) == (request.key is not None)
        assert (request.emotion == "sad") == (request.key or "minor" * (request.emotion == "sad")).endswith(
            "minor"
        )


def test_a_run_tells_its_progress_and_adds_the_seed() -> None:
    told, singer = [], StandIn()
    checked = check_model(singer, REQUESTS[:2], seed=10, on_progress=told.append)
    assert [(p.stage, p.done, p.total) for p in told] == [("songs", n, 2) for n in range(3)]
    assert singer.seeds == [11, 12] and not checked.failed
    assert [song.request.name for song in checked.songs] == ["a", "b"]


def test_a_song_that_comes_to_nothing_does_not_stop_the_rest() -> None:
    class Moody(StandIn):
        def generate(self, lyrics, *args, **options):
            if lyrics == REQUESTS[0].lyrics:
                raise UserError("not today; try another seed")
            made = super().generate(lyrics, *args, **options)
            return replace(made, audio={**made.audio, "vocal": made.audio["vocal"] * float("nan")})

    checked = check_model(Moody(), REQUESTS[:2])
    assert checked.failed["a"] == "not today; try another seed" and checked.songs == ()
    assert "NaN" in checked.failed["b"] or "finite" in checked.failed["b"]


def test_a_bug_is_no_failed_song() -> None:
    with pytest.raises(KeyError):
        check_model(StandIn(()), REQUESTS[:1])


def test_a_run_can_be_stopped_and_keeps_what_it_made() -> None:
    singer = StandIn()
    checked = check_model(singer, REQUESTS, cancelled=lambda: len(singer.seeds) == 2)
    assert len(singer.seeds) == 2 and checked.stopped and 1 <= len(checked.songs) < len(REQUESTS)
    assert checked.songs[0].request == REQUESTS[0]
    with pytest.raises(Cancelled):
        check_model(singer, REQUESTS, cancelled=lambda: True)


def test_figures_of_right_songs_and_of_wrong_ones() -> None:
    """Women for men and men for women, in the wrong key, at the wrong pace."""
    singers = [StandIn(), StandIn(gender="male", key="C# major", bpm=83)]
    right, wrong = (
        {f.name: f for f in figures_of(check_model(singer, REQUESTS, lexicon=LEXICON).songs)}
        for singer in singers
    )
    assert right["tempo_right"].value == right["key_exact"].value == right["voice_heard"].value == 1
    assert right["pitch_distance"].value > 5 and right["stems_separate"].value == 1
    assert right["voice_inside"].value > 0.99 and right["sections_kept"].value == 1
    assert right["vowels_above_chance"].value > 0.3
    assert right["key_exact"].songs == 2 and right["pitch_male"].songs == 2
    assert right["tempo_right"].low is None  # three songs are too few for an interval
    assert wrong["tempo_right"].value == wrong["key_exact_or_relative"].value == 0
    assert wrong["pitch_distance"].value < 2  # men all of them
    json.dumps(as_json(list(right.values())), allow_nan=False)


def test_what_cannot_be_measured_says_why() -> None:
    noise = torch.rand(1, 2, 5 * RATE, generator=torch.Generator().manual_seed(0)) - 0.5

    class Noise(StandIn):
        def generate(self, lyrics, *args, **options):
            made = super().generate(lyrics, *args, **options)
            return replace(made, audio=dict.fromkeys(made.audio, noise))

    songs = check_model(Noise(), REQUESTS[:1]).songs
    figures = {f.name: f for f in figures_of(songs, "there is no lexicon")}
    missing = {name for name, figure in figures.items() if figure.value is None}
    assert missing == {
        *("pitch_female", "pitch_male", "pitch_distance", "voice_inside", "sections_kept", "voice_in_bgm"),
        *("stems_separate", "drums_in_voice", "vowels_right", "vowels_chance", "vowels_above_chance"),
    }
    assert all(figures[name].reason and figures[name].songs == 0 for name in missing)
    assert figures["vowels_right"].reason == "there is no lexicon"
    lines = table(list(figures.values()))
    assert sum("not available: " in line for line in lines) == len(missing)
    json.dumps([song_as_json(song) for song in songs], allow_nan=False)
    assert all(figure.value is None for figure in figures_of(()))


def test_intervals_hold_what_they_promise() -> None:
    """In about 95 of 100 cases the truth lies inside; here of a mean of 40 songs."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        low, high = interval(rng.normal(3.0, 1.0, 40))
        held += low <= 3.0 <= high
    assert 88 <= held <= 99
    assert interval([1.0] * 4) is None and interval([1.0] * 5) == (1.0, 1.0)


def test_intervals_of_a_difference_have_its_sign() -> None:
    rng = np.random.default_rng(1)
    low, high = interval_of_difference(rng.normal(66, 2, 30), rng.normal(54, 2, 30))
    assert 9 < low < 12 < high < 15
    assert interval_of_difference([1.0] * 9, [1.0] * 4) is None
