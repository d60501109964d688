"""What the language model is shown."""

import numpy as np
import pytest
import torch

from songgen_core.generation.delay import undo_delay
from training.codes import FIRST_HEARD, NUM_MIXED, split_mixed
from training.lm_batches import Dropout, SongSource, columns


def test_columns_hold_songs_with_their_ends(source: SongSource) -> None:
    config = source.config  # delays 0, 5, 5
    short, long = (torch.arange(3)[:, None] * 100 + torch.arange(n) for n in (4, 9))
    inputs, targets = columns([short, long], 7, config)
    eos, special = config.eos_id, config.special_id
    assert inputs.shape == targets.shape == (2, 3, 12)
    # Shorter than the longest: all of it, and an end in each stream where its delay puts it.
    assert inputs[0, 0].tolist() == [special, 0, 1, 2, 3, eos, *[special] * 6]
    assert targets[0, 0].tolist() == [0, 1, 2, 3, eos, *[-100] * 7]
    assert targets[0, 1].tolist() == [*[-100] * 5, 100, 101, 102, 103, eos, -100, -100]
    # Longer: cut, without an end.
    assert targets[1, 0].tolist() == [*range(7), *[-100] * 5]
    assert targets[1, 2].tolist() == [*[-100] * 5, *range(200, 207)]
    for row, song, length in ((0, short, 4), (1, long, 7)):
        whole = torch.cat([inputs[row], targets[row, :, -1:].clamp(min=0)], dim=-1)[None]
        assert torch.equal(undo_delay(whole, config.delays)[0, :, :length], song[:, :length])


def test_every_target_is_the_next_input(source: SongSource) -> None:
    batch = source.batch(np.random.default_rng(0), 3, 8.0)
    later, told = batch.inputs[..., 1:], batch.targets[..., :-1]
    assert torch.equal(torch.where(told < 0, source.config.special_id, told), later)
    assert (batch.targets == source.config.eos_id).sum((1, 2)).tolist() == [3, 3, 3]


def test_the_same_generator_gives_the_same_batch(source: SongSource) -> None:
    first, second = (source.batch(np.random.default_rng(5), 2, 4.0) for _ in range(2))
    assert torch.equal(first.inputs, second.inputs)
    assert all(torch.equal(a, b) for a, b in zip(first.conditions, second.conditions))


def test_conditions_are_left_out_as_often_as_told(source: SongSource) -> None:
    config, songs = source.config, 40

    def shown(dropout: Dropout):
        other = SongSource(source.make_request, source.tokenizers, config, dropout)
        return other.batch(np.random.default_rng(1), songs, 4.0).conditions

    def has_prompt(conditions) -> torch.Tensor:
        return (conditions.prompt[:, 0] != config.special_id).any(-1)

    pad = source.tokenizers.pad_id
    everything = shown(Dropout(everything=0, description=0, prompt=0, voice=0))
    assert has_prompt(everything).all() and (everything.lyrics[:, 1] != pad).all()
    nothing = shown(Dropout(everything=1, description=0, prompt=0, voice=0))
    assert not has_prompt(nothing).any() and (nothing.lyrics[:, 1] == pad).all()
    undescribed = shown(Dropout(everything=0, description=1, prompt=1, voice=0))
    assert not has_prompt(undescribed).any() and len(undescribed.description.unique(dim=0)) == 1
    assert len(everything.description.unique(dim=0)) > 10
    half = has_prompt(shown(Dropout(everything=0, description=0, prompt=0.5, voice=0)))
    assert 8 <= half.sum() <= 32


def test_prompts_are_what_encoders_hear(source: SongSource) -> None:
    """Mixed codes of a prompt are none that a song has: those are banned in the song."""
    other = SongSource(source.make_request, source.tokenizers, source.config, Dropout(0, 0, 0, 0))
    batch = other.batch(np.random.default_rng(2), 4, 4.0)
    heard = batch.conditions.prompt[:, 0, 1:]
    assert heard.min() >= FIRST_HEARD == NUM_MIXED and heard.max() < source.config.codebook_size
    sung = batch.targets[:, 0][batch.targets[:, 0] >= 0]
    codes = sung[sung != source.config.eos_id]
    assert codes.max() < NUM_MIXED
    _, k, pulse = split_mixed(codes.numpy())
    assert len(np.unique(k)) > 3 and len(np.unique(pulse)) == 4


@pytest.mark.parametrize(("seconds", "songs"), [(2.0, 40), (5.5, 40), (8.0, 20), (14.0, 6)])
def test_accompaniment_alone_is_learned_without_lyrics(
    source: SongSource, seconds: float, songs: int
) -> None:
    other = SongSource(source.make_request, source.tokenizers, source.config, Dropout(0, 0, 1, voice=1))
    batch = other.batch(np.random.default_rng(3), songs, seconds)
    assert (batch.conditions.lyrics[:, 1:] == source.tokenizers.pad_id).all()
    pure = source.tokenizers.description.encode("[Pure-Music]")[-1]
    assert (batch.conditions.description == pure).any(-1).all()
    mixed, vocal, bgm = (batch.targets[:, k][batch.targets[:, k] >= 0] for k in range(3))
    assert not split_mixed(mixed.numpy())[0].any() and not vocal.any()
    assert len(bgm.unique()) > 10
    # How long it is to be is not told: it plays on until it is stopped.
    assert ((batch.targets[:, 2] >= 0).sum(-1) == int(1.3 * seconds * 25)).all()
    assert not (batch.targets == source.config.eos_id).any()
