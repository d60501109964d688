"""What the codes of a song say about it."""

import numpy as np
import pytest
import torch

from training.lm_measure import judge, judge_song
from training.synth import Line, Part, Request, compose
from training.synth.corpus import Lexicon

WORDS = Lexicon({"love": "L AH V", "you": "Y UW"})
SUNG = Part("verse", (Line("love you", tuple(WORDS.syllables("love you"))),))
REQUEST = Request((Part("intro-short"), SUNG), gender="male", bpm=125)
UNSUNG = Request((Part("intro-short"), Part("outro-short")), bpm=125)


def test_a_score_is_all_that_was_asked_for() -> None:
    figures = judge_song(REQUEST, compose(REQUEST, 0).codes, 3)
    assert figures["phone_errors"] == figures["length_off"] == 0
    assert figures["tempo_right"] == figures["gender_right"] == figures["streams_agree"] == 1


def test_words_count_where_some_were_asked_for() -> None:
    """A song without words has none to get wrong: a stray one would count as an error of 100 %."""
    sung, unsung = compose(REQUEST, 0).codes, compose(UNSUNG, 0).codes
    assert judge_song(REQUEST, unsung, 3)["phone_errors"] == 1
    assert "phone_errors" not in judge_song(UNSUNG, sung, 3)
    assert judge([REQUEST, UNSUNG], [torch.from_numpy(sung)] * 2, 3)["phone_errors"] == 0


def test_a_song_of_no_frames_is_all_wrong() -> None:
    nothing = np.zeros((3, 0), np.int64)
    assert judge_song(REQUEST, nothing, 3) == {"phone_errors": 1.0, "length_off": 1.0}
    assert judge_song(UNSUNG, nothing, 3) == {"length_off": 1.0}


@pytest.mark.parametrize("bars", [1, 2])
def test_a_song_that_stops_early_is_off_by_what_is_missing(bars: int) -> None:
    codes = compose(REQUEST, 0).codes
    cut = codes[:, : -bars * 48]  # 12 frames a beat
    expected = bars * 48 / codes.shape[1]
    assert judge_song(REQUEST, cut, 1)["length_off"] == pytest.approx(expected)
