"""Window plans, cross-fades and chunks over many lengths."""

from itertools import pairwise

import pytest
import torch
from tiny import tiny_renderer

from songgen_core.errors import UserError
from songgen_core.generation.chunked import chunk_starts, decode_chunked, encode_chunked
from songgen_core.generation.windows import crossfade, plan_windows, render_windows, silence_stream


@pytest.mark.parametrize("num_codes", [1, 2, 249, 250, 251, 999, 1000, 1001, 1750, 1751, 6750])
def test_windows_cover_every_code_once_outside_overlaps(num_codes: int) -> None:
    plan = plan_windows(num_codes, 0, 1000)
    hop = 1000 - plan.overlap
    for k, indices in enumerate(plan.indices):
        expected = (torch.arange(1000) + k * hop) % num_codes
        assert torch.equal(indices, expected)
    covered = 1000 + hop * (len(plan.indices) - 1)
    assert covered >= num_codes
    assert len(plan.indices) == 1 or covered - hop < num_codes, "no window more than needed"


def test_windows_share_their_overlap_exactly() -> None:
    renderer = tiny_renderer()
    codes = torch.randint(50, (1, 2, 95), generator=torch.Generator().manual_seed(0))
    windows = list(
        render_windows(
            renderer,
            codes,
            noise=lambda k: torch.randn(1, 40, 4, generator=torch.Generator().manual_seed(k)),
            num_steps=3,
            guidance_scale=1.5,
        )
    )
    assert len(windows) == 3
    for left, right in pairwise(windows):
        torch.testing.assert_close(left[..., -10:], right[..., :10], atol=1e-5, rtol=1e-5)


def test_crossfade_of_equal_overlaps_changes_nothing() -> None:
    song = torch.randn(1, 2, 100)
    parts = [song[..., :40].clone(), song[..., 30:70].clone(), song[..., 60:].clone()]
    torch.testing.assert_close(crossfade(parts, 10), song)


def test_crossfade_is_linear() -> None:
    joined = crossfade([torch.zeros(1, 1, 8), torch.ones(1, 1, 8)], 5)
    assert joined[0, 0].tolist() == [0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1]


@pytest.mark.parametrize("length", [1, 16, 17, 31, 32, 33, 100, 101])
def test_chunked_equals_whole_for_a_short_reach(length: int) -> None:
    smooth = torch.nn.AvgPool1d(5, stride=1, padding=2)  # reaches 2 frames
    x = torch.randn(1, 3, length)
    chunked = decode_chunked(smooth, x, 1, chunk_size=16, overlap=6)
    torch.testing.assert_close(chunked, smooth(x))


def test_encode_chunked_is_the_inverse_layout() -> None:
    audio = torch.randn(1, 2, 8 * 50)
    pool = torch.nn.AvgPool1d(8)
    torch.testing.assert_close(encode_chunked(pool, audio, 8, chunk_size=10, overlap=3), pool(audio))


def test_chunks_reach_the_end() -> None:
    assert chunk_starts(1000, 128, 32) == [*range(0, 865, 96), 872]
    assert chunk_starts(128, 128, 32) == [0]
    assert chunk_starts(5, 128, 32) == [0]


def test_unwanted_stream_becomes_its_silent_code() -> None:
    config = tiny_renderer().config
    codes = torch.ones(1, 2, 3, dtype=torch.long)
    assert silence_stream(codes, "mixed", config).tolist() == [[[1, 1, 1], [1, 1, 1]]]
    assert silence_stream(codes, "vocal", config).tolist() == [[[1, 1, 1], [9, 9, 9]]]
    assert silence_stream(codes, "bgm", config).tolist() == [[[7, 7, 7], [1, 1, 1]]]
    assert codes.sum() == 6, "the input stays as it was"
    with pytest.raises(UserError, match="choose mixed, vocal or bgm"):
        silence_stream(codes, "drums", config)
