"""The decoding loop against the naive truth: no cache, the whole sequence at every step."""

from dataclasses import replace

import pytest
import torch
from tiny import random_conditions, tiny_lm

from songgen_core.generation.autoregressive import generate, next_logits
from songgen_core.generation.delay import DelayedStreams
from songgen_core.generation.sampling import SamplingOptions, draw, probabilities

CPU = {"dtype": torch.float32, "device": torch.device("cpu")}
GREEDY = SamplingOptions(temperature=0, top_k=0)


@torch.inference_mode()
def naive_greedy(lm, conditions, num_frames: int) -> torch.Tensor:
    config = lm.config
    streams = DelayedStreams(num_frames, config.delays, config.eos_id, config.special_id)
    prefix = lm.conditioner(conditions)
    while not (streams.written and streams.done):
        columns = streams.sequence[:, : streams.written + 1].expand(2, -1, -1)
        logits = lm(columns, prefix=prefix)[..., -1, :]
        streams.write(probabilities(next_logits(logits, streams, GREEDY, None), GREEDY).argmax(-1))
    return streams.codes()


@pytest.mark.parametrize("seed", range(12))
def test_cache_equals_no_cache_token_for_token(seed: int) -> None:
    lm = tiny_lm(seed, delays=((0, 3, 3), (0, 1, 2), (2, 0, 5))[seed % 3])
    conditions = random_conditions(lm, seed)
    *_, last = generate(lm, conditions, 40, GREEDY, **CPU)
    assert torch.equal(last.codes(), naive_greedy(lm, conditions, 40))


def test_songs_of_those_models_end_in_different_ways() -> None:
    """Guards the test above: some of its songs end early, some run to the limit."""
    lengths = set()
    for seed in range(12):
        lm = tiny_lm(seed, delays=((0, 3, 3), (0, 1, 2), (2, 0, 5))[seed % 3])
        *_, last = generate(lm, random_conditions(lm, seed), 40, GREEDY, **CPU)
        lengths.add(last.length)
    assert 40 in lengths
    assert len(lengths) > 3


def test_same_seed_same_song_other_seed_other_song() -> None:
    lm = tiny_lm()
    options = SamplingOptions(temperature=1.0, top_k=8)
    songs = []
    for seed in (5, 5, 6):
        torch.rand(seed)  # what was drawn elsewhere before must not matter
        generator = torch.Generator().manual_seed(seed)
        *_, last = generate(lm, random_conditions(lm), 30, options, generator=generator, **CPU)
        songs.append(last.sequence)
    assert torch.equal(songs[0], songs[1])
    assert not torch.equal(songs[0], songs[2])


def test_stops_at_the_earliest_end_and_no_later() -> None:
    lm = tiny_lm()
    eos, frames = lm.config.eos_id, 20
    plan = {
        1: torch.tensor([1, 1, 1]),
        9: torch.tensor([1, eos, 1]),
    }  # EOS of stream 1 at frame 9 - 1 - 3 = 5
    step = iter(range(1, 100))
    song = list(
        generate(
            lm,
            random_conditions(lm),
            frames,
            SamplingOptions(),
            draw_codes=lambda probs: plan.get(next(step), torch.tensor([2, 3, 4])),
            **CPU,
        )
    )
    assert song[-1].length == 5
    assert len(song) == 9, "columns up to frame 4 of the delayed streams were complete when EOS came"
    assert song[-1].codes().shape == (1, 3, 5)
    assert song[-1].codes().max() < lm.config.codebook_size


def test_eos_at_once_gives_an_empty_song() -> None:
    lm = tiny_lm()
    everything_ends = torch.full((3,), lm.config.eos_id)
    song = list(
        generate(
            lm,
            random_conditions(lm),
            20,
            SamplingOptions(),
            draw_codes=lambda probs: everything_ends,
            **CPU,
        )
    )
    assert len(song) == 1
    assert song[0].codes().shape == (1, 3, 0)


def test_banned_codes_never_appear_in_the_mixed_stream() -> None:
    lm = tiny_lm()
    banned = torch.tensor([0, 1, 2, 3])
    options = SamplingOptions(temperature=5.0, top_k=0)
    generator = torch.Generator().manual_seed(0)
    *_, last = generate(lm, random_conditions(lm), 40, options, banned=banned, generator=generator, **CPU)
    codes = last.codes()[0]
    assert codes.shape[-1] > 0
    assert not torch.isin(codes[0], banned).any()


def test_every_shape_of_options_draws_valid_codes() -> None:
    lm = tiny_lm()
    base = SamplingOptions(temperature=1.0)
    for changes in ({"top_k": 1}, {"top_k": 10**6}, {"top_p": 0.7}, {"top_k": 0}, {"repetition_window": 0}):
        generator = torch.Generator().manual_seed(1)
        for streams in generate(
            lm, random_conditions(lm), 10, replace(base, **changes), generator=generator, **CPU
        ):
            written = streams.sequence[:, streams.written]
            assert ((written >= 0) & (written <= lm.config.special_id)).all()


def test_draw_is_a_multinomial_draw() -> None:
    probs = torch.tensor([[0.1, 0.6, 0.0, 0.3]]).expand(3, -1)
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(4)
    for _ in range(4000):
        counts += torch.bincount(draw(probs, generator), minlength=4)
    assert counts[2] == 0
    torch.testing.assert_close(counts / counts.sum(), probs[0], atol=0.02, rtol=0)
