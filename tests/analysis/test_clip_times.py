"""Clips for video models: as many pictures as the model can make, and sound that fits to the sample."""

import math

import pytest
import torch

from songgen_core.analysis.clip_times import GRIDS, plan_clip
from songgen_core.errors import AudioError

ANY, WAN, LTX = GRIDS
RATE = 48000


def samples(count: int, channels: int = 2) -> torch.Tensor:
    """[C, N]: every sample is its own number, from 1 on, so that silence is told from sound."""
    return torch.arange(1.0, count + 1, dtype=torch.float64).expand(channels, -1)


@pytest.mark.parametrize(
    "seconds, fps, grid, frames",
    [
        (4.8125, 16, WAN, 77),
        (4.8, 16, WAN, 77),
        (4.82, 16, WAN, 77),  # not half a picture more
        (4.85, 16, WAN, 81),
        (3.88, 25, WAN, 97),
        (3.88, 25, ANY, 97),
        (3.88, 25, LTX, 97),
        (4.0, 25, LTX, 105),
        (4.0, 25, ANY, 100),
        (4.0, 23.976, ANY, 96),
        (0.001, 25, LTX, 1),
        (0.1, 25, LTX, 9),
    ],
)
def test_the_wanted_length_is_rounded_up_to_the_grid(seconds, fps, grid, frames):
    clip = plan_clip(60.0, seconds=seconds, fps=fps, grid=grid)
    assert clip.frames == frames and (clip.frames - 1) % GRIDS[grid] == 0
    assert clip.seconds == frames / fps == clip.next_start
    assert clip.silence == 0 and not clip.is_last and "trimmed" in clip.describe()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("seconds", [0.0, 30.0])
def test_the_end_of_a_song_is_kept_and_silence_fills_less_than_a_step(grid, seconds):
    for fps in (16.0, 23.976, 25.0):
        for song in (1.0, 3.3, 7.77):
            clip = plan_clip(song, start=0.5, seconds=seconds, fps=fps, grid=grid)
            assert (clip.frames - 1) % GRIDS[grid] == 0 and clip.is_last
            rest = song - 0.5 - clip.seconds  # of the song, after the clip
            assert -(GRIDS[grid] - 0.5) / fps - 1e-9 <= rest <= 0.5 / fps
            assert clip.silence == pytest.approx(max(0.0, -rest))
            assert ("padded" in clip.describe()) == (rest < 0) and "last clip" in clip.describe()
            assert ("left out" in clip.describe()) == (rest >= 0.0005)


def test_what_is_left_out_is_told():
    told = plan_clip(10.02, fps=24, grid=ANY).describe()
    assert "last clip" in told and "its last 0.020 s, less than half a picture, are left out" in told
    assert "left out" not in plan_clip(10.0, fps=24, grid=ANY).describe()
    assert "left out" not in plan_clip(10.02, fps=24, grid=ANY, max_frames=200).describe()


def test_a_model_makes_no_more_than_it_can():
    assert plan_clip(60.0, fps=16, grid=WAN, max_frames=77).frames == 77
    assert plan_clip(60.0, fps=16, grid=WAN, max_frames=80).frames == 77
    assert plan_clip(60.0, fps=25, grid=LTX, max_frames=8).frames == 1
    assert plan_clip(60.0, fps=25, grid=ANY, max_frames=80).frames == 80
    assert plan_clip(60.0, seconds=1.0, fps=16, grid=WAN, max_frames=77).frames == 17


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("fps", [16.0, 23.976, 24.0, 25.0, 29.97])
@pytest.mark.parametrize("start", [0.0, 0.1234567])
def test_clips_in_a_row_are_the_song_sample_for_sample(rate, fps, start):
    song, parts = samples(7 * rate + 123, channels=1), []
    sung, is_last = song[0, round(start * rate) :], False
    while not is_last:
        clip = plan_clip(song.shape[1] / rate, start=start, fps=fps, grid=WAN, max_frames=17)
        parts.append(clip.cut(song, rate)[0])
        assert abs(len(parts[-1]) - clip.frames * rate / fps) <= 1
        start, is_last = clip.next_start, clip.is_last
    joined = torch.cat(parts)
    assert len(parts) > 5 and len(joined) > len(sung) - rate / fps / 2 - 1
    assert torch.equal(joined[: len(sung)], sung[: len(joined)]) and not joined[len(sung) :].any()


def test_every_sample_is_at_its_place():
    song = samples(10 * RATE)
    clip = plan_clip(10.0, start=2.5, fps=16, grid=WAN, max_frames=77)
    part = clip.cut(song, RATE)
    assert part.shape == (2, 231000) and part.dtype == song.dtype
    assert torch.equal(part, song[:, 120000:351000])
    last = plan_clip(10.0, start=9.0, fps=16, grid=WAN)
    part = last.cut(song, RATE)  # 16 pictures of song in 17
    assert last.frames == 17 and part.shape == (2, 51000)
    assert torch.equal(part[:, :RATE], song[:, 9 * RATE :]) and not part[:, RATE:].any()


def test_a_track_of_another_rate_is_cut_at_the_same_moments():
    clip = plan_clip(10.0, start=1.0, seconds=2.0, fps=25, grid=ANY)
    voice = clip.cut(samples(10 * 16000, 1)[None], 16000)
    assert voice.shape == (1, 1, 32000) and voice[0, 0, 0] == 16001
    short = clip.cut(samples(2 * RATE), RATE)  # ends in the middle
    assert short.shape == (2, 2 * RATE) and not short[:, RATE:].any()
    none = clip.cut(samples(RATE // 2), RATE)  # ends before
    assert none.shape == (2, 2 * RATE) and not none.any()


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"start": 10.0}, "start is 10 s, but the song ends at 10 s; choose an earlier start"),
        ({"start": 9.99}, "choose an earlier start"),  # less than half a picture
        ({"start": 11.0}, "choose an earlier start"),
        ({"start": -1.0}, "below 0"),
        ({"start": math.nan}, "below 0"),
        ({"seconds": -1.0}, "below 0"),
        ({"seconds": math.nan}, "below 0"),
        ({"seconds": math.inf}, "seconds is inf; choose 0 to 36000"),
        ({"seconds": 1e307, "fps": 120}, r"seconds is 1e\+307; choose 0 to 36000"),
        ({"start": math.inf}, "choose an earlier start"),
        ({"max_frames": -1}, "below 0"),
        ({"fps": 0.0}, "fps is 0"),
        ({"seconds": 1.0, "fps": 500.0}, "choose 1 to 120"),
        ({"grid": "4k"}, "choose one of any, 4k"),
    ],
)
def test_what_cannot_be_cut_is_refused(settings, words):
    with pytest.raises(AudioError, match=words) as raised:
        plan_clip(10.0, **settings)
    assert "\n" not in str(raised.value)
