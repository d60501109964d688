"""The delay pattern over many sizes."""

import pytest
import torch

from songgen_core.generation.delay import DelayedStreams, apply_delay, delay_mask, undo_delay

SIZES = [(t, d) for t in (1, 2, 7, 40) for d in ((0, 0, 0), (0, 1, 2), (0, 5, 5), (4, 0, 9), (0, 250, 250))]


@pytest.mark.parametrize(("num_frames", "delays"), SIZES)
def test_undo_reverts_apply(num_frames: int, delays: tuple[int, ...]) -> None:
    codes = torch.randint(100, (2, 3, num_frames), generator=torch.Generator().manual_seed(num_frames))
    sequence = apply_delay(codes, delays, special_id=100)
    assert torch.equal(undo_delay(sequence, delays), codes)
    assert (sequence == 100).sum() == 2 * (~delay_mask(num_frames, delays)).sum()
    assert (sequence[..., 0] == 100).all()


def test_the_diagram_of_the_docstring() -> None:
    codes = torch.arange(9).view(1, 3, 3)
    expected = [[9, 0, 1, 2, 9, 9], [9, 9, 9, 3, 4, 5], [9, 9, 9, 6, 7, 8]]
    assert apply_delay(codes, (0, 2, 2), 9)[0].tolist() == expected


def test_written_columns_follow_the_pattern() -> None:
    streams = DelayedStreams(3, (0, 2, 2), eos_id=98, special_id=99)
    for column in range(5):
        streams.write(torch.full((3,), column))
    assert streams.done
    assert streams.codes().tolist() == [[[0, 1, 2], [2, 3, 4], [2, 3, 4]]]
    assert streams.recent(2).tolist() == [[99, 99], [3, 4], [3, 4]]


def test_an_ended_stream_stays_silent() -> None:
    streams = DelayedStreams(6, (0, 1, 1), eos_id=98, special_id=99)
    streams.write(torch.tensor([1, 1, 1]))
    streams.write(torch.tensor([98, 2, 2]))
    assert streams.write(torch.tensor([5, 3, 3])).tolist() == [99, 3, 3]
    assert streams.length == 1
