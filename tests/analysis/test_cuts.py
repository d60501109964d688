"""Videos that change their picture with the beats."""

import math
from itertools import pairwise

import pytest
import torch

from songgen_core.analysis import cuts
from songgen_core.analysis.cuts import beat_times, cut_to_beat
from songgen_core.analysis.visuals import MOST_BYTES
from songgen_core.errors import Cancelled, UserError

BEATS = [0.5 * number for number in range(1, 21)]  # 120 a minute, the first at 0.5 s


def stills(count: int, height: int = 8, width: int = 16) -> torch.Tensor:
    """[count, H, W, 3]: picture number n is plain n / 100."""
    return (torch.arange(count) / 100)[:, None, None, None].expand(count, height, width, 3).clone()


def seen(video: torch.Tensor) -> list[int]:
    """The number of the still that each picture shows."""
    return (video[:, 0, 0, 0] * 100).round().int().tolist()


def changes(numbers: list[int]) -> list[int]:
    return [at + 1 for at, (a, b) in enumerate(pairwise(numbers)) if a != b]


@pytest.mark.parametrize("fps", [12.0, 24.0, 29.97])
@pytest.mark.parametrize("every", [1, 2, 4])
def test_pictures_change_at_the_beats_to_the_frame(fps, every):
    video = cut_to_beat(stills(50), BEATS, fps=fps, frames=round(11 * fps), every=every, pulse=0)
    found = changes(seen(video))
    expected = BEATS[::every]
    assert len(found) == len(expected)
    for cut, beat in zip(found, expected):
        assert (
            (cut - 0.5) / fps < beat <= (cut + 0.5) / fps
        )  # the first picture whose middle is not before it
    assert sorted(set(seen(video))) == list(range(len(found) + 1)) and seen(video)[0] == 0


def test_stills_come_again_in_turn():
    video = cut_to_beat(stills(3), BEATS, fps=10, frames=50, every=1, pulse=0)
    assert seen(video)[2::5] == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


def test_a_beat_right_at_the_start_makes_no_flash():
    kind = {"fps": 10, "frames": 30, "every": 2, "pulse": 0}
    assert changes(seen(cut_to_beat(stills(9), [0.2, 0.7, 1.2, 1.7, 2.2], **kind))) == [12, 22]
    assert changes(seen(cut_to_beat(stills(9), [0.3, 0.8, 1.3, 1.8, 2.3], **kind))) == [3, 13, 23]
    assert changes(seen(cut_to_beat(stills(9), [1.0], **kind))) == [10]


def test_shuffled_shows_each_once_a_round_and_none_twice_in_a_row():
    kind = {"fps": 4, "frames": 2000, "every": 1, "pulse": 0, "order": "shuffled"}
    beats = [0.5 * number for number in range(1000)]
    for count in (2, 3, 7):
        shots = seen(cut_to_beat(stills(count), beats, seed=5, **kind))[::2]
        assert len(shots) == 1000 and all(a != b for a, b in pairwise(shots))
        rounds = [shots[at : at + count] for at in range(0, 1000 - count, count)]
        assert all(sorted(found) == list(range(count)) for found in rounds)
        assert count == 2 or len({tuple(found) for found in rounds}) > 1
    assert set(seen(cut_to_beat(stills(1), beats, seed=5, **kind))) == {0}


def test_two_beats_within_one_picture_do_not_repeat_a_still():
    beats = [0.3 * number for number in range(100)]
    for seed in range(20):
        kind = {"order": "shuffled", "seed": seed, "fps": 2, "frames": 60, "every": 1, "pulse": 0}
        numbers = seen(cut_to_beat(stills(3), beats, **kind))
        assert len(changes(numbers)) == 59


def test_the_seed_decides():
    def order(seed):
        kind = {"fps": 4, "frames": 60, "every": 1, "pulse": 0, "order": "shuffled", "seed": seed}
        return seen(cut_to_beat(stills(8), BEATS, **kind))

    assert order(1) == order(1) and order(2**64 - 1) == order(2**64 - 1)
    assert len({tuple(order(seed)) for seed in range(5)}) == 5
    before = torch.random.get_rng_state()
    order(3)
    assert torch.equal(before, torch.random.get_rng_state())


def bright_part(video: torch.Tensor) -> list[float]:
    """How much of each picture is white."""
    return video.mean((1, 2, 3)).tolist()


def test_the_pulse_jumps_at_each_beat_and_decays():
    disc = torch.zeros(1, 90, 160, 3)
    disc[:, 30:60, 60:100] = 1
    still, weak, strong = (
        bright_part(cut_to_beat(disc, BEATS, fps=24, frames=72, every=32, pulse=pulse))
        for pulse in (0.0, 0.3, 1.0)
    )
    assert len(set(still)) == 1 and strong[:12] == still[:12]  # before the first beat
    for beat in (12, 24, 36, 48, 60):
        following = strong[beat : beat + 12]
        assert following[0] > 1.3 * still[0] and following[0] > strong[beat - 1]
        assert all(a > b for a, b in pairwise(following[:8])) and following[-1] < 1.1 * still[0]
        assert still[0] < weak[beat] < strong[beat]
    assert 1.3 < max(strong) / still[0] < 1.25**2


def test_a_zoom_shows_no_edge_and_changes_nothing_that_was_given():
    white = torch.ones(2, 9, 64, 4)
    video = cut_to_beat(white, BEATS, fps=24, frames=48, pulse=1)
    assert video.shape == (48, 9, 64, 3) and video.min() > 1 - 1e-6 and video.max() == 1
    noise = torch.rand(3, 20, 30, 3)
    kept = noise.clone()
    video = cut_to_beat(noise, BEATS, fps=24, frames=48, pulse=1)
    assert torch.equal(noise, kept) and video.min() >= 0 and video.max() <= 1


def test_clips_play_there_and_back():
    kind = {"fps": 4, "frames": 22, "every": 1, "pulse": 0, "clip_length": 3}
    video = cut_to_beat(stills(5), [2.5], **kind)
    assert seen(video) == [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 3, 4, 3, 4, 3, 4, 3, 4, 3, 4, 3, 4]


def test_without_frames_the_video_ends_with_the_last_beat():
    assert len(cut_to_beat(stills(2), [1.0, 2.0, 3.5], fps=24)) == 84


@pytest.mark.parametrize("beats", [BEATS, []])
@pytest.mark.parametrize(("fps", "length"), [(12.0, 3.5), (23.976, 0.52), (12.5, 0.2)])
def test_parts_made_one_by_one_are_the_whole(beats, fps, length):
    kind = {"fps": fps, "frames": round(10 * fps), "every": 1, "order": "shuffled", "seed": 4, "pulse": 0.5}
    pictures = torch.rand(6, 12, 16, 3)
    whole = cut_to_beat(pictures, beats, clip_length=2, **kind)
    starts = [number * length for number in range(math.ceil(10 / length))]
    parts = [cut_to_beat(pictures, beats, clip_length=2, start=s, max_seconds=length, **kind) for s in starts]
    assert torch.equal(torch.cat(parts), whole) and abs(len(parts[0]) - length * fps) <= 0.5
    rest = cut_to_beat(pictures, beats, clip_length=2, start=2.0, **kind)
    assert torch.equal(rest, whole[round(2 * fps) :])


def test_a_part_ends_with_the_last_beat_too():
    assert len(cut_to_beat(stills(2), [1.0, 2.0, 3.5], fps=24, start=3.0)) == 12
    assert len(cut_to_beat(stills(2), [1.0, 2.0, 3.5], fps=24, start=1.0, max_seconds=1e307)) == 60


def test_a_song_that_is_too_long_can_be_made_in_parts():
    pictures = torch.zeros(1, 1, 1, 3).expand(1, 288, 512, 3)
    kind = {"fps": 12, "frames": 270 * 12, "pulse": 0}
    with pytest.raises(UserError, match="parts by start and max_seconds"):
        cut_to_beat(pictures, BEATS, **kind)
    assert len(cut_to_beat(pictures, BEATS, start=265, max_seconds=60, **kind)) == 60


def test_without_beats_cuts_are_even():
    video = cut_to_beat(stills(9), [], fps=10, frames=50, every=2, pulse=0.5)
    assert changes(seen(video)) == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"pictures": torch.zeros(2, 3, 4)}, "pictures, height"),
        ({"pictures": torch.zeros(2, 8, 8, 1)}, "pictures, height"),
        ({"pictures": torch.zeros(0, 8, 8, 3)}, "no pictures"),
        ({"fps": 0.5}, "fps is 0.5"),
        ({"order": "random"}, "in turn, shuffled"),
        ({"pulse": 1.5}, "pulse is 1.5"),
        ({"every": 0}, "every is 0"),
        ({"frames": -1}, "frames is -1"),
        ({"clip_length": 0}, "clip_length is 0"),
        ({"start": 10.0}, "start is 10 s, but the audio lasts 10.0 s; begin earlier"),
        ({"start": 1e307}, "begin earlier"),
        ({"beats": [], "frames": 0}, "connect the output frames"),
        ({"order": "shuffled", "seed": -1}, "seed is -1"),
    ],
)
def test_wrong_inputs_are_named(change, expected):
    given = {"pictures": stills(2), "beats": BEATS, **change}
    with pytest.raises(UserError, match=expected):
        cut_to_beat(given.pop("pictures"), given.pop("beats"), **given)


def test_more_than_4_gb_are_refused_before_memory_is_taken():
    pictures = torch.zeros(1, 1, 1, 3).expand(1, 720, 1280, 3)
    most = MOST_BYTES // (720 * 1280 * 12)
    with pytest.raises(UserError, match=rf"at this size {most} pictures fit"):
        cut_to_beat(pictures, BEATS, frames=most + 1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (120.0, "single number 120"),
        (3, "single number 3"),
        (10**400, "single number 1000"),
        (None, "NoneType"),
        ("12", "type str"),
        (b"12", "type bytes"),
        ({0.5: 1}, "type dict"),
        ([10**400], "list"),
        (["a"], "list"),
        ([[0.1, 0.2]], "list"),
        ([0.5, 0.4], "later than the one before"),
        ([0.0, 0.0], "not loudness"),
        ([-0.5, 1.0], "later than"),
        ([0.5, float("nan")], "later than"),
        ([0.5, float("inf")], "later than"),
    ],
)
def test_what_is_no_list_of_beats_is_refused(value, expected):
    with pytest.raises(UserError, match=expected) as error:
        beat_times(value)
    assert "Analyze Song" in str(error.value) and "\n" not in str(error.value)


def test_beats_may_come_as_any_row_of_numbers():
    assert (
        beat_times([1, 2.5]) == beat_times((1.0, 2.5)) == beat_times(torch.tensor([1.0, 2.5])) == [1.0, 2.5]
    )
    assert beat_times([]) == []


def test_large_pictures_are_cut_few_at_a_time(monkeypatch):
    """What is in work beside the video stays below a few hundred megabytes, whatever the size."""
    most = cuts._BLOCK_BYTES // (1024 * 1024 * 12)
    assert 1 < most < 32
    told, pictures = [], torch.zeros(1, 1, 1, 3).expand(1, 1024, 1024, 3)
    cut_to_beat(pictures, BEATS, frames=24, pulse=0, on_progress=told.append)
    assert [p.done for p in told] == [*range(most, 24, most), 24]
    noise, kind = torch.rand(3, 20, 30, 3), {"frames": 40, "every": 1, "pulse": 1.0}
    whole, told = cut_to_beat(noise, BEATS, **kind), []
    monkeypatch.setattr(cuts, "_BLOCK_BYTES", 1)
    assert torch.equal(cut_to_beat(noise, BEATS, on_progress=told.append, **kind), whole) and len(told) == 40


def test_progress_is_told_and_cutting_can_be_stopped():
    told = []
    cut_to_beat(stills(2), BEATS, frames=100, on_progress=told.append)
    assert [(p.done, p.total) for p in told][-1] == (100, 100) and len(told) > 2
    with pytest.raises(Cancelled):
        cut_to_beat(stills(2), BEATS, frames=100, cancelled=lambda: True)
